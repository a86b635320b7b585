# Planning with the real provider reads every job file with its variables, also
# without a Nomad: a variable that a file does not declare, or a mistake in a file,
# fails here. Nothing listens on port 9 (discard).

variables {
  nomad_address  = "http://127.0.0.1:9"
  consul_address = "127.0.0.1:7701"
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

run "the_provider_reads_every_job_file" {
  command = plan
  assert {
    condition = [
      module.mysql.name, module.redis.name, module.mail.name, module.migrate.name,
      module.status.name, module.chat.name, module.gate.name,
    ] == ["mysql", "redis", "mail", "migrate", "status", "chat", "gate"]
    error_message = "The name of a job is read from its file, so each file must be in its place."
  }
}
