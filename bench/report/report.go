// Package report holds the results of measurements and prints them as a table or
// as JSON: of several rounds the medians, and each figure as a ratio to the floors
// of the same round.
package report

import (
	"encoding/json"
	"maps"
	"runtime"
	"slices"
	"time"
)

// System is the target that is compared with the others.
const System = "msrchat"

// Report is one call of the program.
type Report struct {
	Command string    `json:"command"`
	Started time.Time `json:"started"`
	Machine Machine   `json:"machine"`
	// Settings are the command's, Database is nil where none was used.
	Settings any       `json:"settings"`
	Database *Database `json:"database,omitempty"`
	Runs     []Run     `json:"runs"`
	// Notes are for the reader, such as what was not measured.
	Notes []string `json:"notes,omitempty"`
	// Interrupted says that there would have been more.
	Interrupted bool `json:"interrupted,omitempty"`
	// What describes the settings for people.
	What string `json:"-"`
}

// Machine is where the program ran.
type Machine struct {
	OS      string `json:"os"`
	Arch    string `json:"arch"`
	CPUs    int    `json:"cpus"`
	Go      string `json:"go"`
	Version string `json:"version"` // of the program
}

// ThisMachine describes the machine that the program runs on.
func ThisMachine(version string) Machine {
	return Machine{
		OS: runtime.GOOS, Arch: runtime.GOARCH, CPUs: runtime.NumCPU(), Go: runtime.Version(), Version: version,
	}
}

// Run is one measurement of one target.
type Run struct {
	Target string
	Round  int // from 1
	// Figures are in the order in which they are shown.
	Figures []Figure
	// Errors counts by kind.
	Errors map[string]int64
}

// Figure is one number of a run. Absent says that it could not be measured.
type Figure struct {
	Key    string // in JSON
	Label  string // in the table
	Value  float64
	Absent bool
	// Ratio says that the figure is compared with the floors.
	Ratio bool
}

// Measure is a figure that is compared with the floors.
func Measure(key, label string, value float64) Figure {
	return Figure{Key: key, Label: label, Value: value, Ratio: true}
}

// Count is a figure that is not compared.
func Count(key, label string, n int64) Figure {
	return Figure{Key: key, Label: label, Value: float64(n)}
}

// Missing is a figure that could not be measured.
func Missing(key, label string) Figure { return Figure{Key: key, Label: label, Absent: true} }

// MarshalJSON writes the figures as an object; what is absent is null.
func (r Run) MarshalJSON() ([]byte, error) {
	figures := make(map[string]*float64, len(r.Figures))
	for _, f := range r.Figures {
		figures[f.Key] = nil
		if !f.Absent {
			figures[f.Key] = &f.Value
		}
	}
	return json.Marshal(struct {
		Target  string              `json:"target"`
		Round   int                 `json:"round"`
		Figures map[string]*float64 `json:"figures"`
		Errors  map[string]int64    `json:"errors,omitempty"`
	}{r.Target, r.Round, figures, r.Errors})
}

// MarshalJSON adds the summary to what was measured.
func (r *Report) MarshalJSON() ([]byte, error) {
	type plain Report
	return json.Marshal(struct {
		*plain
		Summary Summary `json:"summary"`
	}{(*plain)(r), r.Summary()})
}

// Summary combines the rounds.
type Summary struct {
	// Medians are by target and figure, Ratios by floor and figure: the median of
	// the ratios within each round.
	Medians map[string]map[string]float64 `json:"medians"`
	Ratios  map[string]map[string]float64 `json:"ratios,omitempty"`
}

// Summary computes it.
func (r *Report) Summary() Summary {
	s := Summary{Medians: make(map[string]map[string]float64), Ratios: make(map[string]map[string]float64)}
	for _, target := range r.Targets() {
		s.Medians[target] = make(map[string]float64)
		for _, f := range r.figures() {
			if values := r.values(target, f.Key); len(values) > 0 {
				s.Medians[target][f.Key] = median(slices.Collect(maps.Values(values)))
			}
		}
	}
	for _, floor := range r.Targets() {
		if floor == System || s.Medians[System] == nil {
			continue
		}
		s.Ratios[floor] = make(map[string]float64)
		for _, f := range r.figures() {
			if ratios := r.ratios(floor, f); len(ratios) > 0 {
				s.Ratios[floor][f.Key] = median(ratios)
			}
		}
	}
	return s
}

// ratios compares the system with a floor, round by round.
func (r *Report) ratios(floor string, f Figure) (out []float64) {
	if !f.Ratio {
		return nil
	}
	below := r.values(floor, f.Key)
	for round, v := range r.values(System, f.Key) {
		if b, ok := below[round]; ok && b > 0 {
			out = append(out, v/b)
		}
	}
	return out
}

// Targets lists the targets in order of appearance.
func (r *Report) Targets() (out []string) {
	for i := range r.Runs {
		if !slices.Contains(out, r.Runs[i].Target) {
			out = append(out, r.Runs[i].Target)
		}
	}
	return out
}

// figures lists each figure once, in order of appearance.
func (r *Report) figures() (out []Figure) {
	for i := range r.Runs {
		at := 0
		for _, f := range r.Runs[i].Figures {
			if i := slices.IndexFunc(out, func(g Figure) bool { return g.Key == f.Key }); i >= 0 {
				at = i + 1
				continue
			}
			out = slices.Insert(out, at, f) // behind the figure that it follows in the run
			at++
		}
	}
	return out
}

// values are a figure's by round.
func (r *Report) values(target, key string) map[int]float64 {
	out := make(map[int]float64)
	for i := range r.Runs {
		if r.Runs[i].Target != target {
			continue
		}
		for _, f := range r.Runs[i].Figures {
			if f.Key == key && !f.Absent {
				out[r.Runs[i].Round] = f.Value
			}
		}
	}
	return out
}

func median(values []float64) float64 {
	slices.Sort(values)
	n := len(values)
	if n%2 == 1 {
		return values[n/2]
	}
	return (values[n/2-1] + values[n/2]) / 2
}
