package agent

import "runtime"

// Node is the machine that an agent runs on, or what represents one.
type Node struct {
	Name       string // in Consul and Nomad
	Datacenter string // Nomad's; jobs choose their nodes by it
	// Address is bound and advertised; Interface is the one that has it.
	Address, Interface string
	// Servers is the address of the node whose agents are servers; the others'
	// agents are clients of those.
	Servers string
	// Namespace is the network namespace that represents the machine; "" is the
	// caller's network.
	Namespace string
}

// Local is the one node of a local fleet: everything on loopback.
func Local() Node {
	loopback := "lo"
	if runtime.GOOS == "darwin" {
		loopback = "lo0"
	}
	return Node{
		Name: "msrchat-local", Datacenter: "dc1", Address: "127.0.0.1", Interface: loopback, Servers: "127.0.0.1",
	}
}

// Server says whether the agents of this node are servers.
func (n Node) Server() bool { return n.Address == n.Servers }

// Alone says whether there are no other nodes.
func (n Node) Alone() bool { return n.Namespace == "" }
