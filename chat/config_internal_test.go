package chat

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/msrchat/msrchat/shared/discovery/memory"

	"github.com/msrchat/msrchat/shared/golden"
)

// A changed default must be visible in a review.
func TestDefaultsGolden(t *testing.T) {
	got, err := json.MarshalIndent(Defaults(), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden.Compare(t, "testdata/defaults.json", append(got, '\n'))
}

func TestWhatIsZeroMeansTheDefault(t *testing.T) {
	want := Defaults()
	zero := Config{
		Client:   want.Client,
		Relay:    want.Relay,
		Health:   want.Health,
		HTTP:     want.HTTP,
		Database: want.Database,
		Redis:    want.Redis,
	}
	if diff := cmp.Diff(want, zero.withDefaults(), cmpopts.IgnoreFields(Config{}, "Hooks")); diff != "" {
		t.Errorf("config (-defaults +zero):\n%s", diff)
	}
}

func TestTheDefaultsAreValid(t *testing.T) {
	cfg := Defaults()
	cfg.Instance, cfg.Catalog = "chat-1", memory.New()
	if err := cfg.Validate(); err != nil {
		t.Error(err)
	}
}
