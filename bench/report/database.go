package report

import (
	"context"
	"database/sql"
	"fmt"
	"strconv"

	"github.com/msrchat/msrchat/shared/database"
)

// Database has the settings that make a commit durable: without them, a rate of
// messages says nothing.
type Database struct {
	Address    string `json:"address"`
	Version    string `json:"version"`
	Flush      int    `json:"innodb_flush_log_at_trx_commit"`
	Binlog     bool   `json:"log_bin"`
	SyncBinlog int    `json:"sync_binlog"`
}

// ReadDatabase asks the server for its settings.
func ReadDatabase(ctx context.Context, db *sql.DB, address string) (*Database, error) {
	settings, err := database.ReadDurability(ctx, db)
	if err != nil {
		return nil, err
	}
	d := &Database{Address: address, Version: settings.Version, Binlog: settings.Binlog == "ON"}
	d.Flush, _ = strconv.Atoi(settings.Flush) // TiDB has none
	d.SyncBinlog, _ = strconv.Atoi(settings.SyncBinlog)
	return d, nil
}

// String is one line.
func (d *Database) String() string {
	settings := database.Durability{
		Version: d.Version, Flush: strconv.Itoa(d.Flush), Binlog: "OFF", SyncBinlog: strconv.Itoa(d.SyncBinlog),
	}
	binlog := "OFF"
	if d.Binlog {
		settings.Binlog = "ON"
		binlog = "ON, sync_binlog=" + settings.SyncBinlog
	}
	warning := ""
	if settings.Check() != nil {
		warning = " (NOT DURABLE: a crash loses acknowledged messages)"
	}
	return fmt.Sprintf("database %s at %s: innodb_flush_log_at_trx_commit=%d, log_bin=%s%s",
		d.Version, d.Address, d.Flush, binlog, warning)
}

// Counters are a few of the server's status variables.
type Counters struct {
	Questions      int64 // statements since its start
	Connections    int64 // open at present
	ThreadsRunning int64 // running at present, that of this query included
}

// ReadCounters reads them.
func ReadCounters(ctx context.Context, db *sql.DB) (Counters, error) {
	rows, err := db.QueryContext(ctx, "SHOW GLOBAL STATUS"+
		" WHERE Variable_name IN ('Questions', 'Threads_connected', 'Threads_running')")
	if err != nil {
		return Counters{}, fmt.Errorf("read status: %w", err)
	}
	defer rows.Close()
	var c Counters
	for rows.Next() {
		var name string
		var value int64
		if err := rows.Scan(&name, &value); err != nil {
			return Counters{}, fmt.Errorf("read status: %w", err)
		}
		switch name {
		case "Questions":
			c.Questions = value
		case "Threads_connected":
			c.Connections = value
		case "Threads_running":
			c.ThreadsRunning = value
		}
	}
	return c, rows.Err()
}
