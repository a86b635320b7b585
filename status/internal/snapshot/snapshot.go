// Package snapshot is the JSON of what a replica knows, for the status program
// and the live page.
package snapshot

import (
	statusv1 "github.com/msrchat/msrchat/proto/msrchat/status/v1"
)

// Fleet is a snapshot of the fleet. The names in its JSON do not change.
type Fleet struct {
	Instance     string   `json:"instance"`
	CatalogAgeMS int64    `json:"catalog_age_ms"` // -1: no view of Consul yet
	AssignRate   float64  `json:"assign_rate"`
	Balance      Balance  `json:"balance"`
	Servers      []Server `json:"servers"`
}

// Balance is how even the load is.
type Balance struct {
	State  string `json:"state"` // even, moving or held
	Text   string `json:"text"`
	ToMove uint32 `json:"to_move"`
}

// Server is one chat server.
type Server struct {
	Instance           string  `json:"instance"`
	Address            string  `json:"address"`
	TLSServerName      string  `json:"tls_server_name"`
	RelayAddress       string  `json:"relay_address"`
	Release            string  `json:"release"`
	Zone               string  `json:"zone"`
	InCatalog          bool    `json:"in_catalog"`
	Passing            bool    `json:"passing"`
	Eligible           bool    `json:"eligible"`
	Reason             string  `json:"reason"`
	PendingAssignments uint32  `json:"pending_assignments"`
	ReportAgeMS        int64   `json:"report_age_ms"`
	FairShare          float64 `json:"fair_share"`
	KeepAtMost         uint32  `json:"keep_at_most"`
	Load               *Load   `json:"load"` // null without a report
}

// Load is what a server reports about itself.
type Load struct {
	Connections  uint32  `json:"connections"`
	Capacity     uint32  `json:"capacity"`
	SendRate     float64 `json:"send_rate"`
	QueueDelayMS float64 `json:"queue_delay_ms"`
	CPU          float64 `json:"cpu"`
	MemoryBytes  uint64  `json:"memory_bytes"`
	Draining     bool    `json:"draining"`
}

var balanceStates = map[statusv1.Balance_State]string{
	statusv1.Balance_STATE_EVEN: "even", statusv1.Balance_STATE_MOVING: "moving", statusv1.Balance_STATE_HELD: "held",
}

// Of translates an answer of a replica.
func Of(f *statusv1.FleetResponse) Fleet {
	out := Fleet{
		Instance: f.GetInstance(), CatalogAgeMS: f.GetCatalogAgeMs(), AssignRate: f.GetAssignRate(),
		Balance: Balance{
			State: balanceStates[f.GetBalance().GetState()], Text: f.GetBalance().GetText(),
			ToMove: f.GetBalance().GetToMove(),
		},
		Servers: []Server{},
	}
	for _, s := range f.GetServers() {
		server := Server{
			Instance: s.GetEndpoint().GetInstance(), Address: s.GetEndpoint().GetAddress(),
			TLSServerName: s.GetEndpoint().GetTlsServerName(), RelayAddress: s.GetRelayAddress(),
			Release: s.GetRelease(), Zone: s.GetZone(), InCatalog: s.GetInCatalog(), Passing: s.GetPassing(),
			Eligible: s.GetEligible(), Reason: s.GetReason(),
			PendingAssignments: s.GetPendingAssignments(), ReportAgeMS: s.GetReportAgeMs(),
			FairShare: s.GetFairShare(), KeepAtMost: s.GetKeepAtMost(),
		}
		if l := s.GetLoad(); l != nil {
			server.Load = &Load{
				Connections: l.GetConnections(), Capacity: l.GetCapacity(), SendRate: l.GetSendRate(),
				QueueDelayMS: l.GetQueueDelayMs(), CPU: l.GetCpu(), MemoryBytes: l.GetMemoryBytes(),
				Draining: l.GetDraining(),
			}
		}
		out.Servers = append(out.Servers, server)
	}
	return out
}
