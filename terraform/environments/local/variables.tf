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
  description = "For each job its HCL2 variables: ports, addresses, and the folder of its program. `./justw apply local` has them written to terraform.tfvars.json in the fleet's folder."

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
  description = "Secrets that exist already and have to stay, by name; those missing are made. Through the environment only: TF_VAR_secrets='{\"mysql_password\":\"…\"}'."

  validation {
    condition     = alltrue([for value in values(var.secrets) : value != null && value != ""])
    error_message = "A secret that is given may not be empty."
  }
}

variable "timeout" {
  type        = string
  default     = "6m"
  description = "How long to wait for each job: somebody sits before it. Nomad's own verdict on status and gate comes after 5m; the deadlines of chat and mysql are longer."
}
