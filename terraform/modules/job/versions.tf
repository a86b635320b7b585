terraform {
  # Write-only arguments, which the environments keep secrets out of the state
  # with, came with 1.11.
  required_version = ">= 1.11"

  required_providers {
    nomad = {
      source = "hashicorp/nomad"
      # From 2.6.0 on nomad_variable has write-only items. Environments pin it.
      version = ">= 2.6.1, < 3.0.0"
    }
  }
}
