package admin

import (
	"fmt"
	"io"
	"log/slog"
)

// Logger returns a logger that writes one line of key=value pairs per record to
// w, from the given level on: debug, info, warn or error. What comes more than a
// hundred times in a second is sampled.
func Logger(level string, w io.Writer) (*slog.Logger, error) {
	var l slog.Level
	switch level {
	case "debug":
		l = slog.LevelDebug
	case "", "info":
		l = slog.LevelInfo
	case "warn":
		l = slog.LevelWarn
	case "error":
		l = slog.LevelError
	default:
		return nil, fmt.Errorf("log level %q: want debug, info, warn or error", level)
	}
	return slog.New(newSampler(slog.NewTextHandler(w, &slog.HandlerOptions{Level: l}))), nil
}
