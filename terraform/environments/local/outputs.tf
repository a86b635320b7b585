output "gate" {
  description = "Where clients find the gate: MSRCHAT_GATE."
  value       = "http://127.0.0.1:${var.jobs["gate"]["gate_port"]}"
}

output "consul" {
  description = "Consul's UI."
  value       = "http://${var.consul_address}/ui"
}

output "nomad" {
  description = "Nomad's UI."
  value       = "${var.nomad_address}/ui"
}

output "versions" {
  description = "The version of each job that Nomad has. When a plan shows a change here alone, somebody or something changed a job past Terraform: Nomad rolled a failed deployment back, or a person scaled it."
  value = {
    chat    = module.chat.version
    gate    = module.gate.version
    mail    = module.mail.version
    migrate = module.migrate.version
    mysql   = module.mysql.version
    redis   = module.redis.version
    status  = module.status.version
  }
}
