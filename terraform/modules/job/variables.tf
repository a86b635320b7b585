variable "file" {
  type        = string
  description = "Path of the job file, one of nomad/*.nomad.hcl. It is used unchanged, like `nomad job run` does by hand."

  validation {
    condition     = endswith(var.file, ".nomad.hcl") && fileexists(var.file)
    error_message = "There is no job file ${var.file} (its name must end in .nomad.hcl)."
  }
}

variable "vars" {
  type        = map(string)
  default     = {}
  description = "Values of the job file's HCL2 variables, numbers as text. Others have the file's default. They must be known when planning: no attributes of resources in the same state."

  validation {
    condition     = alltrue([for name, value in var.vars : can(regex("^[a-z][a-z0-9_]*$", name)) && value != null])
    error_message = "Every name must be one that a job file can declare (a-z, 0-9, _), and every value must be set."
  }

  # Nomad shows a job's variables to everybody who may read the job, and
  # Terraform writes them to its state.
  validation {
    condition     = !anytrue([for name in keys(var.vars) : can(regex("password|secret|token", name))])
    error_message = "A secret must not be a job's variable: put it into the Nomad variable nomad/jobs (see terraform/README.md)."
  }
}

variable "rerun_if_dead" {
  type        = bool
  default     = true
  description = "Run the job again if it is found stopped. False for a batch job, which is dead because it has ended."
}

variable "purge_on_destroy" {
  type        = bool
  default     = false
  description = "Forget a destroyed job at once. Otherwise Nomad keeps it, stopped, so that its logs can be read, until it collects garbage."
}

variable "timeout" {
  type        = string
  default     = "20m"
  description = "How long to wait for a deployment. Longer than the job's progress_deadline (15m for chat, the longest), so that Nomad's own deadline, and its roll-back, come first."

  validation {
    condition     = can(timeadd("2000-01-01T00:00:00Z", var.timeout))
    error_message = "The timeout must be a duration like 90s, 20m or 1h."
  }
}
