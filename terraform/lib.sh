# lib.sh: functions of the scripts in terraform/. Sourced after tools/lib.sh, never run.
# shellcheck shell=bash

# The oldest Terraform that keeps write-only arguments out of its state.
terraform_minimum=1.11.0

# terraform_version: the version of the terraform on PATH.
terraform_version() {
	terraform version 2>/dev/null | sed -n 's/^Terraform v\([0-9.]*\).*/\1/p' | head -n 1
}

# need_terraform: exit with a clear text if there is none that is new enough.
need_terraform() {
	local version
	need terraform "Version $terraform_minimum or newer is needed: https://developer.hashicorp.com/terraform/install
./justw up runs the same fleet without it."
	version=$(terraform_version)
	version_at_least "${version:-0}" "$terraform_minimum" ||
		die "terraform ${version:-of unknown version} is too old: $terraform_minimum or newer is needed, https://developer.hashicorp.com/terraform/install"
}

# use_mirror FOLDER: make terraform use HashiCorp's providers from MSRCHAT_TF_MIRROR,
# if that is set, by a configuration file in FOLDER. Otherwise the caller's own
# configuration stays.
use_mirror() {
	local mirror
	# It may name a file that does not exist, and terraform would warn each time.
	[ -z "${TF_CLI_CONFIG_FILE:-}" ] || [ -e "$TF_CLI_CONFIG_FILE" ] || unset TF_CLI_CONFIG_FILE
	[ -n "${MSRCHAT_TF_MIRROR:-}" ] || return 0
	mirror=$(cd "$MSRCHAT_TF_MIRROR" 2>/dev/null && pwd) ||
		die "MSRCHAT_TF_MIRROR is $MSRCHAT_TF_MIRROR, which is no folder."
	case $mirror in
	*[\"\\%\$]*) die "MSRCHAT_TF_MIRROR: no \", \\, % or \$ can be in the folder's path: $mirror" ;;
	esac
	cat >"$1/mirror.tfrc" <<-RC
		provider_installation {
		  filesystem_mirror {
		    path    = "$mirror"
		    include = ["registry.terraform.io/hashicorp/*"]
		  }
		  direct {
		    exclude = ["registry.terraform.io/hashicorp/*"]
		  }
		}
	RC
	export TF_CLI_CONFIG_FILE=$1/mirror.tfrc
}

# clean_environment: unset what the caller's shell has for another Terraform or
# Nomad: tokens, workspace, variables, arguments.
clean_environment() {
	local name
	for name in ${!NOMAD_@} ${!TF_VAR_@} ${!TF_CLI_ARGS@} TF_WORKSPACE TF_DATA_DIR; do
		unset "$name"
	done
	export TF_IN_AUTOMATION=1 CHECKPOINT_DISABLE=1
	[ -t 1 ] || export TF_CLI_ARGS=-no-color
}

# need_provider FOLDER: for tests. Exits with 77 if there is no terraform, or if the
# provider that the environments pin is not available; works in FOLDER.
need_provider() {
	local pinned version
	type -P terraform >/dev/null || not_run "terraform is not on PATH"
	version=$(terraform_version)
	version_at_least "${version:-0}" "$terraform_minimum" || not_run "terraform ${version:-?} is older than $terraform_minimum"
	use_mirror "$1"
	pinned=$(sed -n 's/^ *version *= *"\([0-9.]*\)"$/\1/p' "${root:?}/terraform/environments/local/versions.tf")
	mkdir -p "$1/probe"
	cat >"$1/probe/main.tf" <<-TF
		terraform {
		  required_providers {
		    nomad = {
		      source  = "hashicorp/nomad"
		      version = "$pinned"
		    }
		  }
		}
	TF
	terraform "-chdir=$1/probe" init -input=false >"$1/probe.log" 2>&1 || {
		cat "$1/probe.log"
		not_run "the provider hashicorp/nomad $pinned cannot be had here (MSRCHAT_TF_MIRROR=DIR: see terraform/README.md)"
	}
}
