package e2e_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var directRequirement = regexp.MustCompile(`(?m)^\s*(?:require )?([a-z0-9.-]+\.[a-z]+/\S+) v\S+$`)

// The table of dependencies says why each is needed; one that is not in it has
// no reason yet.
func TestEveryDependencyHasAReason(t *testing.T) {
	architecture, err := os.ReadFile("../ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	modules, err := filepath.Glob("../*/go.mod")
	if err != nil || len(modules) < 8 {
		t.Fatalf("found %d modules, %v", len(modules), err)
	}
	found := 0
	for _, module := range modules {
		text, err := os.ReadFile(module)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range directRequirement.FindAllStringSubmatch(string(text), -1) {
			if strings.HasPrefix(m[1], "github.com/msrchat/") {
				continue
			}
			found++
			if !strings.Contains(string(architecture), m[1]) {
				t.Errorf("%s requires %s, which the table in ARCHITECTURE.md does not explain", module, m[1])
			}
		}
	}
	if found < 15 {
		t.Errorf("only %d requirements were found", found)
	}
}
