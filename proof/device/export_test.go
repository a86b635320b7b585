package device

// Stall keeps the device from reading what its client reports, until resume.
func (d *Device) Stall() (resume func()) {
	d.mu.Lock()
	return d.mu.Unlock
}
