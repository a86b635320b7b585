# chat: the servers with the users' connections, which write the message log.

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
  description = "Chat servers. During a deployment twice as many run."

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

variable "capacity" {
  type        = number
  default     = 18200
  description = "Connections that one server accepts. Each is an open file; 20,000 for a process is a common limit, and the rest is for peers and databases."

  validation {
    condition     = var.capacity >= 1
    error_message = "The capacity has to be at least 1."
  }
}

variable "heartbeat" {
  type        = string
  default     = "20s"
  description = "Interval of the heartbeats in both directions; a side that is silent for two is given up. 20s spares batteries and is below every NAT's timeout; with 2s the users of a node that lost its power are connected elsewhere within ten seconds."
}

variable "drain" {
  type        = string
  default     = "10s"
  description = "Time in which a stopping server asks all its users to leave, even if that exceeds drain_rate. For a full fleet: all connections / drain_rate. Raise kill_timeout with it."
}

variable "drain_rate" {
  type        = number
  default     = 1000
  description = "How many users a second are asked to leave by all servers that stop together, so that they do not all reconnect at once."

  validation {
    condition     = var.drain_rate >= 1
    error_message = "The drain_rate has to be at least 1."
  }
}

variable "kill_timeout" {
  type        = string
  default     = "30s"
  description = "Time between SIGTERM and SIGKILL: the drain, and up to 15s for the commits in flight and the links to peers. The node's max_kill_timeout (30s unless configured) silently limits it."
}

variable "tls_server_name" {
  type        = string
  default     = ""
  description = "Name in the servers' certificate, which clients verify; empty: no TLS."
}

variable "tls_cert" {
  type        = string
  default     = ""
  description = "File on each node with the certificate and its chain, in PEM; with tls_server_name. It is read anew when it is replaced."
}

variable "tls_key" {
  type        = string
  default     = ""
  description = "File on each node with the certificate's private key, in PEM."
}

variable "tls_ca" {
  type        = string
  default     = ""
  description = "File on each node with the authority that probes trust, in PEM; empty: the node's own."
}

variable "probe" {
  type        = bool
  default     = true
  description = "Run a probe beside each server, whose proof decides whether a deployment is healthy. Turn it off to replace a release that loses messages, which would fail the new release's proof."
}

variable "probe_messages" {
  type        = number
  default     = 10000
  description = "Messages in the proof of each new server. With 10,000 the probability of not noticing a build that loses one in a thousand is 1 in 22,000."

  validation {
    condition     = var.probe_messages >= 1
    error_message = "The probe_messages have to be at least 1."
  }
}

variable "probe_rate" {
  type        = number
  default     = 4000
  description = "Messages a second in the proofs of all probes of the fleet together."

  validation {
    condition     = var.probe_rate >= 1
    error_message = "The probe_rate has to be at least 1."
  }
}

variable "probe_every" {
  type        = string
  default     = "1s"
  description = "Pause between two messages of a probe after its proof."
}

variable "healthy_deadline" {
  type        = string
  default     = "5m"
  description = "How long a new instance may take until its checks pass, the probe's proof included. After that the deployment fails. It must be below the progress_deadline of 15m."
}

variable "min_healthy_time" {
  type        = string
  default     = "3s"
  description = "How long checks must pass before a new instance is healthy. 3s suits a laptop; a cluster wants 20s, because its users move to the new servers only once."
}

locals {
  # MiB that the program may use: its bounds, all full at once, and 16 KiB for each
  # connection (chat/places.go).
  go_memory = 260 + ceil(var.capacity / 64)

  release = var.release != "" ? var.release : regex_replace(var.bin_dir, "^.*/", "")
}

job "chat" {
  datacenters = var.datacenters
  type        = "service"

  meta {
    release = local.release
  }

  group "chat" {
    count = var.count

    network {
      port "client" {}
      port "relay" {}
      port "health" {}
      port "http" {}
      port "probe" {}
    }

    # A complete second set of instances starts beside the first. When all of it is
    # healthy, the probes' proofs included, it is promoted, and only then all old
    # instances drain together. So no user is assigned to a server that is about to
    # stop, and each connection moves once. This needs dynamic ports, and room for
    # twice the instances.
    update {
      max_parallel      = var.count
      canary            = var.count
      auto_promote      = true
      auto_revert       = true
      health_check      = "checks"
      min_healthy_time  = var.min_healthy_time
      healthy_deadline  = var.healthy_deadline
      progress_deadline = "15m"
    }

    # From a node that is drained one at a time, because each has users to move.
    migrate {
      max_parallel     = 1
      health_check     = "checks"
      min_healthy_time = var.min_healthy_time
      healthy_deadline = var.healthy_deadline
    }

    # Users are waiting, so a killed server restarts after a second, on the same
    # ports. After ten failures in five minutes it is rescheduled.
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

    # There is no disconnect block by intention. What ran on a node that Nomad's
    # servers have lost counts as lost and is replaced at once; when the node is
    # back, Nomad stops the old server. By then that has no users: a server that
    # reaches neither the database nor Consul closes their connections after ten
    # seconds.
    # - stop_on_client_after would end all chat servers when Nomad's own servers
    #   are away, which are not needed to chat.
    # - lost_after with keep_original would stop the replacement when the node is
    #   back, and move its users a second time.

    # Losing a node should lose as few connections as possible.
    spread {
      attribute = "${node.unique.id}"
    }

    # Deregistered first, so that no new user is assigned here, then SIGTERM. Three
    # seconds: every status replica sees the change in far less than one, and users
    # with a recent assignment can still connect.
    shutdown_delay = "3s"

    service {
      name     = "chat"
      port     = "client"
      provider = "consul"

      # instance joins this entry with the load reports; relay is for peers.
      meta {
        instance = "${NOMAD_ALLOC_ID}"
        release  = local.release
        zone     = var.zone
        relay    = "${NOMAD_ADDR_relay}"
        http     = "${NOMAD_ADDR_http}"

        tls_server_name = var.tls_server_name
      }

      # Every second, so that a server that drains or cannot reach its database
      # gets no new users a second later.
      check {
        name     = "ready"
        type     = "grpc"
        port     = "health"
        interval = "1s"
        timeout  = "1s"
      }

      # The port for users accepts connections.
      check {
        name     = "port"
        type     = "tcp"
        interval = "2s"
        timeout  = "1s"
      }

      # Only this check restarts the task. Readiness must not: a database that is
      # away is no reason to close every connection. Nor is an overloaded machine,
      # on which an answer takes seconds. The grace is for a slow start.
      check {
        name     = "alive"
        type     = "http"
        port     = "http"
        path     = "/healthz"
        interval = "2s"
        timeout  = "5s"

        check_restart {
          limit = 3
          grace = "30s"
        }
      }
    }

    # The probe's check has an entry of its own: a deployment waits for it, but
    # status assigns by the entry above. Without the database every probe fails, and
    # that must not leave users without servers.
    dynamic "service" {
      for_each = var.probe ? [1] : []
      content {
        name     = "probe"
        port     = "probe"
        provider = "consul"

        meta {
          instance = "${NOMAD_ALLOC_ID}"
          release  = local.release
          http     = "${NOMAD_ADDR_probe}"
        }

        check {
          name     = "proof"
          type     = "http"
          path     = "/readyz"
          interval = "1s"
          timeout  = "1s"
        }
      }
    }

    task "chat" {
      driver       = var.driver
      kill_signal  = "SIGTERM"
      kill_timeout = var.kill_timeout

      dynamic "config" {
        for_each = var.driver == "docker" ? [1] : []
        content {
          image        = var.image
          network_mode = "host"
          entrypoint   = ["${var.bin_dir}/chat"]
        }
      }

      dynamic "config" {
        for_each = var.driver == "docker" ? [] : [1]
        content {
          command = "${var.bin_dir}/chat"
        }
      }

      env {
        MSRCHAT_INSTANCE         = "${NOMAD_ALLOC_ID}"
        MSRCHAT_RELEASE          = local.release
        MSRCHAT_ZONE             = var.zone
        MSRCHAT_CONSUL_ADDR      = var.consul_addr
        MSRCHAT_CLIENT_BIND      = "${NOMAD_ADDR_client}"
        MSRCHAT_CLIENT_ADVERTISE = "${NOMAD_ADDR_client}"
        MSRCHAT_RELAY_BIND       = "${NOMAD_ADDR_relay}"
        MSRCHAT_RELAY_ADVERTISE  = "${NOMAD_ADDR_relay}"
        MSRCHAT_HEALTH_BIND      = "${NOMAD_ADDR_health}"
        MSRCHAT_HEALTH_ADVERTISE = "${NOMAD_ADDR_health}"
        MSRCHAT_HTTP_BIND        = "${NOMAD_ADDR_http}"
        MSRCHAT_MYSQL_ADDR       = var.mysql_addr
        MSRCHAT_MYSQL_DATABASE   = var.mysql_database
        MSRCHAT_MYSQL_USER       = var.mysql_user
        MSRCHAT_REDIS_ADDR       = var.redis_addr
        MSRCHAT_CAPACITY         = var.capacity
        MSRCHAT_TLS_SERVER_NAME  = var.tls_server_name
        MSRCHAT_TLS_CERT         = var.tls_cert
        MSRCHAT_TLS_KEY          = var.tls_key
        GOMEMLIMIT               = "${local.go_memory}MiB"
        GODEBUG                  = "cpu.aes=off" # ChaCha20 for TLS: 3.4 KiB less for each connection than AES
        GOGC                     = "400"         # rarely while there is room: a tenth to a fifth less CPU for each message
        MSRCHAT_HEARTBEAT        = var.heartbeat
        MSRCHAT_DRAIN            = var.drain
        MSRCHAT_DRAIN_RATE       = var.drain_rate
      }

      # redis_password is optional. A new password is used from the next deployment
      # on, because a restart here would close every user's connection.
      template {
        destination = "secrets/env"
        perms       = "600"
        env         = true
        change_mode = "noop"
        data        = <<-ENV
          {{ with nomadVar "nomad/jobs" -}}
          MSRCHAT_MYSQL_PASSWORD={{ .mysql_password.Value | trimSuffix "\n" | toJSON }}
          {{ with .redis_password.Value }}MSRCHAT_REDIS_PASSWORD={{ . | trimSuffix "\n" | toJSON }}{{ end }}
          {{- end }}
        ENV
      }

      resources {
        cpu    = 200
        memory = ceil(local.go_memory / 0.9) # 606 for 18,200 connections; GOMEMLIMIT is a soft limit
      }

      logs {
        max_files     = 5
        max_file_size = 20
      }
    }

    dynamic "task" {
      for_each = var.probe ? [1] : []
      labels   = ["probe"]
      content {
        driver      = var.driver
        kill_signal = "SIGTERM"

        # Started after the chat server, stopped after it.
        lifecycle {
          hook    = "poststart"
          sidecar = true
        }

        # It is restarted without end, because its failure must not end the chat
        # server.
        restart {
          attempts = 3
          interval = "1m"
          delay    = "2s"
          mode     = "delay"
        }

        dynamic "config" {
          for_each = var.driver == "docker" ? [1] : []
          content {
            image        = var.image
            network_mode = "host"
            entrypoint   = ["${var.bin_dir}/probe"]
          }
        }

        dynamic "config" {
          for_each = var.driver == "docker" ? [] : [1]
          content {
            command = "${var.bin_dir}/probe"
          }
        }

        # The slot, which chooses the accounts, is Nomad's index of the instance.
        env {
          MSRCHAT_INSTANCE        = "${NOMAD_ALLOC_ID}"
          MSRCHAT_RELEASE         = local.release
          MSRCHAT_CONSUL_ADDR     = var.consul_addr
          MSRCHAT_CHAT_ADDR       = "${NOMAD_ADDR_client}"
          MSRCHAT_HTTP_BIND       = "${NOMAD_ADDR_probe}"
          MSRCHAT_MYSQL_ADDR      = var.mysql_addr
          MSRCHAT_MYSQL_DATABASE  = var.mysql_database
          MSRCHAT_MYSQL_USER      = var.mysql_user
          MSRCHAT_PROBE_MESSAGES  = var.probe_messages
          MSRCHAT_PROBE_RATE      = var.probe_rate
          MSRCHAT_PROBE_EVERY     = var.probe_every
          MSRCHAT_TLS_SERVER_NAME = var.tls_server_name
          MSRCHAT_TLS_CA          = var.tls_ca
          GOMEMLIMIT              = "86MiB" # nine tenths of the task's
        }

        template {
          destination = "secrets/env"
          perms       = "600"
          env         = true
          change_mode = "noop"
          data        = <<-ENV
            {{ with nomadVar "nomad/jobs" -}}
            MSRCHAT_MYSQL_PASSWORD={{ .mysql_password.Value | trimSuffix "\n" | toJSON }}
            {{- end }}
          ENV
        }

        resources {
          cpu    = 50
          memory = 96 # an idle Go program, and a few megabytes during the proof
        }

        logs {
          max_files     = 2
          max_file_size = 5
        }
      }
    }
  }
}
