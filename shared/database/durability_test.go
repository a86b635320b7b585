package database_test

import (
	"strings"
	"testing"

	"github.com/msrchat/msrchat/shared/testenv"

	"github.com/msrchat/msrchat/shared/database"
)

func TestDurability(t *testing.T) {
	t.Parallel()
	d, err := database.ReadDurability(t.Context(), testenv.Open(t, testenv.MariaDB(t)))
	if err != nil || d.Check() != nil || d.Version == "" || d.Flush != "1" {
		t.Errorf("the tests' database: %+v, %v, %v", d, err, d.Check())
	}
	for _, tc := range []struct {
		d   database.Durability
		why string // "" for durable
	}{
		{database.Durability{Version: "10.11", Flush: "1", Binlog: "OFF", SyncBinlog: "0"}, ""},
		{database.Durability{Version: "10.11", Flush: "1", Binlog: "ON", SyncBinlog: "1"}, ""},
		{database.Durability{Version: "10.11", Flush: "2", Binlog: "OFF"}, "innodb_flush_log_at_trx_commit=2"},
		{database.Durability{Version: "8.0", Flush: "1", Binlog: "ON", SyncBinlog: "0"}, "sync_binlog=0"},
		{database.Durability{Version: "8.0.11-TiDB-v8.5.3", Flush: "0"}, ""},
		{database.Durability{}, "innodb_flush_log_at_trx_commit="},
	} {
		err := tc.d.Check()
		if tc.why == "" && err != nil || tc.why != "" && (err == nil || !strings.Contains(err.Error(), tc.why)) {
			t.Errorf("%+v: %v", tc.d, err)
		}
	}
}
