# What the module promises, without a Nomad. The mock does not read job files; in the
# environments' tests the real provider does.

mock_provider "nomad" {}

variables {
  file = "../../../nomad/redis.nomad.hcl"
  vars = { redis_port = 7721, data_dir = "/data" }
}

run "waits_for_what_it_runs" {
  assert {
    condition     = nomad_job.this.detach == false
    error_message = "A job that Nomad rolls back would look applied."
  }
  assert {
    condition     = nomad_job.this.timeouts.create == "20m" && nomad_job.this.timeouts.update == "20m"
    error_message = "The wait must be longer than any progress_deadline, for new jobs and for changed ones."
  }
  assert {
    condition     = nomad_job.this.rerun_if_dead && !nomad_job.this.purge_on_destroy
    error_message = "A stopped service must run again, and a destroyed one must stay readable."
  }
}

run "leaves_the_job_file_unchanged" {
  assert {
    condition     = nomad_job.this.jobspec == file(var.file)
    error_message = "Nomad must get the same file that people run by hand."
  }
  assert {
    condition     = nomad_job.this.hcl2[0].vars == tomap({ redis_port = "7721", data_dir = "/data" })
    error_message = "The variables must arrive as text, all of them and no others."
  }
  assert {
    condition     = nomad_job.this.hcl2[0].allow_fs != true
    error_message = "A job file must not read the files of the machine that applies it."
  }
}

run "passes_settings_on" {
  variables {
    rerun_if_dead    = false
    purge_on_destroy = true
    timeout          = "90s"
  }
  assert {
    condition     = !nomad_job.this.rerun_if_dead && nomad_job.this.purge_on_destroy && nomad_job.this.timeouts.update == "90s"
    error_message = "A setting did not arrive."
  }
}

run "refuses_a_file_that_is_not_there" {
  command = plan
  variables {
    file = "../../../nomad/nothing.nomad.hcl"
  }
  expect_failures = [var.file]
}

run "refuses_another_kind_of_file" {
  command = plan
  variables {
    file = "main.tf"
  }
  expect_failures = [var.file]
}

run "refuses_a_secret" {
  command = plan
  variables {
    vars = { mysql_password = "hunter2" }
  }
  expect_failures = [var.vars]
}

run "refuses_a_name_that_no_job_file_can_declare" {
  command = plan
  variables {
    vars = { "redis-port" = "7721" }
  }
  expect_failures = [var.vars]
}

run "refuses_a_timeout_that_is_none" {
  command = plan
  variables {
    timeout = "soon"
  }
  expect_failures = [var.timeout]
}
