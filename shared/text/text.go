// Package text decides which names, addresses, passwords and messages are
// acceptable, and what makes two names the same. Its errors are *errs.Error
// with the field named, and never repeat the rejected value.
package text

import (
	"net/mail"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"

	"github.com/msrchat/msrchat/shared/errs"
)

// Limits, which clients read from Welcome and the OpenAPI document.
const (
	MinNameRunes = 2
	MaxNameRunes = 32
	// MaxEmailBytes is the longest address that fits an SMTP path (RFC 5321).
	MaxEmailBytes = 254
	MinPassword   = 8
	// MaxPassword bounds the work of hashing, in bytes.
	MaxPassword     = 256
	MaxMessageRunes = 4096
	MaxMessageBytes = 4 * MaxMessageRunes
)

// Name checks a user name and returns it as shown (NFKC) and its unique key: two
// names with the same key are the same name.
func Name(s string) (display, key string, err error) {
	bad := func(format string, args ...any) (string, string, error) {
		return "", "", errs.New(errs.CodeInvalid, format, args...).In("name")
	}
	if !utf8.ValidString(s) {
		return bad("the name is not valid UTF-8")
	}
	if len(s) > 4*MaxNameRunes*4 {
		return bad("the name is longer than %d characters", MaxNameRunes)
	}
	display = norm.NFKC.String(strings.TrimSpace(s))
	switch n := utf8.RuneCountInString(display); {
	case n < MinNameRunes:
		return bad("the name is shorter than %d characters", MinNameRunes)
	case n > MaxNameRunes:
		return bad("the name is longer than %d characters", MaxNameRunes)
	}
	for i, r := range display {
		switch {
		case unicode.IsLetter(r), unicode.IsDigit(r):
		case i > 0 && (r == '.' || r == '_' || r == '-' || unicode.Is(unicode.Mn, r) || unicode.Is(unicode.Mc, r)):
		default:
			return bad("the name may have letters, digits and, after the first, the characters . _ -")
		}
	}
	// Folding can denormalise, so the key is normalised once more.
	return display, norm.NFKC.String(cases.Fold().String(display)), nil
}

// Email checks an address (without a display name) and returns it as given and
// its unique key. The local part is folded too: no provider in use
// distinguishes Ann@ from ann@, and people type both.
func Email(s string) (display, key string, err error) {
	bad := func(message string) (string, string, error) {
		return "", "", errs.New(errs.CodeInvalid, "%s", message).In("email")
	}
	s = strings.TrimSpace(s)
	if len(s) > MaxEmailBytes {
		return bad("the address is too long")
	}
	if !utf8.ValidString(s) || strings.ContainsFunc(s, hidden) {
		return bad("the address has characters that cannot be shown")
	}
	a, parseErr := mail.ParseAddress(s)
	if parseErr != nil || a.Address != s || a.Name != "" {
		return bad("this is not an e-mail address")
	}
	return s, strings.ToLower(norm.NFKC.String(s)), nil
}

// Password checks the length of a new password, and nothing else.
func Password(s string) error {
	switch {
	case utf8.RuneCountInString(s) < MinPassword:
		return errs.New(errs.CodeInvalid, "the password is shorter than %d characters", MinPassword).In("password")
	case len(s) > MaxPassword:
		return errs.New(errs.CodeInvalid, "the password is longer than %d bytes", MaxPassword).In("password")
	}
	return nil
}

// Message checks a text message: valid UTF-8, not blank, within the limits, and
// without characters that control a terminal or the writing direction.
func Message(s string) error {
	bad := func(code errs.Code, format string, args ...any) error {
		return errs.New(code, format, args...).In("text")
	}
	switch {
	case len(s) > MaxMessageBytes || utf8.RuneCountInString(s) > MaxMessageRunes:
		return bad(errs.CodeTooLarge, "the text is longer than %d characters", MaxMessageRunes)
	case !utf8.ValidString(s):
		return bad(errs.CodeInvalid, "the text is not valid UTF-8")
	case strings.TrimSpace(s) == "":
		return bad(errs.CodeInvalid, "the text is empty")
	}
	for _, r := range s {
		if r != '\n' && r != '\t' && (unicode.IsControl(r) || bidiControl(r)) {
			return bad(errs.CodeInvalid, "the text has a control character (U+%04X)", r)
		}
	}
	return nil
}

// hidden says that a rune is not visible on a screen.
func hidden(r rune) bool {
	return unicode.IsControl(r) || bidiControl(r) || unicode.Is(unicode.Cf, r)
}

// bidiControl says that a rune overrides or isolates the writing direction. The
// marks U+200E and U+200F stay allowed: Arabic and Hebrew texts need them.
func bidiControl(r rune) bool {
	return r >= 0x202A && r <= 0x202E || r >= 0x2066 && r <= 0x2069
}
