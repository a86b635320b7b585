// Package text decides which names, addresses, passwords and messages are
// acceptable, and what makes two names the same. Its errors are *errs.Error
// with the field named, and never repeat the rejected value.
package text

import (
	"crypto/sha256"
	"strings"
	"unicode"
	"unicode/utf8"

	"go.mau.fi/util/confusable"
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

	// maxMarks is how many combining marks a letter of a name may carry: the limit of
	// UTS 39, section 5.4. Letters of Tibetan and Hebrew need three.
	maxMarks = 4
	// A region's name in a flag has minRegion to maxRegion letters and digits (UTS 51 and
	// ISO 3166-2). More could carry a hidden text.
	minRegion, maxRegion = 3, 6
	// maxIgnorable is how many invisible characters may follow each other in a text.
	// Emoji and scripts that join letters need two; more could carry a hidden text.
	maxIgnorable = 4
)

// Name checks a new user name and returns it as shown (NFKC) and its unique key: two
// names with the same key are the same name. Two names that look the same have the
// same Look.
func Name(s string) (display, key string, err error) {
	display, key, err = FindName(s)
	if err != nil {
		return "", "", err
	}
	bad := func(message string) (string, string, error) {
		return "", "", errs.New(errs.CodeInvalid, "%s", message).In("name")
	}
	marks, last := 0, rune(0)
	for _, r := range display {
		if ignorable(r) {
			return bad("the name has an invisible character")
		}
		if !mark(r) {
			marks, last = 0, 0
			continue
		}
		if marks++; marks > maxMarks || r == last {
			return bad("the name has too many accents on one letter")
		}
		last = r
	}
	return display, key, nil
}

// FindName is Name for a name that may exist already: names that earlier releases
// took are found, even if nobody could choose them any more.
func FindName(s string) (display, key string, err error) {
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
		case i > 0 && (r == '.' || r == '_' || r == '-' || mark(r)):
		default:
			return bad("the name may have letters, digits and, after the first, the characters . _ -")
		}
	}
	// Folding can denormalise, so the key is normalised once more.
	key = norm.NFKC.String(cases.Fold().String(display))
	return display, key, nil
}

// Look is a hash of how a name looks (the skeleton of UTS 39, in either case): names
// that a reader cannot tell apart have the same.
func Look(name string) [sha256.Size]byte {
	fold := func(s string) string { return cases.Fold().String(confusable.Skeleton(s)) }
	// Once more, because a capital letter and its small one look like different others.
	// The capital i looks like an l and folds to an i, so these two are one letter.
	return sha256.Sum256([]byte(strings.ReplaceAll(fold(fold(name)), "i", "l")))
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
// without characters that control a terminal or the writing direction, or that hide
// a text in another one.
func Message(s string) error {
	bad := func(code errs.Code, format string, args ...any) error {
		return errs.New(code, format, args...).In("text")
	}
	switch {
	case len(s) <= MaxMessageRunes && plain(s) && strings.Trim(s, " \n\t") != "":
		return nil // most texts, for a fraction of the time
	case len(s) > MaxMessageBytes || utf8.RuneCountInString(s) > MaxMessageRunes:
		return bad(errs.CodeTooLarge, "the text is longer than %d characters", MaxMessageRunes)
	case !utf8.ValidString(s):
		return bad(errs.CodeInvalid, "the text is not valid UTF-8")
	case !strings.ContainsFunc(s, visible):
		return bad(errs.CodeInvalid, "the text is empty")
	}
	if r, what := harmful(s); what != "" {
		return bad(errs.CodeInvalid, "the text has %s (U+%04X)", what, r)
	}
	return nil
}

// Draft checks an unfinished text. It may be blank, and other devices of its author
// show it: so it has none of the characters that a message may not have.
func Draft(s string) error {
	bad := func(code errs.Code, format string, args ...any) error {
		return errs.New(code, format, args...).In("draft")
	}
	switch {
	case len(s) > MaxMessageBytes:
		return bad(errs.CodeTooLarge, "the draft is longer than %d bytes", MaxMessageBytes)
	case plain(s):
		return nil
	case !utf8.ValidString(s):
		return bad(errs.CodeInvalid, "the draft is not valid UTF-8")
	}
	if r, what := harmful(s); what != "" {
		return bad(errs.CodeInvalid, "the draft has %s (U+%04X)", what, r)
	}
	return nil
}
