package database

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
)

// Durability has the settings that make a commit durable.
type Durability struct {
	Version    string
	Flush      string // innodb_flush_log_at_trx_commit
	Binlog     string // log_bin: "ON", "OFF", or "" where there is no such thing
	SyncBinlog string
}

const durabilityQuery = "SHOW GLOBAL VARIABLES WHERE Variable_name IN" +
	" ('version', 'innodb_flush_log_at_trx_commit', 'log_bin', 'sync_binlog')"

// set takes one row of the query.
func (d *Durability) set(name, value string) {
	switch name {
	case "version":
		d.Version = value
	case "innodb_flush_log_at_trx_commit":
		d.Flush = value
	case "log_bin":
		d.Binlog = value
	case "sync_binlog":
		d.SyncBinlog = value
	}
}

// ReadDurability asks the server for its settings.
func ReadDurability(ctx context.Context, db *sql.DB) (d Durability, err error) {
	rows, err := db.QueryContext(ctx, durabilityQuery)
	if err != nil {
		return d, fmt.Errorf("read durability settings: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var name, value string
		if err := rows.Scan(&name, &value); err != nil {
			return d, fmt.Errorf("read durability settings: %w", err)
		}
		d.set(name, value)
	}
	return d, rows.Err()
}

// Check says why commits are not durable. TiDB's are: a majority of its storage has
// written them, and the settings of InnoDB mean nothing there.
func (d Durability) Check() error {
	if strings.Contains(d.Version, "TiDB") {
		return nil
	}
	const why = "a crash would lose acknowledged messages; set it to 1"
	if d.Flush != "1" {
		return fmt.Errorf("the database runs with innodb_flush_log_at_trx_commit=%s: %s", d.Flush, why)
	}
	if d.Binlog == "ON" && d.SyncBinlog != "1" {
		return fmt.Errorf("the database runs with a binlog and sync_binlog=%s: %s", d.SyncBinlog, why)
	}
	return nil
}

// CheckDurability refuses a server that acknowledges a commit before it is on
// disk: what we promise to users rests on these settings.
func CheckDurability(ctx context.Context, db *sql.DB) error {
	d, err := ReadDurability(ctx, db)
	if err != nil {
		return err
	}
	return d.Check()
}
