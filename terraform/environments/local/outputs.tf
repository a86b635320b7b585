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
  description = "The version of each job in Nomad. If a plan shows a change only here, a job was changed without Terraform: Nomad rolled a failed deployment back, or a person scaled it."
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
