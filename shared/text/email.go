package text

import (
	"net/mail"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/idna"
	"golang.org/x/text/unicode/norm"

	"github.com/msrchat/msrchat/shared/errs"
)

// maxLocalBytes is the longest part before the @ (RFC 5321).
const maxLocalBytes = 64

// dns turns a domain into that of DNS, by UTS 46.
var dns = idna.New(
	idna.MapForLookup(), idna.BidiRule(), idna.StrictDomainName(true), idna.VerifyDNSLength(true),
)

// Email checks an address (without a display name) and returns it as given and its
// unique key. The key keeps apart what mail servers may keep apart: of the part
// before the @ only the letters' case is folded, since no provider in use
// distinguishes Ann@ from ann@, and people type both. The domain's key is that of
// DNS, so that bücher.example and xn--bcher-kva.example are one.
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
	at := strings.LastIndexByte(s, '@')
	if at < 0 || !dotAtom(s[:at]) {
		return bad("this is not an e-mail address")
	}
	local := norm.NFC.String(s[:at])
	domain, err := dns.ToASCII(s[at+1:])
	if err != nil || !hostName(domain) {
		return bad("this is not an e-mail address")
	}
	key = strings.Map(foldSimple, local) + "@" + domain
	if len(key) > MaxEmailBytes || len(local) > maxLocalBytes || len(local)+1+len(domain) > MaxEmailBytes {
		return bad("the address is too long")
	}
	return s, key, nil
}

// FindEmail is the key of an address that may have an account already: also of one
// that an earlier release took and that nobody could register any more. That key is
// the address itself, in small letters if it is ASCII.
func FindEmail(s string) (key string, err error) {
	_, key, err = Email(s)
	if err == nil {
		return key, nil
	}
	s = strings.TrimSpace(s)
	if len(s) > MaxEmailBytes || !utf8.ValidString(s) {
		return "", err
	}
	if a, parseErr := mail.ParseAddress(s); parseErr != nil || a.Address != s || a.Name != "" {
		return "", err
	}
	if strings.ContainsFunc(s, func(r rune) bool { return r >= utf8.RuneSelf }) {
		return s, nil
	}
	return strings.ToLower(s), nil
}

// MailTo is the address that mail is sent to: that of an account with the domain as
// DNS has it, for mail servers that know no other.
func MailTo(address string) string {
	at := strings.LastIndexByte(address, '@')
	domain, err := dns.ToASCII(address[at+1:])
	if err != nil {
		return address
	}
	return address[:at+1] + domain
}

// dotAtom says that the part before the @ needs no quotes (RFC 5322, and RFC 6532
// for letters beyond ASCII).
func dotAtom(s string) bool {
	for part := range strings.SplitSeq(s, ".") {
		if part == "" {
			return false
		}
		for _, r := range part {
			switch letter := unicode.IsLetter(r) || unicode.IsNumber(r) || mark(r); {
			case r < utf8.RuneSelf && !letter && !strings.ContainsRune("!#$%&'*+-/=?^_`{|}~", r),
				r >= utf8.RuneSelf && (!letter || norm.NFC.String(string(r))[0] < utf8.RuneSelf): // the Kelvin sign
				return false
			}
		}
	}
	return true
}

// hostName says that a domain could have a mail server: an IP address is none.
func hostName(domain string) bool {
	last := domain[strings.LastIndexByte(domain, '.')+1:]
	return len(last) < len(domain) && strings.Trim(last, "0123456789") != ""
}

// foldSimple folds the case of a letter. It takes no letter into ASCII: the Kelvin
// sign and the long s are other letters to a mail server.
func foldSimple(r rune) rune {
	if r < utf8.RuneSelf {
		return unicode.ToLower(r)
	}
	folded := r
	for other := unicode.SimpleFold(r); other != r; other = unicode.SimpleFold(other) {
		if other >= utf8.RuneSelf {
			folded = min(folded, other)
		}
	}
	return folded
}
