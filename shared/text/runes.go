package text

import "unicode"

// Which characters can be seen, in a name and in a text.

const (
	// blackFlag begins the flag of a region (🏴󠁧󠁢󠁷󠁬󠁳󠁿), whose name follows in tags and ends
	// with cancelTag.
	blackFlag = 0x1F3F4
	cancelTag = 0xE007F
	// brailleBlank is a letter of Braille without a dot.
	brailleBlank = 0x2800
)

// ignorable says that a character has the property Default_Ignorable_Code_Point: it
// shows nothing where it is not understood.
func ignorable(r rune) bool {
	switch {
	case unicode.Is(unicode.Prepended_Concatenation_Mark, r), unicode.Is(unicode.White_Space, r),
		annotation(r), r >= 0x13430 && r <= 0x1343F:
		return false
	}
	return unicode.In(r, unicode.Cf, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector)
}

// mark says that a character combines with the one before it.
func mark(r rune) bool { return unicode.In(r, unicode.Mn, unicode.Mc, unicode.Me) }

// visible says that a character alone shows something.
func visible(r rune) bool {
	return r != brailleBlank && !unicode.IsSpace(r) && !unicode.IsControl(r) && !ignorable(r) &&
		!unicode.In(r, unicode.Mn, unicode.Me)
}

// tag says that a character is one of those that repeat ASCII invisibly.
func tag(r rune) bool { return r >= 0xE0000 && r <= 0xE007F }

// regional says that a tag may be part of a region's name.
func regional(r rune) bool { return r >= 0xE0030 && r <= 0xE0039 || r >= 0xE0061 && r <= 0xE007A }

// plain says that all characters are of those that ASCII shows, or end a line or are a
// tab.
func plain(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' && c != '\n' && c != '\t' || c > '~' {
			return false
		}
	}
	return true
}

// harmful finds a character that controls a terminal or the writing direction, or that
// hides a text in another one, and says what it is; "" if there is none.
func harmful(s string) (rune, string) {
	const invisible = "an invisible character"
	// region is how many tags follow a black flag, -1 where none does; run is how many
	// invisible characters follow each other.
	region, run := -1, 0
	for _, r := range s {
		if region > 0 && !tag(r) {
			return cancelTag, invisible // the flag has no end
		}
		if run++; !ignorable(r) || region >= 0 && tag(r) {
			run = 0
		}
		switch {
		case r != '\n' && r != '\t' && (unicode.IsControl(r) || bidiControl(r)):
			return r, "a control character"
		case annotation(r), run > maxIgnorable:
			return r, invisible
		case r == blackFlag:
			region = 0
		case !tag(r):
			region = -1
		case r == cancelTag && region >= minRegion:
			region = -1
		case region >= 0 && region < maxRegion && regional(r):
			region++
		default:
			return r, invisible
		}
	}
	if region > 0 {
		return cancelTag, invisible
	}
	return 0, ""
}

// annotation says that a character marks the parts of an annotation, which hides one
// of them.
func annotation(r rune) bool { return r >= 0xFFF9 && r <= 0xFFFB }

// Shown says that a character of a name, an address or another line of text can be seen.
func Shown(r rune) bool { return r == ' ' || !hidden(r) }

// hidden says that a character of an address is not visible on a screen.
func hidden(r rune) bool {
	return unicode.IsControl(r) || unicode.IsSpace(r) || bidiControl(r) || ignorable(r) || r == brailleBlank ||
		unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp)
}

// bidiControl says that a rune overrides or isolates the writing direction. The
// marks U+200E and U+200F stay allowed: Arabic and Hebrew texts need them.
func bidiControl(r rune) bool {
	return r >= 0x202A && r <= 0x202E || r >= 0x2066 && r <= 0x2069
}
