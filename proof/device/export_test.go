package device

// Stall keeps the device from reading what its client tells, until resume.
func (d *Device) Stall() (resume func()) {
	d.mu.Lock()
	return d.mu.Unlock
}
