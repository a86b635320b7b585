output "name" {
  description = "Name of the job in Nomad."
  value       = nomad_job.this.name
}

output "version" {
  description = "Version of the job in Nomad. It grows with each change, also without Terraform: a roll-back, a scaling by hand."
  value       = data.nomad_job.running.version
}

output "deployment_status" {
  description = "Result of the last deployment that Terraform waited for; empty for a batch job."
  value       = nomad_job.this.deployment_status
}
