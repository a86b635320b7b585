# The database, the only part of the system that must survive. This job is for a
# laptop or a single machine: its data is a folder of the node. Environments with a
# managed MySQL do not run it and set mysql_addr of the other jobs.

variable "datacenters" {
  type        = list(string)
  default     = ["*"]
  description = "Nomad datacenters in which the job may run."
}

variable "mysql_port" {
  type        = number
  default     = 7720
  description = "Port of the database on its node."

  validation {
    condition     = var.mysql_port >= 1024 && var.mysql_port <= 65535
    error_message = "The mysql_port has to be between 1024 and 65535."
  }
}

variable "data_dir" {
  type        = string
  description = "Absolute folder on the node; the data is in mysql/ below it. raw_exec mounts no volumes, so this is a plain path."

  validation {
    condition     = substr(var.data_dir, 0, 1) == "/"
    error_message = "The data_dir has to be an absolute path."
  }
}

variable "mysql_database" {
  type        = string
  default     = "msrchat"
  description = "Database that is created for the services."

  validation {
    condition     = regex_replace(var.mysql_database, "[a-z0-9_]", "") == ""
    error_message = "The mysql_database may hold a-z, 0-9 and _ only."
  }
}

variable "mysql_user" {
  type        = string
  default     = "msrchat"
  description = "User that is created for the services. Its password is mysql_password in the Nomad variable nomad/jobs."

  validation {
    condition     = regex_replace(var.mysql_user, "[a-z0-9_]", "") == ""
    error_message = "The mysql_user may hold a-z, 0-9 and _ only."
  }
}

variable "buffer_pool" {
  type        = string
  default     = "256M"
  description = "InnoDB's cache. The default is for a laptop; a dedicated machine gives it about 70 % of its memory."
}

job "mysql" {
  datacenters = var.datacenters
  type        = "service"

  group "mysql" {
    count = 1

    network {
      port "db" {
        static = var.mysql_port
      }
    }

    # "delay": the data is only on this node, so it is never rescheduled. Ten tries,
    # then a pause until the five minutes are over.
    restart {
      attempts = 10
      interval = "5m"
      delay    = "2s"
      mode     = "delay"
    }

    reschedule {
      attempts  = 0
      unlimited = false
    }

    # No canary, because two servers would destroy their common data folder. The old
    # one stops first, so a change of this job is a short outage, in which the
    # services hold sends until the database is back.
    update {
      max_parallel      = 1
      canary            = 0
      auto_revert       = false # a reverted job does not revert its data
      health_check      = "checks"
      min_healthy_time  = "2s"
      healthy_deadline  = "5m" # crash recovery of a large redo log takes minutes
      progress_deadline = "10m"
    }

    service {
      name     = "mysql"
      port     = "db"
      provider = "consul"

      meta {
        instance = "${NOMAD_ALLOC_ID}"
      }

      check {
        name     = "port"
        type     = "tcp"
        interval = "2s"
        timeout  = "1s"
      }

      # A statement, because the port accepts connections while recovery still runs.
      # The socket's path is relative, because that of a deep checkout is longer than
      # the 107 bytes that the kernel allows.
      check {
        name     = "statement"
        type     = "script"
        task     = "mysql"
        command  = "/bin/sh"
        args     = ["-c", "cd '${var.data_dir}/mysql' && exec mariadb --no-defaults --connect-timeout=2 --socket=./mysql.sock -Ne 'select 1'"]
        interval = "2s"
        timeout  = "3s"
      }
    }

    # Creates the data folder once: beside its place, and moved there when complete,
    # so that an interrupted run leaves nothing that looks like data. "socket": the
    # database's root is the system user of this job, only over the socket; there is
    # no root password and no root over TCP.
    task "init" {
      driver = "raw_exec"

      lifecycle {
        hook    = "prestart"
        sidecar = false
      }

      config {
        command = "/bin/sh"
        args = ["-euc", <<-SH
          umask 077
          [ ! -e "$1" ] || exit 0
          mkdir -p "$(dirname "$1")"
          rm -rf "$1.new"
          # A folder of its own, because a server that starts removes all temporary
          # tables in the folder, also those of another server.
          export TMPDIR="$NOMAD_ALLOC_DIR/tmp"
          mariadb-install-db --no-defaults --user="$(id -un)" --datadir="$1.new" --skip-test-db --auth-root-authentication-method=socket --auth-root-socket-user="$(id -un)"
          mv "$1.new" "$1"
        SH
        , "init", "${var.data_dir}/mysql"]
      }

      resources {
        cpu    = 100
        memory = 256
      }
    }

    task "mysql" {
      driver = "raw_exec"

      # On SIGTERM MariaDB writes its pages and ends; after a SIGKILL it has to
      # recover. Two minutes are enough for a full buffer pool on a slow disk.
      kill_signal  = "SIGTERM"
      kill_timeout = "2m"

      config {
        # Through a shell only for the user's name: MariaDB runs as root only if that
        # is explicit, and it must be root if the folder above belongs to root.
        command = "/bin/sh"
        args = [
          "-c", "exec mariadbd --no-defaults --user=\"$(id -un)\" \"$@\"", "mariadbd",
          "--datadir=${var.data_dir}/mysql",
          "--tmpdir=${NOMAD_ALLOC_DIR}/tmp",
          "--bind-address=${NOMAD_IP_db}",
          "--port=${NOMAD_PORT_db}",
          "--socket=mysql.sock",
          "--pid-file=mysql.pid",
          "--init-file=${NOMAD_SECRETS_DIR}/init.sql",
          # The log is written and synced at each commit, so that an acknowledged
          # message is durable. There is no replica, and so no binlog.
          "--innodb-flush-log-at-trx-commit=1",
          "--skip-log-bin",
          "--innodb-buffer-pool-size=${var.buffer_pool}",
          # Text is Unicode and compared by bytes: the services decide which names
          # are equal, so that MySQL and MariaDB agree.
          "--character-set-server=utf8mb4",
          "--collation-server=utf8mb4_bin",
          # The largest pools of one gate and four chat servers (two of them
          # canaries), and room for people.
          "--max-connections=500",
          "--skip-name-resolve",
          "--default-time-zone=+00:00",
        ]
      }

      # Runs at every start, so that a new password is set at the next start.
      template {
        destination = "secrets/init.sql"
        perms       = "600"
        change_mode = "noop" # people decide when the database restarts
        data        = <<-SQL
          {{ with nomadVar "nomad/jobs" -}}
          CREATE DATABASE IF NOT EXISTS `${var.mysql_database}` CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
          CREATE USER IF NOT EXISTS '${var.mysql_user}'@'%' IDENTIFIED BY '{{ .mysql_password.Value | trimSuffix "\n" | replaceAll "\\" "\\\\" | replaceAll "'" "''" | replaceAll "\n" "\\n" }}';
          ALTER USER '${var.mysql_user}'@'%' IDENTIFIED BY '{{ .mysql_password.Value | trimSuffix "\n" | replaceAll "\\" "\\\\" | replaceAll "'" "''" | replaceAll "\n" "\\n" }}';
          GRANT ALL PRIVILEGES ON `${var.mysql_database}`.* TO '${var.mysql_user}'@'%';
          {{- end }}
        SQL
      }

      resources {
        cpu    = 500
        memory = 768 # buffer pool, and about 1 MB for each busy connection
      }

      logs {
        max_files     = 3
        max_file_size = 20
      }
    }
  }
}
