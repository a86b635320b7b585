package gate

// SMTPMode is the effective TLS mode of a configuration.
func SMTPMode(c Config) string { return c.smtp().TLS }
