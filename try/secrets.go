package try

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"

	"github.com/msrchat/msrchat/shared/database"
)

// secrets are made anew at every start, so that nothing has to keep them: MariaDB and
// Redis read theirs from files that only this user may read. Other users of the machine
// reach both ports and get no further.
type secrets struct {
	mysql, redis string
	code         []byte
	// initSQL and redisConf are the files.
	initSQL, redisConf string
}

// setUp is what the mysql job runs at every start, so that the fleet and this process
// leave the same database behind: %[1]s the database, %[2]s its user.
const setUp = "CREATE DATABASE IF NOT EXISTS `%[1]s` CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;\n" +
	"CREATE USER IF NOT EXISTS '%[2]s'@'%%' IDENTIFIED BY '%[3]s';\n" +
	"ALTER USER '%[2]s'@'%%' IDENTIFIED BY '%[3]s';\n" +
	"GRANT ALL PRIVILEGES ON `%[1]s`.* TO '%[2]s'@'%%';\n"

func newSecrets(dir string) (secrets, error) {
	s := secrets{
		mysql: random(), redis: random(), code: []byte(random()),
		initSQL: filepath.Join(dir, "init.sql"), redisConf: filepath.Join(dir, "redis.conf"),
	}
	def := database.Defaults()
	if err := private(s.initSQL, fmt.Sprintf(setUp, def.Name, def.User, s.mysql)); err != nil {
		return s, err
	}
	return s, private(s.redisConf, "requirepass "+s.redis+"\n")
}

// private writes a file that only this user may read, whatever was there before.
func private(path, text string) error {
	if err := os.RemoveAll(path); err != nil {
		return err
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		return fmt.Errorf("write a secret: %w", err)
	}
	return nil
}

func random() string {
	secret := make([]byte, 32)
	rand.Read(secret) // never fails: see its documentation
	return hex.EncodeToString(secret)
}
