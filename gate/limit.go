package gate

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Limit allows Count events in a window of length Per. A zero Count allows
// everything. It is written COUNT/DURATION, as in 3/10m, or 0.
type Limit struct {
	Count int
	Per   time.Duration
}

const (
	maxLimitCount = 1_000_000_000
	maxLimitPer   = 366 * 24 * time.Hour
)

// ParseLimit reads a limit as String writes it.
func ParseLimit(s string) (Limit, error) {
	if s == "0" {
		return Limit{}, nil
	}
	count, per, ok := strings.Cut(s, "/")
	n, err := strconv.Atoi(count)
	if !ok || err != nil {
		return Limit{}, fmt.Errorf("the limit %q is not COUNT/DURATION, as in 3/10m, or 0 for none", s)
	}
	d, err := time.ParseDuration(per)
	if err != nil {
		return Limit{}, fmt.Errorf("the limit %q has no duration after the slash, as in 3/10m", s)
	}
	l := Limit{n, d}
	return l, l.validate()
}

// String implements fmt.Stringer and flag.Value.
func (l Limit) String() string {
	if l.Count == 0 {
		return "0"
	}
	per := l.Per.String() // 10m0s
	if strings.HasSuffix(per, "m0s") {
		per = strings.TrimSuffix(per, "0s")
	}
	if strings.HasSuffix(per, "h0m") {
		per = strings.TrimSuffix(per, "0m")
	}
	return fmt.Sprintf("%d/%s", l.Count, per)
}

// Set implements flag.Value.
func (l *Limit) Set(s string) (err error) {
	*l, err = ParseLimit(s)
	return err
}

// MarshalText implements encoding.TextMarshaler.
func (l Limit) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

func (l Limit) validate() error {
	switch {
	case l == Limit{}:
		return nil
	case l.Count < 0 || l.Count > maxLimitCount:
		return fmt.Errorf("the limit's count %d is not between 0 and %d", l.Count, maxLimitCount)
	case l.Count > 0 && (l.Per < time.Millisecond || l.Per > maxLimitPer):
		return fmt.Errorf("the limit's duration %s is not between 1ms and %s", l.Per, maxLimitPer)
	}
	return nil
}
