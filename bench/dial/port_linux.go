package dial

import "syscall"

// bindAddressNoPort is IP_BIND_ADDRESS_NO_PORT of linux/in.h.
const bindAddressNoPort = 24

// portLate lets the system choose the port at connect, when it knows the server:
// a port is then taken once for each server, not once altogether.
func portLate(_, _ string, raw syscall.RawConn) error {
	var set error
	if err := raw.Control(func(fd uintptr) {
		set = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IP, bindAddressNoPort, 1)
	}); err != nil {
		return err
	}
	return set
}
