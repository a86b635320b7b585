package chat_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// bounds are the rows of the table "in chat" in ARCHITECTURE.md, each with the
// constants that its numbers are, in their order.
var bounds = map[string]string{
	"admitted connections":                    "chat.DefaultCapacity",
	"connections that are not admitted yet":   "conn.DefaultHandshaking conn.helloTimeout conn.helloSpread",
	"connections of one user":                 "conn.maxPerUser",
	"bytes waiting for one slow client":       "conn.maxQueued conn.maxQueued conn.kernelBuffer",
	"write queues waiting for a flusher":      "conn.maxFlushing",
	"memory that connections hold together":   "conn.DefaultMemory conn.freeQueued conn.waitMemory",
	"requests at the database":                "database.DefaultMaxOpen",
	"bytes of unread answers":                 "conn.maxUnread",
	"pages that a user reads":                 "conn.maxPages conn.pageBytesPerSecond",
	"the speed of a client that reads":        "conn.chunk conn.writeTimeout",
	"names that a user tries":                 "directory.maxNames directory.nameEvery allowance.MaxUsers",
	"sends under way on a connection":         "conn.MaxUnacknowledged",
	"refusals that hold back later messages":  "conn.maxRefusals conn.refusalLimit",
	"sends held by a server":                  "lane.DefaultMaxWaiting lane.MaxWaitingBytes",
	"one append of a lane":                    "lane.maxPerAppend lane.maxBytes",
	"appends waiting for the log writer":      "msglog.queueLen",
	"appends of peers being worked on":        "peer.maxAppends peer.MaxOffered",
	"batches waiting for the fan-out":         "fanout.maxWaiting fanout.MaxWaitingBytes",
	"deliveries of peers waiting for members": "fanout.maxUnresolved",
	"deliveries waiting for a link": "peer.maxQueued peer.maxQueuedBytes peer.maxPerFrame peer.maxFrameBytes" +
		" peer.MaxTogetherBytes peer.smallQueueBytes",
	"heads waiting for their announcement":           "repair.maxRecent repair.maxTogether",
	"dirty users":                                    "repair.maxDirty repair.usersPerQuery",
	"pending removals of routes":                     "route.maxRemovals",
	"routes written again in a second":               "route.maxRenewed",
	"users whose routes are remembered for a second": "route.maxRemembered",
	"cached members and heads":                       "member.maxCached msglog.maxHeads",
	"used assignments to report":                     "report.maxUsed conn.maxAssignment",
}

// A limit in the document that is not the limit of the code misleads an operator.
func TestTheBoundsInTheDocumentAreThoseOfTheCode(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(text), "\n| in chat | limit | when full |\n| --- | --- | --- |\n")
	table, _, _ = strings.Cut(table, "\n\n")
	rows := make(map[string]string)
	for line := range strings.Lines(table) {
		cells := strings.Split(line, "|")
		rows[strings.TrimSpace(cells[1])] = cells[2]
	}
	packages := make(map[string]constants)
	for name, limit := range rows {
		var want []int64
		for id := range strings.FieldsSeq(bounds[name]) {
			pkg, constant, _ := strings.Cut(id, ".")
			if packages[pkg] == nil {
				packages[pkg] = constantsOf(t, pkg)
			}
			want = append(want, packages[pkg].value(t, &ast.Ident{Name: constant}))
		}
		if diff := cmp.Diff(want, numbers(t, limit)); diff != "" {
			t.Errorf("%q (-code +document):\n%s", name, diff)
		}
	}
	for name := range bounds {
		if _, ok := rows[name]; !ok {
			t.Errorf("the document has no row %q", name)
		}
	}
}

var number = regexp.MustCompile(`([0-9][0-9,]*)(?: (KiB|MiB|s)\b)?`)

// numbers are those in a text, sizes in bytes and times in nanoseconds.
func numbers(t *testing.T, text string) (out []int64) {
	t.Helper()
	units := map[string]int64{"": 1, "KiB": 1 << 10, "MiB": 1 << 20, "s": int64(time.Second)}
	for _, m := range number.FindAllStringSubmatch(text, -1) {
		n, err := strconv.ParseInt(strings.ReplaceAll(m[1], ",", ""), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, n*units[m[2]])
	}
	return out
}

// constants are a package's constants by name.
type constants map[string]ast.Expr

// constantsOf reads the constants of a package of this module.
func constantsOf(t *testing.T, pkg string) constants {
	t.Helper()
	dir := filepath.Join("internal", pkg)
	switch pkg {
	case "chat":
		dir = "."
	case "database":
		dir = "../shared/database"
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	out := make(constants)
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range file.Decls {
			decl, ok := d.(*ast.GenDecl)
			if !ok || decl.Tok != token.CONST {
				continue
			}
			for _, s := range decl.Specs {
				spec := s.(*ast.ValueSpec)
				for i, v := range spec.Values {
					out[spec.Names[i].Name] = v
				}
			}
		}
	}
	return out
}

// value evaluates what bounds are made of: numbers, other constants of the package,
// and seconds.
func (c constants) value(t *testing.T, e ast.Expr) int64 {
	t.Helper()
	switch e := e.(type) {
	case *ast.BasicLit:
		if n, err := strconv.ParseInt(e.Value, 0, 64); err == nil {
			return n
		}
	case *ast.Ident:
		if c[e.Name] == nil {
			t.Fatalf("no constant %s", e.Name)
		}
		return c.value(t, c[e.Name])
	case *ast.SelectorExpr:
		if e.Sel.Name == "Second" {
			return int64(time.Second)
		}
	case *ast.BinaryExpr:
		x, y := c.value(t, e.X), c.value(t, e.Y)
		switch e.Op {
		case token.MUL:
			return x * y
		case token.SHL:
			return x << y
		}
	}
	t.Fatalf("a constant of the form %T", e)
	return 0
}
