package agent

import "runtime"

// Node is the machine that an agent runs on, or what stands for one.
type Node struct {
	Name       string // in Consul and Nomad
	Datacenter string // Nomad's, by which jobs choose their nodes
	// Address is bound and told to others; Interface is the one that has it.
	Address, Interface string
	// Servers is the address of the node whose agents are servers; the others'
	// agents are clients of those.
	Servers string
	// Namespace is the network namespace that stands for the machine; "" is the
	// caller's own network.
	Namespace string
}

// Local is the one node of a local fleet: everything on loopback.
func Local() Node {
	loopback := "lo"
	if runtime.GOOS == "darwin" {
		loopback = "lo0"
	}
	return Node{Name: "msrchat-local", Datacenter: "dc1", Address: "127.0.0.1", Interface: loopback, Servers: "127.0.0.1"}
}

// Server tells whether the agents of this node are servers.
func (n Node) Server() bool { return n.Address == n.Servers }

// Alone tells whether there are no other nodes.
func (n Node) Alone() bool { return n.Namespace == "" }
