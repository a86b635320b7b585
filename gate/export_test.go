package gate

// SMTPMode is the TLS mode that a configuration comes to.
func SMTPMode(c Config) string { return c.smtp().TLS }
