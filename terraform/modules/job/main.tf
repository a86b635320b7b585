# One job on Nomad, from an unchanged job file.

resource "nomad_job" "this" {
  jobspec = file(var.file)

  hcl2 {
    vars = var.vars
  }

  # Wait for the deployment, and fail when it fails: otherwise a job that was
  # rolled back would look applied. Of a batch job only the placement is waited
  # for; whether it ended well, its dependants see.
  detach = false

  rerun_if_dead    = var.rerun_if_dead
  purge_on_destroy = var.purge_on_destroy

  timeouts {
    create = var.timeout
    update = var.timeout
  }
}

# The resource tells the version it had when it was planned. This is read
# afterwards, and again by each plan, so a plan shows a version that came from
# elsewhere.
data "nomad_job" "running" {
  job_id     = nomad_job.this.name
  depends_on = [nomad_job.this]
}
