package password

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// hash is a stored password in its parts. It is written as a PHC string:
// $argon2id$v=19$m=19456,t=2,p=1$SALT$KEY, both in base64 without padding.
type hash struct {
	params Params
	salt   []byte
	key    []byte
}

const (
	saltBytes = 16
	keyBytes  = 32
	// maxHash is the length of the database's column.
	maxHash = 255
)

// Limits of the parameters in a stored hash. A row beyond them was not written by
// us, and obeying it could use up the memory.
const (
	maxMemoryKiB = 1 << 20
	maxPasses    = 64
	maxLanes     = 64
)

var errHash = errors.New("the stored password hash is malformed")

// version is Argon2's 1.3, the only one in use.
const version = "v=19"

func (h hash) String() string {
	b64 := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$%s$m=%d,t=%d,p=%d$%s$%s", version,
		h.params.MemoryKiB, h.params.Passes, h.params.Lanes, b64.EncodeToString(h.salt), b64.EncodeToString(h.key))
}

// parse accepts exactly what String writes.
func parse(s string) (hash, error) {
	parts := strings.Split(s, "$")
	if len(s) > maxHash || len(parts) != 6 || parts[0] != "" || parts[1] != "argon2id" || parts[2] != version {
		return hash{}, errHash
	}
	var h hash
	numbers := strings.Split(parts[3], ",")
	if len(numbers) != 3 {
		return hash{}, errHash
	}
	for i, field := range []struct {
		name string
		most uint64
		set  func(uint64)
	}{
		{"m=", maxMemoryKiB, func(v uint64) { h.params.MemoryKiB = uint32(v) }},
		{"t=", maxPasses, func(v uint64) { h.params.Passes = uint32(v) }},
		{"p=", maxLanes, func(v uint64) { h.params.Lanes = uint8(v) }},
	} {
		digits, ok := strings.CutPrefix(numbers[i], field.name)
		v, err := strconv.ParseUint(digits, 10, 32)
		if !ok || err != nil || v == 0 || v > field.most || strconv.FormatUint(v, 10) != digits {
			return hash{}, errHash
		}
		field.set(v)
	}
	var err error
	b64 := base64.RawStdEncoding.Strict()
	if h.salt, err = b64.DecodeString(parts[4]); err != nil {
		return hash{}, errHash
	}
	if h.key, err = b64.DecodeString(parts[5]); err != nil {
		return hash{}, errHash
	}
	// Compared as well, because the decoder skips line ends: a hash has one form.
	if len(h.salt) < 8 || len(h.key) < 16 || h.String() != s {
		return hash{}, errHash
	}
	return h, nil
}
