package database_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/go-sql-driver/mysql"

	"github.com/msrchat/msrchat/shared/database"
)

func TestErrors(t *testing.T) {
	for _, tc := range []struct {
		numbers              []uint16
		contention, answered bool
		what                 string
	}{
		{[]uint16{1213, 1205, 8022, 8028, 9007}, true, true, "another transaction was in the way"},
		{[]uint16{1047, 1053, 1180, 1317, 1927}, false, false, "the server is away"},
		{[]uint16{9001, 9002, 9003, 9004, 9005, 9006}, false, false, "TiDB's storage is away"},
		{[]uint16{1062, 1406, 1146}, false, true, "an answer"},
	} {
		for _, n := range tc.numbers {
			err := fmt.Errorf("write: %w", &mysql.MySQLError{Number: n})
			if database.IsContention(err) != tc.contention || database.Answered(err) != tc.answered {
				t.Errorf("%d is not taken as: %s", n, tc.what)
			}
		}
	}
	if database.Answered(errors.New("connection lost")) {
		t.Error("the outcome of a statement on a connection that was lost is known")
	}
}
