# status: assigns users to chat servers. Any number of replicas, nothing on disk.

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
  default     = 2
  description = "Replicas. Two survive the loss of one; more serve bigger fleets."

  validation {
    condition     = var.count >= 1
    error_message = "The count has to be at least 1."
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

variable "min_healthy_time" {
  type        = string
  default     = "3s"
  description = "How long checks must pass before a new instance is healthy. 3s suits a laptop; a cluster with caches of its own wants 10s and more."
}

locals {
  release = var.release != "" ? var.release : regex_replace(var.bin_dir, "^.*/", "")
}

job "status" {
  datacenters = var.datacenters
  type        = "service"

  meta {
    release = local.release
  }

  group "status" {
    count = var.count

    network {
      port "grpc" {}
      port "health" {}
      port "http" {}
    }

    # All ports are dynamic, so a complete second set starts beside the first, and
    # only when it is healthy the old one ends. With fewer canaries than instances
    # Nomad would stop the old ones before the rest of the new ones run.
    update {
      max_parallel      = var.count
      canary            = var.count
      auto_promote      = true
      auto_revert       = true
      health_check      = "checks"
      min_healthy_time  = var.min_healthy_time
      healthy_deadline  = "2m"
      progress_deadline = "5m"
    }

    migrate {
      max_parallel     = 1 # from a node one at a time, so that the others answer
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

    # Losing a node should not lose every replica.
    spread {
      attribute = "${node.unique.id}"
    }

    # Deregistered first, stopped two seconds later: callers watch Consul and use
    # another replica by then.
    shutdown_delay = "2s"

    service {
      name     = "status"
      port     = "grpc"
      provider = "consul"

      meta {
        instance = "${NOMAD_ALLOC_ID}"
        release  = local.release
        zone     = var.zone
        http     = "${NOMAD_ADDR_http}"
      }

      # Every second, so that a replica that is not ready gets no calls a second
      # later.
      check {
        name     = "ready"
        type     = "grpc"
        port     = "health"
        interval = "1s"
        timeout  = "1s"
      }

      # Only this check restarts the task: it fails if the process hangs, and not if
      # a dependency is away. The grace is for a slow start.
      check {
        name     = "alive"
        type     = "http"
        port     = "http"
        path     = "/healthz"
        interval = "2s"
        timeout  = "1s"

        check_restart {
          limit = 3
          grace = "30s"
        }
      }
    }

    task "status" {
      driver       = var.driver
      kill_signal  = "SIGTERM"
      kill_timeout = "15s" # calls in flight take milliseconds, and streams are closed

      dynamic "config" {
        for_each = var.driver == "docker" ? [1] : []
        content {
          image        = var.image
          network_mode = "host"
          entrypoint   = ["${var.bin_dir}/status"]
        }
      }

      dynamic "config" {
        for_each = var.driver == "docker" ? [] : [1]
        content {
          command = "${var.bin_dir}/status"
        }
      }

      env {
        MSRCHAT_INSTANCE         = "${NOMAD_ALLOC_ID}"
        MSRCHAT_RELEASE          = local.release
        MSRCHAT_ZONE             = var.zone
        MSRCHAT_CONSUL_ADDR      = var.consul_addr
        MSRCHAT_GRPC_BIND        = "${NOMAD_ADDR_grpc}"
        MSRCHAT_GRPC_ADVERTISE   = "${NOMAD_ADDR_grpc}"
        MSRCHAT_HEALTH_BIND      = "${NOMAD_ADDR_health}"
        MSRCHAT_HEALTH_ADVERTISE = "${NOMAD_ADDR_health}"
        MSRCHAT_HTTP_BIND        = "${NOMAD_ADDR_http}"
        GOMEMLIMIT               = "115MiB" # nine tenths of the memory below
      }

      resources {
        cpu    = 100
        memory = 128
      }

      logs {
        max_files     = 5
        max_file_size = 20
      }
    }
  }
}
