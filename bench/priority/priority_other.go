//go:build !linux

package priority

import "errors"

// Highest fails.
func Highest() error { return errors.ErrUnsupported }

// Lowest fails.
func Lowest() error { return errors.ErrUnsupported }
