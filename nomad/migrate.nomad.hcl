# Migrates the database to the schema of this release, then ends. Running it again is
# safe: each migration is one statement that may be repeated, under a lock in the
# database. A reverted release never reverts the schema.

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
  description = "Label of this release; if empty, the last part of bin_dir. Another label runs the job again."
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

locals {
  release = var.release != "" ? var.release : regex_replace(var.bin_dir, "^.*/", "")
}

job "migrate" {
  datacenters = var.datacenters
  type        = "batch"

  # Makes Nomad see a new job if only the program at the path changed.
  meta {
    release = local.release
  }

  group "migrate" {
    count = 1

    # The database may be starting: five tries, two seconds apart, before it is a
    # failure.
    restart {
      attempts = 5
      interval = "5m"
      delay    = "2s"
      mode     = "fail"
    }

    reschedule {
      attempts  = 0
      unlimited = false
    }

    task "migrate" {
      driver       = var.driver
      kill_signal  = "SIGTERM"
      kill_timeout = "1m" # for a statement that changes a large table

      dynamic "config" {
        for_each = var.driver == "docker" ? [1] : []
        content {
          image        = var.image
          network_mode = "host"
          entrypoint   = ["${var.bin_dir}/migrate"]
        }
      }

      dynamic "config" {
        for_each = var.driver == "docker" ? [] : [1]
        content {
          command = "${var.bin_dir}/migrate"
        }
      }

      env {
        MSRCHAT_MYSQL_ADDR     = var.mysql_addr
        MSRCHAT_MYSQL_DATABASE = var.mysql_database
        MSRCHAT_MYSQL_USER     = var.mysql_user
      }

      template {
        destination = "secrets/env"
        perms       = "600"
        env         = true
        change_mode = "noop"
        data        = "{{ with nomadVar \"nomad/jobs\" }}MSRCHAT_MYSQL_PASSWORD={{ .mysql_password.Value | trimSuffix \"\\n\" | toJSON }}{{ end }}"
      }

      resources {
        cpu    = 100
        memory = 128
      }

      logs {
        max_files     = 2
        max_file_size = 5
      }
    }
  }
}
