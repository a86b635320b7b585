package database

import (
	"errors"

	"github.com/go-sql-driver/mysql"
)

// Error numbers that the code acts on, of MySQL and MariaDB.
const (
	errColumnExists = 1060
	errKeyExists    = 1061
	errDuplicate    = 1062
	errLockTimeout  = 1205
	errDeadlock     = 1213 // in a Galera cluster also: another node wrote the same row
)

// Error numbers of TiDB for a transaction that it undid because of another one.
const (
	errCannotRetry   = 8022
	errSchemaChanged = 8028
	errWriteConflict = 9007
)

// AlreadyExists says that the column or key that a statement adds exists already.
// MySQL, unlike MariaDB, has no IF NOT EXISTS for them.
func AlreadyExists(err error) bool {
	n := number(err)
	return n == errColumnExists || n == errKeyExists
}

// IsDuplicate says that a unique key refused a row.
func IsDuplicate(err error) bool { return number(err) == errDuplicate }

// IsContention says that the server gave up because of another transaction: nothing
// was written, and the same transaction may work when tried again.
func IsContention(err error) bool {
	switch number(err) {
	case errDeadlock, errLockTimeout, errCannotRetry, errSchemaChanged, errWriteConflict:
		return true
	}
	return false
}

// Answered says that err is the server's own answer to a statement, which then
// had no effect. Any other error leaves its outcome unknown.
func Answered(err error) bool {
	n := number(err)
	return n != 0 && !away[n]
}

// away are answers of a server that is going away or has lost the others. They pass,
// and say nothing reliable about a commit in progress.
var away = map[uint16]bool{
	1053: true, 1077: true, 1079: true, 1152: true, 1317: true, 1927: true,
	1047: true, // a Galera node that is not in step with a majority
	1180: true, // the same, in a commit
	// TiDB cannot reach its storage or its placement driver, or not in time.
	9001: true, 9002: true, 9003: true, 9004: true, 9005: true, 9006: true,
}

func number(err error) uint16 {
	var e *mysql.MySQLError
	if errors.As(err, &e) {
		return e.Number
	}
	return 0
}
