package database

import (
	"database/sql"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// Metrics shows the pool: connections open, in use and idle, how often and how
// long a caller waited for one, and why connections were closed.
func Metrics(db *sql.DB) prometheus.Collector {
	return collectors.NewDBStatsCollector(db, "mysql")
}
