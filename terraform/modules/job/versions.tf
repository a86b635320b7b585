terraform {
  # 1.11 has write-only arguments, with which the environments keep secrets out of
  # the state.
  required_version = ">= 1.11"

  required_providers {
    nomad = {
      source = "hashicorp/nomad"
      # nomad_variable has write-only items from 2.6.0 on. Environments pin it.
      version = ">= 2.6.1, < 3.0.0"
    }
  }
}
