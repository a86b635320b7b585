package fuzz

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/bidi"
)

// What people see is judged here without the product's own rules (shared/text), which
// would agree with themselves: from the Unicode Character Database.

// invisible is Default_Ignorable_Code_Point, as DerivedCoreProperties.txt lists it.
var invisible = regexp.MustCompile(`[\x{AD}\x{34F}\x{61C}\x{115F}\x{1160}\x{17B4}\x{17B5}\x{180B}-\x{180F}` +
	`\x{200B}-\x{200F}\x{202A}-\x{202E}\x{2060}-\x{206F}\x{3164}\x{FE00}-\x{FE0F}\x{FEFF}\x{FFA0}\x{FFF0}-\x{FFF8}` +
	`\x{1BCA0}-\x{1BCA3}\x{1D173}-\x{1D17A}\x{E0000}-\x{E0FFF}]`)

var (
	// hidden is a row of invisible characters that can carry a text; see maxIgnorable of
	// shared/text, which allows what emoji and joined letters need.
	hidden = regexp.MustCompile(invisible.String() + `{5,}`)
	// tags repeat ASCII invisibly; flag is their one use: the flag of a region, whose
	// name has at most six letters and digits (UTS 51, ISO 3166-2).
	tags       = regexp.MustCompile(`[\x{E0000}-\x{E007F}]`)
	flag       = regexp.MustCompile(`\x{1F3F4}[\x{E0030}-\x{E0039}\x{E0061}-\x{E007A}]{3,6}\x{E007F}`)
	control    = regexp.MustCompile(`\p{Cc}`)
	separator  = regexp.MustCompile(`[\p{Zl}\p{Zp}]`)
	annotation = regexp.MustCompile(`[\x{FFF9}-\x{FFFB}]`)
	lineOrTab  = strings.NewReplacer("\n", "", "\t", "")
)

// shownLine judges what stands in a line: a name, an address, the text of an error.
func shownLine(s string) error {
	if err := shown(s); err != nil {
		return err
	}
	for what, pattern := range map[string]*regexp.Regexp{
		"a control character": control, "an invisible character": invisible, "a separator of lines": separator,
	} {
		if at := pattern.FindString(s); at != "" {
			return fmt.Errorf("%s: %+q", what, at)
		}
	}
	return nil
}

// shownName judges a name: a line with something in every place of it.
func shownName(s string) error {
	marks := 0
	for _, r := range s {
		if marks++; !unicode.Is(unicode.M, r) {
			marks = 0
		}
		if marks > 4 {
			return fmt.Errorf("a tower of accents: %+q", s)
		}
		if unicode.IsSpace(r) || r == '\u2800' {
			return fmt.Errorf("a blank: %+q", r)
		}
	}
	if s == "" {
		return errors.New("an empty name")
	}
	return shownLine(s)
}

// shownDraft judges a text that may be blank.
func shownDraft(s string) error {
	if err := shown(s); err != nil {
		return err
	}
	without := flag.ReplaceAllString(s, "x")
	for what, pattern := range map[string]*regexp.Regexp{
		"a control character": control, "a tag": tags, "hidden": hidden,
	} {
		if at := pattern.FindString(lineOrTab.Replace(without)); at != "" {
			return fmt.Errorf("%s: %+q", what, at)
		}
	}
	return nil
}

// shownText judges a message.
func shownText(s string) error {
	visible := func(r rune) bool {
		return unicode.In(r, unicode.L, unicode.N, unicode.P, unicode.S, unicode.Co, unicode.Mc) && r != '\u2800' &&
			!invisible.MatchString(string(r))
	}
	if err := shownDraft(s); err != nil {
		return err
	}
	// A letter of a later Unicode is not assigned here.
	if !strings.ContainsFunc(s, func(r rune) bool { return visible(r) || !assigned(r) }) {
		return fmt.Errorf("nothing shows: %+q", s)
	}
	return nil
}

func assigned(r rune) bool { return !unicode.Is(unicode.Cn, r) }

// shown judges any text: UTF-8, and nothing that turns the direction or marks a
// hidden annotation.
func shown(s string) error {
	if !utf8.ValidString(s) {
		return fmt.Errorf("not UTF-8: %+q", s)
	}
	if at := annotation.FindString(s); at != "" {
		return fmt.Errorf("an annotation: %+q", at)
	}
	for _, r := range s {
		p, _ := bidi.LookupRune(r)
		switch p.Class() {
		case bidi.LRE, bidi.RLE, bidi.LRO, bidi.RLO, bidi.PDF, bidi.LRI, bidi.RLI, bidi.FSI, bidi.PDI:
			return fmt.Errorf("a turn of the direction: %+q", r)
		}
	}
	return nil
}
