package release

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var start = time.Date(2026, 11, 23, 7, 0, 0, 0, time.UTC)

func TestEqualBuildsAreOneRelease(t *testing.T) {
	b := builder(t)
	first := build(t, b, start, "gate v1", "chat v1")
	if want := "20261123-070000-"; !strings.HasPrefix(first.Label, want) {
		t.Errorf("label %q, want prefix %q", first.Label, want)
	}
	if again := build(t, b, start.Add(time.Hour), "gate v1", "chat v1"); again != first {
		t.Errorf("the same build became %v, was %v", again, first)
	}
	second := build(t, b, start.Add(2*time.Hour), "gate v1", "chat v2")
	if second.Label <= first.Label {
		t.Errorf("%q does not sort after %q", second.Label, first.Label)
	}
	if back := build(t, b, start.Add(3*time.Hour), "gate v1", "chat v1"); back != first {
		t.Errorf("going back became %v, was %v", back, first)
	}
}

func TestFolderOfStaysWhileTheProgramDoes(t *testing.T) {
	b := builder(t)
	first := build(t, b, start, "gate v1", "chat v1")
	second := build(t, b, start.Add(time.Hour), "gate v1", "chat v2")
	for program, want := range map[string]string{"gate": first.Folder, "chat": second.Folder} {
		got, err := b.FolderOf(program, second)
		if err != nil || got != want {
			t.Errorf("%s: %q, %v; want %q", program, got, err, want)
		}
	}
	if _, err := b.FolderOf("nothing", second); err == nil {
		t.Error("a program that is not there has a folder")
	}
}

func TestStoredProgramsAreCopiesThatRun(t *testing.T) {
	b := builder(t)
	r := build(t, b, start, "#!/bin/sh\nexit 0\n", "chat v1")
	write(t, filepath.Join(b.Work, "gate"), "next build") // must not reach the stored one
	text, err := os.ReadFile(filepath.Join(r.Folder, "gate"))
	if err != nil || string(text) != "#!/bin/sh\nexit 0\n" {
		t.Errorf("stored %q, %v", text, err)
	}
	info, err := os.Stat(filepath.Join(r.Folder, "gate"))
	if err != nil || info.Mode()&0o111 == 0 {
		t.Errorf("mode %v, %v: not executable", info.Mode(), err)
	}
	if parts, _ := filepath.Glob(filepath.Join(b.Bin, ".part-*")); len(parts) > 0 {
		t.Errorf("left behind: %v", parts)
	}
}

func TestPruneKeepsTheNewestAndWhatTheyShare(t *testing.T) {
	b := builder(t)
	first := build(t, b, start, "gate v1", "chat v0")                   // its gate is shared by all
	second := build(t, b, start.Add(time.Minute), "gate v1", "chat v1") // nothing of it is
	var last Release
	for i := range kept {
		last = build(t, b, start.Add(time.Hour+time.Duration(i)*time.Minute), "gate v1",
			"chat v2"+strings.Repeat("+", i))
	}
	if err := b.Prune([]string{"gate", "chat"}); err != nil {
		t.Fatal(err)
	}
	for folder, want := range map[string]bool{first.Folder: true, second.Folder: false, last.Folder: true} {
		if _, err := os.Stat(folder); (err == nil) != want {
			t.Errorf("%s: there %v, want %v", filepath.Base(folder), err == nil, want)
		}
	}
}

func TestBuildShowsWhatTheCompilerSays(t *testing.T) {
	b := builder(t)
	write(t, filepath.Join(b.Root, "go.mod"), "module example.org/x\n\ngo 1.26.0\n")
	write(t, filepath.Join(b.Root, "cmd", "broken", "main.go"), "package main\n\nfunc main() { undefinedName() }\n")
	t.Setenv("GOWORK", "off")
	_, err := b.Build(t.Context(), []Package{"cmd/broken"})
	if err == nil || !strings.Contains(err.Error(), "undefinedName") {
		t.Errorf("got %v, want the compiler's words", err)
	}
}

func builder(t *testing.T) Builder {
	t.Helper()
	dir := t.TempDir()
	return Builder{Root: filepath.Join(dir, "root"), Work: filepath.Join(dir, "build"), Bin: filepath.Join(dir, "bin")}
}

func build(t *testing.T, b Builder, now time.Time, gate, chat string) Release {
	t.Helper()
	write(t, filepath.Join(b.Work, "gate"), gate)
	write(t, filepath.Join(b.Work, "chat"), chat)
	r, err := b.store([]string{"gate", "chat"}, now)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
}
