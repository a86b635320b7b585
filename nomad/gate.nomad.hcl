# gate: the HTTP service. Accounts, codes, sessions, assignments.

variable "datacenters" {
  type        = list(string)
  default     = ["*"]
  description = "Nomad datacenters in which the job may run."
}

variable "driver" {
  type        = string
  default     = "raw_exec"
  description = "Nomad task driver: raw_exec or exec with a program in bin_dir, docker with image."

  validation {
    condition     = contains(["raw_exec", "exec", "docker"], var.driver)
    error_message = "The driver has to be raw_exec, exec or docker."
  }
}

variable "bin_dir" {
  type        = string
  description = "Absolute folder of the program: on the node for raw_exec, inside the chroot for exec, inside the image for docker."

  validation {
    condition     = substr(var.bin_dir, 0, 1) == "/"
    error_message = "The bin_dir has to be an absolute path. For the local fleet: eval \"$(./justw env)\"."
  }
}

variable "image" {
  type        = string
  default     = ""
  description = "Image for the docker driver."
}

variable "release" {
  type        = string
  default     = ""
  description = "Label of this release; if empty, the last part of bin_dir. Another label is a deployment."
}

variable "count" {
  type        = number
  default     = 1
  description = "Gates. More than one on a node needs gate_port = 0."

  validation {
    condition     = var.count >= 1
    error_message = "The count has to be at least 1."
  }
}

variable "gate_port" {
  type        = number
  default     = 7700
  description = "Fixed port of the gate, or 0 for a dynamic one behind a load balancer that reads Consul."

  validation {
    condition     = var.gate_port == 0 || (var.gate_port >= 1024 && var.gate_port <= 65535)
    error_message = "The gate_port has to be 0 or between 1024 and 65535."
  }
}

variable "zone" {
  type        = string
  default     = "$${node.datacenter}"
  description = "Zone of an instance; by default the Nomad datacenter of its node."
}

variable "consul_addr" {
  type        = string
  default     = "127.0.0.1:7701"
  description = "host:port of the Consul agent on each node."
}

variable "mysql_addr" {
  type        = string
  default     = "127.0.0.1:7720"
  description = "host:port of the database, several with commas for the nodes of a Galera cluster."
}

variable "mysql_database" {
  type        = string
  default     = "msrchat"
  description = "Database of the services."
}

variable "mysql_user" {
  type        = string
  default     = "msrchat"
  description = "User of the services. Its password is mysql_password in the Nomad variable nomad/jobs."
}

variable "redis_addr" {
  type        = string
  default     = "127.0.0.1:7721"
  description = "host:port of Redis, several with commas for a cluster."
}

variable "trusted_proxies" {
  type        = list(string)
  default     = []
  description = "Networks of the load balancers before the gates, such as 10.0.0.0/8. Of a request from there X-Forwarded-For names the client; without it all people behind a balancer share one client's limits."
}

variable "smtp_addr" {
  type        = string
  default     = "127.0.0.1:7725"
  description = "host:port of the mail server that sends the codes."
}

variable "smtp_from" {
  type        = string
  default     = "msrChat <noreply@msrchat.invalid>"
  description = "Sender of the mails."
}

variable "smtp_tls" {
  type        = string
  default     = "none"
  description = "TLS to the mail server: none, starttls or tls."

  validation {
    condition     = contains(["none", "starttls", "tls"], var.smtp_tls)
    error_message = "The smtp_tls has to be none, starttls or tls."
  }
}

variable "min_healthy_time" {
  type        = string
  default     = "3s"
  description = "How long checks must pass before a new instance is healthy. 3s suits a laptop; behind a cloud load balancer it must be longer than the time in which that notices new instances, 60s and more."
}

locals {
  release = var.release != "" ? var.release : regex_replace(var.bin_dir, "^.*/", "")
}

job "gate" {
  datacenters = var.datacenters
  type        = "service"

  meta {
    release = local.release
  }

  group "gate" {
    count = var.count

    network {
      port "http" {
        static = var.gate_port # 0 is dynamic
      }
      port "admin" {}
    }

    # With dynamic ports a complete second set starts first. With a fixed port on one
    # node the old gate has to stop before the new one starts: a few seconds in which
    # clients retry.
    update {
      max_parallel      = var.gate_port == 0 ? var.count : 1
      canary            = var.gate_port == 0 ? var.count : 0
      auto_promote      = var.gate_port == 0
      auto_revert       = true
      health_check      = "checks"
      min_healthy_time  = var.min_healthy_time
      healthy_deadline  = "2m"
      progress_deadline = "5m"
    }

    migrate {
      max_parallel     = 1
      health_check     = "checks"
      min_healthy_time = var.min_healthy_time
      healthy_deadline = "2m"
    }

    # It has no state, so it restarts at once. Ten failures in five minutes are a
    # fault of the node or the program: then it is rescheduled.
    restart {
      attempts = 10
      interval = "5m"
      delay    = "1s"
      mode     = "fail"
    }

    reschedule {
      delay          = "5s"
      delay_function = "exponential"
      max_delay      = "2m"
      unlimited      = true
    }

    # Losing a node should not lose every gate.
    spread {
      attribute = "${node.unique.id}"
    }

    # Deregistered first and stopped later, so that load balancers that read Consul
    # send nothing more. With a fixed port this time is an outage, so it is short.
    shutdown_delay = var.gate_port == 0 ? "5s" : "1s"

    service {
      name     = "gate"
      port     = "http"
      provider = "consul"

      meta {
        instance = "${NOMAD_ALLOC_ID}"
        release  = local.release
        zone     = var.zone
        http     = "${NOMAD_ADDR_admin}"
      }

      check {
        name     = "ready"
        type     = "http"
        path     = "/readyz"
        interval = "1s"
        timeout  = "1s"
      }

      # Only this check restarts the task: it fails if the process hangs, and not if
      # its database is away. The grace is for a slow start.
      check {
        name     = "alive"
        type     = "http"
        path     = "/healthz"
        interval = "2s"
        timeout  = "1s"

        check_restart {
          limit = 3
          grace = "30s"
        }
      }
    }

    task "gate" {
      driver       = var.driver
      kill_signal  = "SIGTERM"
      kill_timeout = "20s" # for requests in flight and the mails in the queue

      dynamic "config" {
        for_each = var.driver == "docker" ? [1] : []
        content {
          image        = var.image
          network_mode = "host"
          entrypoint   = ["${var.bin_dir}/gate"]
        }
      }

      dynamic "config" {
        for_each = var.driver == "docker" ? [] : [1]
        content {
          command = "${var.bin_dir}/gate"
        }
      }

      env {
        MSRCHAT_INSTANCE       = "${NOMAD_ALLOC_ID}"
        MSRCHAT_RELEASE        = local.release
        MSRCHAT_ZONE           = var.zone
        MSRCHAT_CONSUL_ADDR    = var.consul_addr
        MSRCHAT_HTTP_BIND      = "${NOMAD_ADDR_http}"
        MSRCHAT_HTTP_ADVERTISE = "${NOMAD_ADDR_http}"
        MSRCHAT_ADMIN_BIND     = "${NOMAD_ADDR_admin}"
        MSRCHAT_MYSQL_ADDR     = var.mysql_addr
        MSRCHAT_MYSQL_DATABASE = var.mysql_database
        MSRCHAT_MYSQL_USER     = var.mysql_user
        MSRCHAT_REDIS_ADDR     = var.redis_addr
        MSRCHAT_SMTP_ADDR      = var.smtp_addr
        MSRCHAT_SMTP_FROM      = var.smtp_from
        MSRCHAT_SMTP_TLS       = var.smtp_tls
        MSRCHAT_TRUSTED_PROXY  = join(",", var.trusted_proxies)
        GOMEMLIMIT             = "345MiB" # nine tenths of the memory below
      }

      # All but mysql_password are optional; without code_secret the hashes of the
      # codes in Redis are salted, but have no key. A new password is used from the
      # next deployment on. A secret may have any characters; a newline at its end,
      # as of a file, is not part of it.
      template {
        destination = "secrets/env"
        perms       = "600"
        env         = true
        change_mode = "noop"
        data        = <<-ENV
          {{ with nomadVar "nomad/jobs" -}}
          MSRCHAT_MYSQL_PASSWORD={{ .mysql_password.Value | trimSuffix "\n" | toJSON }}
          {{ with .code_secret.Value }}MSRCHAT_CODE_SECRET={{ . | trimSuffix "\n" | toJSON }}{{ end }}
          {{ with .redis_password.Value }}MSRCHAT_REDIS_PASSWORD={{ . | trimSuffix "\n" | toJSON }}{{ end }}
          {{ with .smtp_user.Value }}MSRCHAT_SMTP_USER={{ . | trimSuffix "\n" | toJSON }}{{ end }}
          {{ with .smtp_password.Value }}MSRCHAT_SMTP_PASSWORD={{ . | trimSuffix "\n" | toJSON }}{{ end }}
          {{- end }}
        ENV
      }

      resources {
        cpu    = 200
        memory = 384 # argon2id needs 19 MiB for each password that is hashed at once
      }

      logs {
        max_files     = 5
        max_file_size = 20
      }
    }
  }
}
