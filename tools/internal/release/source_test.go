package release

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// checkout makes a repository with one program, and a second commit that also
// has another one.
func checkout(t *testing.T, b Builder) {
	t.Helper()
	git := func(args ...string) {
		t.Helper()
		general := []string{"-C", b.Root, "-c", "user.name=t", "-c", "user.email=t@example.org"}
		cmd := exec.CommandContext(t.Context(), "git", append(general, args...)...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
	}
	t.Setenv("GOWORK", "off")
	program := func(name, says string) {
		write(t, filepath.Join(b.Root, "cmd", name, "main.go"),
			"package main\n\nfunc main() { println(\""+says+"\") }\n")
	}
	write(t, filepath.Join(b.Root, "go.mod"), "module example.org/x\n\ngo 1.26.0\n")
	program("one", "first")
	git("init", "--quiet")
	git("add", "-A")
	git("commit", "--quiet", "-m", "first")
	git("tag", "v1")
	program("one", "second")
	program("two", "second")
	git("add", "-A")
	git("commit", "--quiet", "-m", "second")
	program("one", "not committed")
}

func TestBuildCommit(t *testing.T) {
	b := builder(t)
	checkout(t, b)
	packages := []Package{"cmd/one", "cmd/two"}
	commit := func(ref string) string {
		t.Helper()
		c, err := Resolve(t.Context(), b.Root, ref)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	first, err := b.BuildCommit(t.Context(), commit("v1"), packages)
	if err != nil {
		t.Fatal(err)
	}
	if !first.Has("one") || first.Has("two") {
		t.Errorf("the first commit has one: %v, two: %v", first.Has("one"), first.Has("two"))
	}
	second, err := b.BuildCommit(t.Context(), commit("HEAD"), packages)
	if err != nil || second == first || !second.Has("two") {
		t.Fatalf("the second commit: %v, %v", second, err)
	}
	out, err := exec.CommandContext(t.Context(), filepath.Join(second.Folder, "one")).CombinedOutput()
	if err != nil || strings.TrimSpace(string(out)) != "second" {
		t.Errorf("the program says %q, %v", out, err)
	}
	// The second time there is nothing to build from.
	if err := os.Rename(filepath.Join(b.Root, ".git"), filepath.Join(b.Root, "gone")); err != nil {
		t.Fatal(err)
	}
	v1 := strings.TrimSpace(read(t, b, "gone/refs/tags/v1"))
	if again, err := b.BuildCommit(t.Context(), v1, packages); err != nil || again != first {
		t.Errorf("again: %v, %v; want %v", again, err, first)
	}
	if _, ok, err := b.Current(); ok || err != nil {
		t.Errorf("a commit became the current build: %v, %v", ok, err)
	}
}

func read(t *testing.T, b Builder, path string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(b.Root, path))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestResolveSaysWhatIsMissing(t *testing.T) {
	b := builder(t)
	checkout(t, b)
	for _, ref := range []string{"v2", "--all", ""} {
		if c, err := Resolve(t.Context(), b.Root, ref); err == nil ||
			!strings.Contains(err.Error(), "neither a folder") {
			t.Errorf("%q: %q, %v", ref, c, err)
		}
	}
}

func TestImport(t *testing.T) {
	b := builder(t)
	folder := t.TempDir()
	packages := []Package{"cmd/one", "cmd/two"}
	if _, err := b.Import(folder, packages); err == nil || !strings.Contains(err.Error(), "one, two") {
		t.Errorf("an empty folder: %v", err)
	}
	write(t, filepath.Join(folder, "one"), "program")
	if err := os.WriteFile(filepath.Join(folder, "two"), []byte("a text"), 0o644); err != nil {
		t.Fatal(err)
	}
	r, err := b.Import(folder, packages)
	if err != nil || !r.Has("one") || r.Has("two") {
		t.Errorf("%v, %v: one %v, two %v", r, err, r.Has("one"), r.Has("two"))
	}
	if folder, err := b.FolderOf("one", r); err != nil || folder != r.Folder {
		t.Errorf("one is in %q, %v", folder, err)
	}
	if _, err := b.FolderOf("one", r, "two"); err == nil {
		t.Error("it is found beside a program that is not there")
	}
}
