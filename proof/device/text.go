package device

import (
	"math/rand/v2"
	"strconv"
	"strings"
)

// Texts makes the texts of messages; the same seed makes the same ones. It is
// for one goroutine.
type Texts struct {
	rnd   *rand.Rand
	sizes []int
	n     int
}

// NewTexts returns texts of the given lengths in characters, which are drawn
// uniformly; of about the length of what people write if none is given. Each text
// begins with its number, so that no two are equal.
func NewTexts(seed uint64, sizes ...int) *Texts {
	if len(sizes) == 0 {
		sizes = []int{8, 12, 20, 35, 60, 120}
	}
	return &Texts{rnd: rand.New(rand.NewPCG(seed, 1)), sizes: sizes}
}

// pieces are what texts are made of: scripts of one to four bytes a character,
// and characters of several code points.
var pieces = []string{
	"the quick brown fox ", "ça va, être — naïve ", "привет мир ", "你好，北京今天下雨", "こんにちは世界、", "안녕하세요 ",
	"שלום ", "👍🏽🎉", "👨‍👩‍👧❤️🇨🇳", "'; DROP TABLE events; -- ", `\' \\ %s {{.}} `, "two\nlines\tand a tab ",
}

// Next returns the next text.
func (t *Texts) Next() string {
	t.n++
	size := t.sizes[t.rnd.IntN(len(t.sizes))]
	var b strings.Builder
	b.WriteString(strconv.Itoa(t.n))
	b.WriteByte(' ')
	left := size - b.Len()
	for left > 0 {
		for _, r := range pieces[t.rnd.IntN(len(pieces))] {
			if left == 0 {
				break
			}
			b.WriteRune(r)
			left--
		}
	}
	return b.String()
}
