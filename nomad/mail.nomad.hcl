# A catch-all mailbox for local use: it accepts all mail, shows it over HTTP, and
# delivers none. Other environments set smtp_addr of the gate to a real server.

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

variable "smtp_port" {
  type        = number
  default     = 7725
  description = "Port that accepts mail."
}

variable "mail_port" {
  type        = number
  default     = 7726
  description = "Port of the HTTP API that shows it."
}

job "mail" {
  datacenters = var.datacenters
  type        = "service"

  group "mail" {
    count = 1

    network {
      port "smtp" {
        static = var.smtp_port
      }
      port "http" {
        static = var.mail_port
      }
    }

    # It has no state that matters: it restarts at once and without end.
    restart {
      attempts = 10
      interval = "5m"
      delay    = "1s"
      mode     = "delay"
    }

    # No canary, because the ports are fixed. The mails are lost with the old process.
    update {
      max_parallel      = 1
      canary            = 0
      auto_revert       = true
      health_check      = "checks"
      min_healthy_time  = "1s"
      healthy_deadline  = "1m"
      progress_deadline = "2m"
    }

    service {
      name     = "mail"
      port     = "smtp"
      provider = "consul"

      meta {
        instance = "${NOMAD_ALLOC_ID}"
        http     = "${NOMAD_ADDR_http}"
      }

      check {
        name     = "port"
        type     = "tcp"
        interval = "2s"
        timeout  = "1s"
      }

      check {
        name     = "alive"
        type     = "http"
        port     = "http"
        path     = "/healthz"
        interval = "2s"
        timeout  = "1s"
      }
    }

    task "mail" {
      driver       = var.driver
      kill_signal  = "SIGTERM"
      kill_timeout = "5s"

      dynamic "config" {
        for_each = var.driver == "docker" ? [1] : []
        content {
          image        = var.image
          network_mode = "host"
          entrypoint   = ["${var.bin_dir}/mailbox"]
        }
      }

      dynamic "config" {
        for_each = var.driver == "docker" ? [] : [1]
        content {
          command = "${var.bin_dir}/mailbox"
        }
      }

      env {
        MSRCHAT_SMTP_BIND = "${NOMAD_ADDR_smtp}"
        MSRCHAT_HTTP_BIND = "${NOMAD_ADDR_http}"
        GOMEMLIMIT        = "57MiB" # nine tenths of the memory below
      }

      resources {
        cpu    = 50
        memory = 64 # for a thousand mails of at most 64 KiB, usually a few KiB
      }

      logs {
        max_files     = 2
        max_file_size = 5
      }
    }
  }
}
