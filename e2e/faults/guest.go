package faults

import (
	"context"

	"github.com/msrchat/msrchat/proof/device"
)

// Guest is there during a run: it may bring people of its own, and is told what
// happens. Its methods are called one at a time.
type Guest interface {
	// Arrive is called when everybody is online; they begin to talk when it
	// returns.
	Arrive(ctx context.Context, c *device.Crowd) error
	// Begun tells of a fault that has begun while so many messages were
	// unacknowledged, Over that the system is whole again, or was not in time.
	Begun(s Step, unacknowledged int)
	Over(d Done)
	// StopTyping asks the guest to have nothing more typed. It may be called again.
	StopTyping()
	// Leave is called when all is quiet. Its error is the run's: what the guest's
	// people lack.
	Leave(ctx context.Context) error
}

// nobody is the guest of a run without one.
type nobody struct{}

func (nobody) Arrive(context.Context, *device.Crowd) error { return nil }
func (nobody) Begun(Step, int)                             {}
func (nobody) Over(Done)                                   {}
func (nobody) StopTyping()                                 {}
func (nobody) Leave(context.Context) error                 { return nil }
