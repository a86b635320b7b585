package report

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
)

// WriteJSON writes the report as one object.
func (r *Report) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

// WriteTable writes the report for people.
func (r *Report) WriteTable(w io.Writer) error {
	fmt.Fprintf(w, "%s: %s\n", r.Command, r.What)
	m := r.Machine
	fmt.Fprintf(w, "%d CPUs (%s/%s, %s), %s, %s\n",
		m.CPUs, m.OS, m.Arch, m.Go, m.Version, r.Started.UTC().Format("2006-01-02 15:04 UTC"))
	if r.Database != nil {
		fmt.Fprintln(w, r.Database)
	}
	if r.Interrupted {
		fmt.Fprintln(w, "interrupted: this is what was measured until then")
	}
	fmt.Fprintln(w)
	r.body(w)
	r.errors(w)
	for _, note := range r.Notes {
		fmt.Fprintln(w, note)
	}
	return nil
}

// body is one line for each figure: the targets' medians, and the system's
// ratios to the floors.
func (r *Report) body(w io.Writer) {
	s, targets := r.Summary(), r.Targets()
	var floors []string
	for _, t := range targets {
		if _, ok := s.Ratios[t]; ok {
			floors = append(floors, t)
		}
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	defer t.Flush()
	head := append([]string{""}, targets...)
	for _, f := range floors {
		head = append(head, "/"+f)
	}
	figures := r.figures()
	wide := 0
	for _, f := range figures {
		wide = max(wide, len(f.Label))
	}
	// Cells are aligned to the right; the labels are filled to stand at the left.
	label := func(s string) string { return s + strings.Repeat(" ", wide-len(s)) }
	head[0] = label("")
	fmt.Fprintln(t, strings.Join(head, "\t")+"\t")
	for _, f := range figures {
		line := []string{label(f.Label)}
		for _, target := range targets {
			line = append(line, cell(s.Medians[target], f.Key, number))
		}
		for _, floor := range floors {
			line = append(line, cell(s.Ratios[floor], f.Key, ratio))
		}
		fmt.Fprintln(t, strings.Join(line, "\t")+"\t")
	}
}

func cell(values map[string]float64, key string, format func(float64) string) string {
	if v, ok := values[key]; ok {
		return format(v)
	}
	return "-"
}

// number shows three digits or more, and no more than three behind the point.
func number(v float64) string {
	switch a := math.Abs(v); {
	case v == math.Trunc(v) || a >= 100:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case a >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	case a >= 1:
		return strconv.FormatFloat(v, 'f', 2, 64)
	}
	return strconv.FormatFloat(v, 'f', 3, 64)
}

func ratio(v float64) string { return strconv.FormatFloat(v, 'f', 2, 64) }

// errors lists what failed, summed over the rounds.
func (r *Report) errors(w io.Writer) {
	for _, target := range r.Targets() {
		total := make(map[string]int64)
		for i := range r.Runs {
			if r.Runs[i].Target == target {
				for kind, n := range r.Runs[i].Errors {
					total[kind] += n
				}
			}
		}
		var lines []string
		for kind, n := range total {
			lines = append(lines, fmt.Sprintf("%d × %s", n, kind))
		}
		slices.Sort(lines)
		if len(lines) > 0 {
			fmt.Fprintf(w, "errors (%s): %s\n", target, strings.Join(lines, ", "))
		}
	}
}
