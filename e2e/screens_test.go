package e2e_test

import (
	"testing"

	"github.com/msrchat/msrchat/e2e/fleet"
)

func commands(t *testing.T, f *fleet.Fleet) { t.Skip() }
func screens(t *testing.T, f *fleet.Fleet)  { t.Skip() }
