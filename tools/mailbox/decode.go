package mailbox

import (
	"bytes"
	"encoding/base64"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net/mail"
	"strings"
)

// maxDepth is how deep multiparts may be nested. Real mail has two or three
// levels.
const maxDepth = 5

// decode returns the subject and plain text of a mail. A malformed mail is
// shown as it is, so that the developer of the sender can see what is wrong
// with it.
func decode(raw []byte) (subject, text string) {
	parsed, err := mail.ReadMessage(bytes.NewReader(raw))
	if err != nil {
		return "", printable(raw)
	}
	subject, err = new(mime.WordDecoder).DecodeHeader(parsed.Header.Get("Subject"))
	if err != nil {
		subject = parsed.Header.Get("Subject")
	}
	header := partHeader{parsed.Header.Get("Content-Type"), parsed.Header.Get("Content-Transfer-Encoding")}
	plain, other := readPart(header, parsed.Body, 0)
	if plain == "" {
		plain = other
	}
	return strings.ToValidUTF8(subject, "\uFFFD"), plain
}

type partHeader struct{ contentType, encoding string }

// readPart returns the first plain text in a part, and the first text of another
// kind (HTML) for mails that have nothing else.
func readPart(header partHeader, body io.Reader, depth int) (plain, other string) {
	mediaType, params, err := mime.ParseMediaType(header.contentType)
	if err != nil {
		mediaType = "text/plain" // RFC 2045: the default
	}
	if strings.HasPrefix(mediaType, "multipart/") {
		return readMultipart(multipart.NewReader(body, params["boundary"]), depth)
	}
	if !strings.HasPrefix(mediaType, "text/") {
		return "", ""
	}
	// Of a broken encoding the part before the error is shown.
	content, _ := io.ReadAll(decoded(header.encoding, body))
	text := charset(params["charset"], content)
	if mediaType == "text/plain" {
		return text, ""
	}
	return "", text
}

func readMultipart(reader *multipart.Reader, depth int) (plain, other string) {
	if depth == maxDepth {
		return "", ""
	}
	for {
		// Raw, because NextPart would decode quoted-printable, which decoded
		// does.
		part, err := reader.NextRawPart()
		if err != nil {
			return plain, other
		}
		header := partHeader{part.Header.Get("Content-Type"), part.Header.Get("Content-Transfer-Encoding")}
		p, o := readPart(header, part, depth+1)
		if plain == "" {
			plain = p
		}
		if other == "" {
			other = o
		}
		_ = part.Close()
	}
}

func decoded(encoding string, body io.Reader) io.Reader {
	switch strings.ToLower(strings.TrimSpace(encoding)) {
	case "base64":
		return base64.NewDecoder(base64.StdEncoding, body)
	case "quoted-printable":
		return quotedprintable.NewReader(body)
	}
	return body
}

// charset converts the few character sets that need no table to UTF-8.
func charset(name string, content []byte) string {
	switch strings.ToLower(name) {
	case "iso-8859-1", "latin1":
		runes := make([]rune, len(content))
		for i, b := range content {
			runes[i] = rune(b) // the first 256 code points are Latin-1
		}
		content = []byte(string(runes))
	}
	return printable(content)
}

func printable(content []byte) string {
	text := strings.ReplaceAll(string(content), "\r\n", "\n")
	return strings.TrimRight(strings.ToValidUTF8(text, "\uFFFD"), "\n")
}
