package release

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Resolve returns the commit that a git ref of the checkout names.
func Resolve(ctx context.Context, root, ref string) (commit string, err error) {
	out, err := output(ctx, root, "git", "rev-parse", "--verify", "--quiet", "--end-of-options", ref+"^{commit}")
	if err != nil {
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		return "", fmt.Errorf("%q is neither a folder of programs nor a commit, branch or tag of %s", ref, root)
	}
	return strings.TrimSpace(out), nil
}

// BuildCommit returns the release of those packages that a commit has, built
// from a copy of the commit outside of the checkout, or stored by an earlier
// call.
func (b Builder) BuildCommit(ctx context.Context, commit string, packages []Package) (Release, error) {
	cached := filepath.Join(b.Bin, commitsFolder, commit+"-"+strings.Join(names(packages), "-"))
	if label, err := os.ReadFile(cached); err == nil {
		r := Release{Label: string(label), Folder: filepath.Join(b.Bin, string(label))}
		if _, err := readSums(r.Folder); err == nil {
			return r, nil
		}
	}
	copied, err := os.MkdirTemp("", "msrchat-build-")
	if err != nil {
		return Release{}, fmt.Errorf("build %s: %w", commit, err)
	}
	defer os.RemoveAll(copied)
	archive := filepath.Join(copied, "src.tar")
	root := filepath.Join(copied, "src")
	if err := os.Mkdir(root, 0o755); err != nil {
		return Release{}, fmt.Errorf("build %s: %w", commit, err)
	}
	if _, err := output(ctx, b.Root, "git", "archive", "--format=tar", "-o", archive, commit); err != nil {
		return Release{}, fmt.Errorf("copy %s: %w", commit, err)
	}
	if _, err := output(ctx, root, "tar", "-xf", archive); err != nil {
		return Release{}, fmt.Errorf("copy %s: %w", commit, err)
	}
	from := Builder{Root: root, Work: filepath.Join(copied, "build"), Bin: b.Bin}
	var existing []Package
	for _, p := range packages {
		if _, err := os.Stat(filepath.Join(root, string(p))); err == nil {
			existing = append(existing, p)
		}
	}
	r, err := from.Make(ctx, existing)
	if err != nil {
		return Release{}, err
	}
	if err := os.MkdirAll(filepath.Dir(cached), 0o755); err != nil {
		return Release{}, fmt.Errorf("record the build of %s: %w", commit, err)
	}
	return r, os.WriteFile(cached, []byte(r.Label), 0o644)
}

// commitsFolder records the releases of commits.
const commitsFolder = "commits"

// Import stores those of the programs that a folder has.
func (b Builder) Import(folder string, packages []Package) (Release, error) {
	var existing []string
	for _, name := range names(packages) {
		info, err := os.Stat(filepath.Join(folder, name))
		if err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			existing = append(existing, name)
		}
	}
	if len(existing) == 0 {
		return Release{}, fmt.Errorf("the folder %s has none of the programs %s", folder,
			strings.Join(names(packages), ", "))
	}
	from := Builder{Work: folder, Bin: b.Bin}
	return from.store(existing, time.Now())
}

// Has says whether a release has a program.
func (r Release) Has(program string) bool {
	sums, err := readSums(r.Folder)
	return err == nil && sums[program] != ""
}

// output runs a program and returns its output; what it prints on stderr is in
// the error.
func output(ctx context.Context, dir, program string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = dir
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		if text := strings.TrimSpace(stderr.String()); text != "" {
			err = fmt.Errorf("%w: %s", err, text)
		}
		return "", errors.Join(err, ctx.Err())
	}
	return stdout.String(), nil
}
