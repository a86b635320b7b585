// Package planted holds bugs that can be planted in the servers, to show that
// the checker finds them. They exist only in programs built with the tag
// `planted`; in all others Has is a constant false and Dial is nil, so that the
// compiler leaves out what depends on them.
package planted

// Bug is the name of a planted bug. A program built with the tag has the one
// that the environment variable MSRCHAT_PLANTED names.
type Bug string

// The bugs. Each is planted in the mechanism that it breaks.
const (
	// AckBeforeCommit acknowledges and pushes a message, and commits it later.
	AckBeforeCommit Bug = "ack-before-commit"
	// RepairOff announces no head a second time and compares no user with the
	// log.
	RepairOff Bug = "repair-off"
	// DedupeOff appends a message once more when it is sent again.
	DedupeOff Bug = "dedupe-off"
	// DrainWithoutFlush acknowledges what is sent to a draining server and drops
	// it.
	DrainWithoutFlush Bug = "drain-without-flush"
	// LanesReordered lets a later message of a conversation overtake earlier
	// ones.
	LanesReordered Bug = "lanes-reordered"
	// DropThousandth acknowledges and pushes every thousandth message without
	// storing it.
	DropThousandth Bug = "drop-thousandth"
	// StaleMembers remembers the members of a conversation as they were before the
	// last one joined, and does not look at the number that comes with a delivery.
	StaleMembers Bug = "stale-members"
	// StateNotTold tells nobody the number of an own state, nor pushes it.
	StateNotTold Bug = "state-not-told"
)

// Bugs are all of them.
var Bugs = []Bug{
	AckBeforeCommit, RepairOff, DedupeOff, DrainWithoutFlush,
	LanesReordered, DropThousandth, StaleMembers, StateNotTold,
}
