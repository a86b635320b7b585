# Redis holds what may be lost: codes, rate limits, the session cache, routes.
# Everything in it is rebuilt; losing it costs time and no message.

variable "datacenters" {
  type        = list(string)
  default     = ["*"]
  description = "Nomad datacenters in which the job may run."
}

variable "redis_port" {
  type        = number
  default     = 7721
  description = "Port of Redis on its node."

  validation {
    condition     = var.redis_port >= 1024 && var.redis_port <= 65535
    error_message = "The redis_port has to be between 1024 and 65535."
  }
}

variable "data_dir" {
  type        = string
  description = "Absolute folder on the node; the append-only file is in redis/ below it."

  validation {
    condition     = substr(var.data_dir, 0, 1) == "/"
    error_message = "The data_dir has to be an absolute path."
  }
}

variable "max_memory" {
  type        = string
  default     = "256mb"
  description = "Redis refuses writes beyond this."
}

job "redis" {
  datacenters = var.datacenters
  type        = "service"

  group "redis" {
    count = 1

    network {
      port "db" {
        static = var.redis_port
      }
    }

    # "delay": its port and its file are on this node, so it is never rescheduled.
    restart {
      attempts = 10
      interval = "5m"
      delay    = "1s"
      mode     = "delay"
    }

    reschedule {
      attempts  = 0
      unlimited = false
    }

    # No canary, because the running instance holds the port and the file.
    update {
      max_parallel      = 1
      canary            = 0
      auto_revert       = false
      health_check      = "checks"
      min_healthy_time  = "2s"
      healthy_deadline  = "2m" # loading a large append-only file
      progress_deadline = "5m"
    }

    service {
      name     = "redis"
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

      # A command, because Redis accepts connections and answers LOADING while it
      # loads its file.
      check {
        name     = "ping"
        type     = "script"
        task     = "redis"
        command  = "/bin/sh"
        args     = ["-c", "redis-cli -h \"$NOMAD_IP_db\" -p \"$NOMAD_PORT_db\" ping | grep -qx PONG"]
        interval = "2s"
        timeout  = "2s"
      }
    }

    task "redis" {
      driver = "raw_exec"

      # It writes the rest of its append-only file, well within a minute.
      kill_signal  = "SIGTERM"
      kill_timeout = "1m"

      config {
        command = "/bin/sh"
        args = [
          "-ec", "umask 077; mkdir -p '${var.data_dir}/redis'; exec redis-server \"$NOMAD_SECRETS_DIR/redis.conf\"",
        ]
      }

      # redis_password in the Nomad variable nomad/jobs is optional only on loopback:
      # without a password Redis accepts only local connections.
      template {
        destination = "secrets/redis.conf"
        perms       = "600"
        change_mode = "noop"
        data        = <<-CONF
          bind {{ env "NOMAD_IP_db" }}
          port {{ env "NOMAD_PORT_db" }}
          dir "${var.data_dir}/redis"
          daemonize no
          pidfile "${var.data_dir}/redis/redis.pid"
          {{ with nomadVar "nomad/jobs" }}{{ with .redis_password.Value }}requirepass "{{ . | trimSuffix "\n" | replaceAll "\\" "\\\\" | replaceAll "\"" "\\\"" | replaceAll "\n" "\\n" }}"{{ end }}{{ end }}

          # Sessions and routes survive a restart, to spare the database a burst of
          # look-ups. Losing the last second does no harm.
          appendonly yes
          appendfsync everysec
          save ""

          # Evicting keys would silently forget rate limits and routes.
          maxmemory ${var.max_memory}
          maxmemory-policy noeviction
        CONF
      }

      # redis-cli reads its password from here.
      template {
        destination = "secrets/env"
        perms       = "600"
        env         = true
        change_mode = "noop"
        data        = "{{ with nomadVar \"nomad/jobs\" }}{{ with .redis_password.Value }}REDISCLI_AUTH={{ . | trimSuffix \"\\n\" | toJSON }}{{ end }}{{ end }}"
      }

      resources {
        cpu    = 200
        memory = 384 # max_memory, and the copy while the file is rewritten
      }

      logs {
        max_files     = 3
        max_file_size = 20
      }
    }
  }
}
