variable "nomad_address" {
  type        = string
  description = "URL of the local Nomad, http://127.0.0.1:PORT."

  validation {
    condition     = can(regex("^http://(127\\.0\\.0\\.1|localhost|\\[::1\\]):[0-9]+$", var.nomad_address))
    error_message = "This environment is for a Nomad on this machine: http://127.0.0.1:PORT, without a path."
  }
}

variable "consul_address" {
  type        = string
  description = "host:port of the local Consul; only shown."
}

variable "jobs" {
  type        = map(map(string))
  description = "For each job its HCL2 variables: ports, addresses, and the folder of its program. `./justw apply local` writes them to terraform.tfvars.json in the fleet's folder."

  validation {
    condition     = toset(keys(var.jobs)) == toset(["chat", "gate", "mail", "migrate", "mysql", "redis", "status"])
    error_message = "Variables of exactly these jobs are needed: chat, gate, mail, migrate, mysql, redis, status. The jobs given are: ${join(", ", keys(var.jobs))}."
  }
}

variable "secrets" {
  type        = map(string)
  default     = {}
  nullable    = false
  ephemeral   = true
  sensitive   = true
  description = "Secrets that exist and must stay, by name; missing ones are created. Only through the environment: TF_VAR_secrets='{\"mysql_password\":\"…\"}'."

  validation {
    condition     = alltrue([for value in values(var.secrets) : value != null && value != ""])
    error_message = "A given secret must not be empty."
  }
}

variable "timeout" {
  type        = string
  default     = "6m"
  description = "How long to wait for each job, short because a person is waiting. Nomad's own deadline for status and gate is 5m; those of chat and mysql are longer."
}
