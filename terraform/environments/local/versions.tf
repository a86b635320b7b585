terraform {
  required_version = ">= 1.11"

  required_providers {
    nomad = {
      source  = "hashicorp/nomad"
      version = "2.6.1"
    }
  }

  # The recipes put the state into the fleet's folder (-backend-config), which only
  # its owner can enter; by hand it is in this folder.
  backend "local" {}
}

provider "nomad" {
  address = var.nomad_address
}
