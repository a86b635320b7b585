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

// BuildCommit returns the release of what a commit has of the packages, built
// from a copy of it outside of the checkout, or stored by an earlier call.
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
	var there []Package
	for _, p := range packages {
		if _, err := os.Stat(filepath.Join(root, string(p))); err == nil {
			there = append(there, p)
		}
	}
	r, err := from.Make(ctx, there)
	if err != nil {
		return Release{}, err
	}
	if err := os.MkdirAll(filepath.Dir(cached), 0o755); err != nil {
		return Release{}, fmt.Errorf("remember the build of %s: %w", commit, err)
	}
	return r, os.WriteFile(cached, []byte(r.Label), 0o644)
}

// commitsFolder remembers which release a commit became.
const commitsFolder = "commits"

// Import stores what a folder has of the programs.
func (b Builder) Import(folder string, packages []Package) (Release, error) {
	var there []string
	for _, name := range names(packages) {
		if info, err := os.Stat(filepath.Join(folder, name)); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			there = append(there, name)
		}
	}
	if len(there) == 0 {
		return Release{}, fmt.Errorf("the folder %s has none of the programs %s", folder, strings.Join(names(packages), ", "))
	}
	from := Builder{Work: folder, Bin: b.Bin}
	return from.store(there, time.Now())
}

// Has says whether a release has a program.
func (r Release) Has(program string) bool {
	sums, err := readSums(r.Folder)
	return err == nil && sums[program] != ""
}

// output runs a program and returns what it printed; its complaint is the error.
func output(ctx context.Context, dir, program string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = dir
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		if said := strings.TrimSpace(stderr.String()); said != "" {
			err = fmt.Errorf("%w: %s", err, said)
		}
		return "", errors.Join(err, ctx.Err())
	}
	return stdout.String(), nil
}
