package status

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/msrchat/msrchat/shared/golden"
)

// A changed default must show in review.
func TestDefaultsGolden(t *testing.T) {
	got, err := json.MarshalIndent(Defaults(), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden.Compare(t, "testdata/defaults.json", append(got, '\n'))
}

func TestWhatIsZeroMeansTheDefault(t *testing.T) {
	want := Defaults()
	zero := Config{GRPCBind: want.GRPCBind, HealthBind: want.HealthBind, HTTPBind: want.HTTPBind}
	if diff := cmp.Diff(want, zero.withDefaults()); diff != "" {
		t.Errorf("config (-defaults +zero):\n%s", diff)
	}
}
