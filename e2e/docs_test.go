package e2e_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	// A path is something in backticks that begins with a folder of the checkout.
	documentedPath = regexp.MustCompile("`([A-Za-z0-9_.-]+(?:/[A-Za-z0-9_.*-]+)+/?)`")
	documentedLink = regexp.MustCompile(`\]\(([^)#:]+)\)`)
	recipe         = regexp.MustCompile(`\./justw ([a-z][a-z-]*)`)
	justfileRecipe = regexp.MustCompile(`(?m)^([a-z][a-z-]*)( [^:]*)?:`)
)

// elsewhere are names of things that only look like paths of the checkout.
var elsewhere = map[string]bool{
	"nomad/jobs": true, // a Nomad variable
}

// Documents that name what does not exist mislead their readers.
func TestDocumentsNameWhatExists(t *testing.T) {
	root := ".."
	justfile, err := os.ReadFile(filepath.Join(root, "Justfile"))
	if err != nil {
		t.Fatal(err)
	}
	recipes := make(map[string]bool)
	for _, m := range justfileRecipe.FindAllStringSubmatch(string(justfile), -1) {
		recipes[m[1]] = true
	}
	documents, err := filepath.Glob(filepath.Join(root, "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, pattern := range []string{"docs/*.md", "nomad/*.md", "terraform/*.md", "tools/*.md"} {
		more, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		documents = append(documents, more...)
	}
	named := 0
	for _, document := range documents {
		text, err := os.ReadFile(document)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range documentedPath.FindAllStringSubmatch(string(text), -1) {
			folder, _, _ := strings.Cut(m[1], "/")
			_, err := os.Stat(filepath.Join(root, folder))
			if err != nil || strings.HasPrefix(folder, ".fleet") || elsewhere[m[1]] {
				continue // not of the checkout: an import path, or what up makes
			}
			named++
			if found, err := filepath.Glob(filepath.Join(root, m[1])); err != nil || len(found) == 0 {
				t.Errorf("%s names %s, which does not exist", document, m[1])
			}
		}
		for _, m := range documentedLink.FindAllStringSubmatch(string(text), -1) {
			named++
			if _, err := os.Stat(filepath.Join(filepath.Dir(document), m[1])); err != nil {
				t.Errorf("%s links to %s, which does not exist", document, m[1])
			}
		}
		for _, m := range recipe.FindAllStringSubmatch(string(text), -1) {
			named++
			if !recipes[m[1]] {
				t.Errorf("%s names the recipe %s, which the Justfile does not have", document, m[1])
			}
		}
	}
	if named < 20 {
		t.Errorf("only %d names were checked: the patterns find too little", named)
	}
}
