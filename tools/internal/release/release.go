// Package release builds the fleet's programs and keeps each build in a folder
// of its own, named by content: a running program is never overwritten, and a
// build that changed nothing is the same release as before.
package release

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// kept is how many of the newest releases stay on disk. Nomad rolls back to the
// previous one; the others are for people who compare.
const kept = 5

// Package is a main package below the checkout. Its program has the last part
// of the path as name.
type Package string

// Program is the name of the program.
func (p Package) Program() string { return filepath.Base(string(p)) }

// Services lists the programs that the fleet runs. Their contents are the
// release.
func Services() []Package {
	return []Package{
		"gate/cmd/gate", "status/cmd/status", "chat/cmd/chat", "probe/cmd/probe",
		"shared/cmd/migrate", "tools/cmd/mailbox",
	}
}

// Client is the program that people run. It is built with the services, so that
// it is there when the fleet is up.
const Client Package = "client/cmd/msrchat"

// Builder compiles and stores.
type Builder struct {
	Root string // the checkout
	Work string // the output of go build; nothing runs from it
	Bin  string // one folder for each release
}

// Release is a stored build.
type Release struct {
	Label  string // time of its first build (UTC) and hash: sorts by age
	Folder string
}

// Build compiles the packages and returns their release, a new one only if the
// services differ from those of every earlier release.
func (b Builder) Build(ctx context.Context, services []Package, others ...Package) (Release, error) {
	r, err := b.Make(ctx, services, others...)
	if err != nil {
		return Release{}, err
	}
	return r, b.setCurrent(r)
}

// Make is like Build, but does not change Current. It is for a part of the
// services.
func (b Builder) Make(ctx context.Context, services []Package, others ...Package) (Release, error) {
	if err := os.MkdirAll(b.Work, 0o755); err != nil {
		return Release{}, fmt.Errorf("build: %w", err)
	}
	// Without paths and the state of the git tree, so that equal sources give
	// equal programs.
	args := []string{"build", "-trimpath", "-buildvcs=false", "-o", b.Work + string(filepath.Separator)}
	for _, p := range slices.Concat(services, others) {
		args = append(args, "./"+string(p))
	}
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = b.Root
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return Release{}, ctx.Err()
		}
		return Release{}, fmt.Errorf("go build: %w\n%s", err, strings.TrimSpace(output.String()))
	}
	return b.store(names(services), time.Now())
}

func names(packages []Package) []string {
	programs := make([]string, len(packages))
	for i, p := range packages {
		programs[i] = p.Program()
	}
	return programs
}

// store copies the built programs to the folder of their release.
func (b Builder) store(programs []string, now time.Time) (Release, error) {
	sums := make(map[string]string, len(programs))
	all := sha256.New()
	for _, name := range programs {
		sum, err := fileSum(filepath.Join(b.Work, name))
		if err != nil {
			return Release{}, fmt.Errorf("store release: %w", err)
		}
		sums[name] = sum
		fmt.Fprintf(all, "%s  %s\n", sum, name)
	}
	hash := hex.EncodeToString(all.Sum(nil))[:8]

	existing, err := b.releases()
	if err != nil {
		return Release{}, err
	}
	for _, r := range existing {
		if strings.HasSuffix(r.Label, "-"+hash) {
			return r, nil
		}
	}
	label := now.UTC().Format("20060102-150405") + "-" + hash
	part := filepath.Join(b.Bin, ".part-"+label)
	defer os.RemoveAll(part)
	if err := os.MkdirAll(part, 0o755); err != nil {
		return Release{}, fmt.Errorf("store release: %w", err)
	}
	for _, name := range programs {
		if err := copyProgram(filepath.Join(b.Work, name), filepath.Join(part, name)); err != nil {
			return Release{}, fmt.Errorf("store release: %w", err)
		}
	}
	if err := writeSums(part, sums); err != nil {
		return Release{}, fmt.Errorf("store release: %w", err)
	}
	r := Release{Label: label, Folder: filepath.Join(b.Bin, label)}
	if err := os.Rename(part, r.Folder); err != nil {
		return Release{}, fmt.Errorf("store release: %w", err)
	}
	return r, nil
}

// FolderOf returns the oldest stored folder that has the same program as
// release r and any version of others. A job with this folder is not replaced
// when another program changes.
func (b Builder) FolderOf(program string, r Release, others ...string) (string, error) {
	want, err := readSums(r.Folder)
	if err != nil {
		return "", err
	}
	all, err := b.releases()
	if err != nil {
		return "", err
	}
	for _, older := range all {
		sums, err := readSums(older.Folder)
		missing := slices.ContainsFunc(others, func(other string) bool { return sums[other] == "" })
		if err == nil && !missing && sums[program] != "" && sums[program] == want[program] {
			return older.Folder, nil
		}
	}
	return "", fmt.Errorf("release %s has no program %s", r.Label, program)
}

// Prune removes old releases, except the newest few, those that have programs
// of the newest few, and those in use.
func (b Builder) Prune(programs []string, inUse ...string) error {
	all, err := b.releases()
	if err != nil {
		return err
	}
	keep := map[string]bool{}
	for _, folder := range inUse {
		keep[folder] = true
	}
	for _, r := range all[max(0, len(all)-kept):] {
		keep[r.Folder] = true
		for _, program := range programs {
			if folder, err := b.FolderOf(program, r); err == nil {
				keep[folder] = true
			}
		}
	}
	var errs []error
	for _, r := range all {
		if !keep[r.Folder] {
			errs = append(errs, os.RemoveAll(r.Folder))
		}
	}
	return errors.Join(errs...)
}

// currentFile names the release of the last build.
const currentFile = "current"

// Current returns the release of the last build, if there was one.
func (b Builder) Current() (Release, bool, error) {
	label, err := os.ReadFile(filepath.Join(b.Bin, currentFile))
	if errors.Is(err, os.ErrNotExist) {
		return Release{}, false, nil
	}
	if err != nil {
		return Release{}, false, fmt.Errorf("current release: %w", err)
	}
	name := strings.TrimSpace(string(label))
	return Release{Label: name, Folder: filepath.Join(b.Bin, name)}, true, nil
}

func (b Builder) setCurrent(r Release) error {
	return os.WriteFile(filepath.Join(b.Bin, currentFile), []byte(r.Label+"\n"), 0o644)
}

// releases lists the stored releases, oldest first.
func (b Builder) releases() ([]Release, error) {
	entries, err := os.ReadDir(b.Bin) // sorted by name, so by age
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list releases: %w", err)
	}
	var list []Release
	for _, entry := range entries {
		folder := filepath.Join(b.Bin, entry.Name())
		if _, err := os.Stat(filepath.Join(folder, sumsFile)); err == nil && !strings.HasPrefix(entry.Name(), ".") {
			list = append(list, Release{Label: entry.Name(), Folder: folder})
		}
	}
	return list, nil
}

// sumsFile lists the programs of a release with their SHA-256, in the format of
// sha256sum.
const sumsFile = "SHA256SUMS"

func writeSums(folder string, sums map[string]string) error {
	var lines []string
	for name, sum := range sums {
		lines = append(lines, sum+"  "+name+"\n")
	}
	slices.Sort(lines)
	return os.WriteFile(filepath.Join(folder, sumsFile), []byte(strings.Join(lines, "")), 0o644)
}

func readSums(folder string) (map[string]string, error) {
	text, err := os.ReadFile(filepath.Join(folder, sumsFile))
	if err != nil {
		return nil, fmt.Errorf("release: %w", err)
	}
	sums := map[string]string{}
	for line := range strings.Lines(string(text)) {
		if sum, name, ok := strings.Cut(strings.TrimSpace(line), "  "); ok {
			sums[name] = sum
		}
	}
	return sums, nil
}

func fileSum(path string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer file.Close()
	hash := sha256.New()
	if _, err := io.Copy(hash, file); err != nil {
		return "", err
	}
	return hex.EncodeToString(hash.Sum(nil)), nil
}

func copyProgram(from, to string) error {
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer source.Close()
	target, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(target, source)
	return errors.Join(err, target.Close())
}
