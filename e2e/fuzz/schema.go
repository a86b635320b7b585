package fuzz

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
)

// person is what a case needs to know of somebody to write valid requests.
type person struct {
	name, email, password, device, token string
	id                                   uint64
}

// maker makes JSON after a schema.
type maker struct {
	values
	self  *person
	world *world
	// code is what was mailed to self.
	code string
	// fix sets members by their names, as JSON.
	fix map[string]string
}

// value is a JSON value that fits a schema, as far as the schema says, and as far as a
// member's name says more.
func (m *maker) value(name string, s *openapi3.Schema, depth int) string {
	if fixed, ok := m.fix[name]; ok {
		return fixed
	}
	if depth > 6 {
		return "null"
	}
	switch {
	case len(s.Enum) > 0:
		if text, ok := pick(m.values, s.Enum).(string); ok {
			return strconv.Quote(text)
		}
		return "1"
	case len(s.OneOf) > 0:
		return m.value(name, pick(m.values, s.OneOf).Value, depth+1)
	case has(s, "object"):
		return m.object(s, depth)
	case has(s, "array"):
		var items []string
		for range m.IntN(4) {
			items = append(items, m.value(name, s.Items.Value, depth+1))
		}
		return "[" + strings.Join(items, ",") + "]"
	case has(s, "boolean"):
		return strconv.FormatBool(m.chance(0.5))
	case has(s, "integer"), has(s, "number"):
		return strconv.FormatUint(m.number(), 10)
	}
	return m.quote(m.known(name))
}

// known is a text that is right for a member of that name.
func (m *maker) known(name string) string {
	switch name {
	case "email":
		return m.self.email
	case "name":
		return m.self.name
	case "password":
		return m.self.password
	case "code":
		return m.code
	case "device":
		return "device " + m.word()
	case "avoid":
		return "chat-" + strconv.Itoa(m.IntN(9))
	}
	return m.good()
}

func (m *maker) object(s *openapi3.Schema, depth int) string {
	var members []string
	for _, name := range slices.Sorted(maps.Keys(s.Properties)) {
		// A log-in is by name or by address: of two that are optional one is often right.
		if !slices.Contains(s.Required, name) && m.chance(0.5) && m.fix[name] == "" {
			continue
		}
		members = append(members, m.quote(name)+":"+m.value(name, s.Properties[name].Value, depth+1))
	}
	m.Shuffle(len(members), func(i, j int) { members[i], members[j] = members[j], members[i] })
	return "{" + strings.Join(members, ",") + "}"
}

// spoilt is an object of which one thing or more are odd.
func (m *maker) spoilt(s *openapi3.Schema) string {
	names := slices.Sorted(maps.Keys(s.Properties))
	m.fix = maps.Clone(m.fix)
	if m.fix == nil {
		m.fix = make(map[string]string)
	}
	for range 1 + m.IntN(2) {
		if len(names) == 0 {
			break
		}
		switch name := pick(m.values, names); m.IntN(6) {
		case 0:
			m.fix[name] = m.junk()
		case 1:
			m.fix[name] = m.quote(m.email())
		case 2:
			m.fix[name] = "[" + m.quote(m.text()) + "]"
		default:
			m.fix[name] = m.quote(m.text())
		}
	}
	whole := m.object(s, 0)
	switch m.IntN(12) {
	case 0: // a member that is none
		return strings.Replace(whole, "{", "{"+m.quote(m.text())+":"+m.junk()+",", 1)
	case 1: // one of them twice
		if len(names) > 0 {
			return strings.TrimSuffix(whole, "}") + "," + m.quote(pick(m.values, names)) + ":" + m.quote(m.text()) + "}"
		}
	case 2:
		return whole[:m.IntN(len(whole)+1)]
	case 3:
		return whole + m.junk()
	case 4:
		return m.junk()
	case 5:
		return strings.Repeat(" ", pick(m.values, lengths)) + whole
	case 6: // no names at all
		return "{" + strings.Repeat(m.quote(m.text())+":1,", m.IntN(300)) + `"x":1}`
	}
	return whole
}
