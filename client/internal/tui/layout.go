package tui

// layout says where everything is, for the present size and content.
type layout struct {
	both             bool // list and chat beside one another
	listW, chatW     int
	chatX            int  // the chat's first column
	status           bool // there is a status row
	content          int  // rows above it
	title            bool // there is a title row
	titleRule        bool // and a rule below it
	inputRule        bool // there is a rule above the composer
	input, body      int  // rows of the composer and of the messages
	list             int  // rows of the list
	promptW, inputIn int  // columns of the prompt and of what is typed
}

const (
	// bothFrom is the width from which list and chat fit beside one another.
	bothFrom = 60
	// maxInput is how many rows the composer grows to.
	maxInput = 8
)

func (l layout) inputWidth() int { return l.inputIn }

func (m *Model) layout() layout {
	l := layout{both: m.width >= bothFrom, listW: m.width, chatW: m.width}
	if l.both {
		l.listW = min(max(m.width*3/10, 20), 32)
		l.chatX = l.listW + 1
		l.chatW = m.width - l.chatX
	}
	l.status = m.height >= 2
	l.content = m.height
	if l.status {
		l.content--
	}
	l.title = l.content >= 4
	l.titleRule = l.content >= 9
	l.inputRule = l.content >= 3
	if l.promptW = 3; l.chatW < 12 {
		l.promptW = 0
	}
	l.inputIn = max(l.chatW-l.promptW-1, 1)
	rest := l.content
	for _, has := range []bool{l.title, l.titleRule} {
		if has {
			rest--
		}
	}
	l.list = max(rest, 0)
	if l.inputRule {
		rest--
	}
	l.input = m.composer.height(m.measure, l.inputIn, min(maxInput, max(1, l.content/3)))
	l.body = max(rest-l.input, 0)
	return l
}
