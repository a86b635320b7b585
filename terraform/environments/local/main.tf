# The whole fleet on the Nomad of this machine: the jobs that `./justw up` runs,
# from the same files.

locals {
  jobs_dir = "${path.module}/../../../nomad"
}

# Every job may read this path without a policy. The values are write-only: they
# are in no plan and in no state. They are written once, when the variable is
# created, so that those in Nomad stay. A destroyed fleet gets new ones, which is
# safe because the mysql job sets the database's password at each start.
resource "nomad_variable" "secrets" {
  path             = "nomad/jobs"
  items_wo_version = 1
  items_wo = jsonencode(merge(
    {
      mysql_password = sha256("${uuid()}${uuid()}") # 244 random bits
      code_secret    = sha256("${uuid()}${uuid()}")
    },
    var.secrets,
  ))
}

module "mysql" {
  source     = "../../modules/job"
  file       = "${local.jobs_dir}/mysql.nomad.hcl"
  vars       = var.jobs["mysql"]
  timeout    = var.timeout
  depends_on = [nomad_variable.secrets]
}

module "redis" {
  source     = "../../modules/job"
  file       = "${local.jobs_dir}/redis.nomad.hcl"
  vars       = var.jobs["redis"]
  timeout    = var.timeout
  depends_on = [nomad_variable.secrets]
}

module "mail" {
  source  = "../../modules/job"
  file    = "${local.jobs_dir}/mail.nomad.hcl"
  vars    = var.jobs["mail"]
  timeout = var.timeout
}

module "migrate" {
  source        = "../../modules/job"
  file          = "${local.jobs_dir}/migrate.nomad.hcl"
  vars          = var.jobs["migrate"]
  timeout       = var.timeout
  rerun_if_dead = false # it has ended, and not failed
  depends_on    = [module.mysql]
}

module "status" {
  source  = "../../modules/job"
  file    = "${local.jobs_dir}/status.nomad.hcl"
  vars    = var.jobs["status"]
  timeout = var.timeout
}

# chat and gate wait by themselves for migrate's schema.
module "chat" {
  source     = "../../modules/job"
  file       = "${local.jobs_dir}/chat.nomad.hcl"
  vars       = var.jobs["chat"]
  timeout    = var.timeout
  depends_on = [module.migrate, module.redis, module.status]
}

module "gate" {
  source     = "../../modules/job"
  file       = "${local.jobs_dir}/gate.nomad.hcl"
  vars       = var.jobs["gate"]
  timeout    = var.timeout
  depends_on = [module.migrate, module.redis, module.status, module.mail]
}
