// Package catalog reads what Consul knows about the fleet and shows it to people.
package catalog

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	consul "github.com/hashicorp/consul/api"
)

// Instance is one registered instance of a service.
type Instance struct {
	Service string
	ID      string // meta "instance": under Nomad the allocation
	Address string
	Release string // meta "release"; may be empty
	HTTP    string // meta "http": host:port for operators; may be empty
	Checks  []Check
}

// Check is one health check of an instance.
type Check struct {
	Name   string
	Status string // passing, warning, critical
	Output string
}

// Failing returns the checks that do not pass.
func (i Instance) Failing() []Check {
	return slices.DeleteFunc(slices.Clone(i.Checks), func(c Check) bool { return c.Status == consul.HealthPassing })
}

// Read lists every instance of every service, sorted by service and address.
func Read(ctx context.Context, client *consul.Client) ([]Instance, error) {
	query := (&consul.QueryOptions{}).WithContext(ctx)
	names, _, err := client.Catalog().Services(query)
	if err != nil {
		return nil, fmt.Errorf("consul services: %w", err)
	}
	var list []Instance
	for name := range names {
		entries, _, err := client.Health().Service(name, "", false, query)
		if err != nil {
			return nil, fmt.Errorf("consul service %s: %w", name, err)
		}
		for _, entry := range entries {
			list = append(list, instance(entry))
		}
	}
	slices.SortFunc(list, func(a, b Instance) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.Address, b.Address), cmp.Compare(a.ID, b.ID))
	})
	return list, nil
}

func instance(entry *consul.ServiceEntry) Instance {
	address := entry.Service.Address
	if address == "" {
		address = entry.Node.Address
	}
	i := Instance{
		Service: entry.Service.Service,
		ID:      entry.Service.Meta["instance"],
		Address: net.JoinHostPort(address, strconv.Itoa(entry.Service.Port)),
		Release: entry.Service.Meta["release"],
		HTTP:    entry.Service.Meta["http"],
	}
	for _, check := range entry.Checks {
		i.Checks = append(i.Checks,
			Check{Name: check.Name, Status: check.Status, Output: strings.TrimSpace(check.Output)})
	}
	return i
}

// Row is a line of the table.
type Row struct {
	Service, Instance, Address, Release, State string
}

// Rows describes the instances.
func Rows(list []Instance) []Row {
	rows := make([]Row, 0, len(list))
	for _, i := range list {
		rows = append(rows, Row{
			Service:  i.Service,
			Instance: i.ID[:min(8, len(i.ID))], // as Nomad shortens an allocation's id
			Address:  i.Address,
			Release:  i.Release,
			State:    stateText(i),
		})
	}
	return rows
}

func stateText(i Instance) string {
	failing := i.Failing()
	if len(failing) == 0 {
		text := fmt.Sprintf("passing (%d checks)", len(i.Checks))
		if i.Service == "status" && i.HTTP != "" {
			text += ", live page http://" + i.HTTP + "/"
		}
		return text
	}
	var texts []string
	for _, c := range failing {
		texts = append(texts, fmt.Sprintf("%s: %s", c.Status, ShortCheck(c)))
	}
	return strings.Join(texts, "; ")
}

// ShortCheck is the check's name and the first line of its output.
func ShortCheck(c Check) string {
	const longest = 100 // characters: the rest of a terminal's line
	output, _, _ := strings.Cut(c.Output, "\n")
	if runes := []rune(output); len(runes) > longest {
		output = string(runes[:longest]) + "…"
	}
	if output == "" {
		return c.Name
	}
	return c.Name + " (" + output + ")"
}

// WriteTable prints the rows under headings, with "-" for an empty cell.
func WriteTable(out io.Writer, rows []Row) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "SERVICE\tINSTANCE\tADDRESS\tRELEASE\tSTATE")
	for _, r := range rows {
		cells := []string{r.Service, r.Instance, r.Address, r.Release, r.State}
		for i, cell := range cells {
			cells[i] = cmp.Or(cell, "-")
		}
		fmt.Fprintln(table, strings.Join(cells, "\t"))
	}
	return table.Flush()
}
