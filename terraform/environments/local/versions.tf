terraform {
  required_version = ">= 1.11"

  required_providers {
    nomad = {
      source  = "hashicorp/nomad"
      version = "2.6.1"
    }
  }

  # The recipes put the state into the fleet's own folder (-backend-config), to
  # which nobody else has access; by hand it is in this one.
  backend "local" {}
}

provider "nomad" {
  address = var.nomad_address
}
