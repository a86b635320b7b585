# One job on Nomad, from an unchanged job file.

resource "nomad_job" "this" {
  jobspec = file(var.file)

  hcl2 {
    vars = var.vars
  }

  # Wait for the deployment and fail if it fails, because otherwise a job that was
  # rolled back would look applied. For a batch job this waits only for the
  # placement; its dependants notice if it failed.
  detach = false

  rerun_if_dead    = var.rerun_if_dead
  purge_on_destroy = var.purge_on_destroy

  timeouts {
    create = var.timeout
    update = var.timeout
  }
}

# The resource has the version from when it was planned. This one is read after the
# apply and by each plan, so that a plan shows a version that came from elsewhere.
data "nomad_job" "running" {
  job_id     = nomad_job.this.name
  depends_on = [nomad_job.this]
}
