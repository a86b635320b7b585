# What the environment creates, without a Nomad.

mock_provider "nomad" {}

variables {
  nomad_address  = "http://127.0.0.1:7710"
  consul_address = "127.0.0.1:7701"
  secrets        = {} # explicit, because a test does not use an ephemeral default
  jobs = {
    mysql   = { mysql_port = "7720", data_dir = "/data" }
    redis   = { redis_port = "7721", data_dir = "/data" }
    mail    = { bin_dir = "/bin", smtp_port = "7725", mail_port = "7726" }
    migrate = { bin_dir = "/bin", mysql_addr = "127.0.0.1:7720" }
    status  = { bin_dir = "/bin", consul_addr = "127.0.0.1:7701" }
    chat    = { bin_dir = "/bin", mysql_addr = "127.0.0.1:7720", redis_addr = "127.0.0.1:7721", consul_addr = "127.0.0.1:7701" }
    gate    = { bin_dir = "/bin", gate_port = "7700", mysql_addr = "127.0.0.1:7720", redis_addr = "127.0.0.1:7721", consul_addr = "127.0.0.1:7701", smtp_addr = "127.0.0.1:7725" }
  }
}

run "makes_the_fleet" {
  assert {
    condition     = toset(keys(output.versions)) == toset(keys(var.jobs))
    error_message = "Each job must exist, with its version as an output."
  }
  assert {
    condition     = output.gate == "http://127.0.0.1:7700" && output.nomad == "http://127.0.0.1:7710/ui" && output.consul == "http://127.0.0.1:7701/ui"
    error_message = "The addresses must follow the variables."
  }
}

run "keeps_secrets_out_of_the_state" {
  variables {
    secrets = { mysql_password = "kept" }
  }
  assert {
    condition     = nomad_variable.secrets.path == "nomad/jobs"
    error_message = "The jobs read this path without a policy."
  }
  assert {
    condition     = nomad_variable.secrets.items_wo == null && !can(nomad_variable.secrets.items["mysql_password"])
    error_message = "Secrets may be written, never recorded."
  }
  assert {
    condition     = nomad_variable.secrets.items_wo_version == 1
    error_message = "Another number would write new secrets while the databases run."
  }
}

run "refuses_an_empty_secret" {
  command = plan
  variables {
    secrets = { mysql_password = "" }
  }
  expect_failures = [var.secrets]
}

run "refuses_a_nomad_elsewhere" {
  command = plan
  variables {
    nomad_address = "http://nomad.example.org:4646"
  }
  expect_failures = [var.nomad_address]
}

run "refuses_to_forget_a_job" {
  command = plan
  variables {
    jobs = { mysql = {} }
  }
  expect_failures = [var.jobs]
}
