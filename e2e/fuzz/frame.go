package fuzz

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"math"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	chatv1 "github.com/msrchat/msrchat/proto/msrchat/chat/v1"
)

// filler fills messages by their descriptors, so that a new field is filled without new
// code. What a field's name means it takes as a hint.
type filler struct {
	values
	world *world
	// self is who sends: a place in world.people. used are message ids sent before.
	self int
	used [][]byte
	// hostile is how often a value is odd.
	hostile float64
	// raw are texts that are not UTF-8, which cannot be encoded, by their stand-ins.
	raw [][2][]byte
}

// fill sets fields of a message.
func (f *filler) fill(m protoreflect.Message, depth int) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		field := fields.Get(i)
		if of := field.ContainingOneof(); of != nil && m.WhichOneof(of) != nil && f.chance(0.7) {
			continue
		}
		switch {
		case f.chance(f.hostile * 0.3):
		case field.IsList():
			list := m.Mutable(field).List()
			n := f.IntN(5)
			if f.chance(f.hostile * 0.2) {
				n = pick(f.values, []int{255, 256, 257, 3000})
			}
			for range n {
				if field.Message() != nil {
					f.fill(list.AppendMutable().Message(), depth+1)
				} else {
					list.Append(f.value(field))
				}
			}
		case field.Message() == nil:
			m.Set(field, f.value(field))
		case depth < 4 && !field.IsMap():
			f.fill(m.Mutable(field).Message(), depth+1)
		}
	}
}

// value is one of a field that is no message.
func (f *filler) value(field protoreflect.FieldDescriptor) protoreflect.Value {
	name, odd := string(field.Name()), f.chance(f.hostile)
	switch field.Kind() {
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(f.string(name, odd))
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes(f.bytesOf(name, odd))
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(f.chance(0.5))
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(protoreflect.EnumNumber(int32(f.IntN(12)) - 1))
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return protoreflect.ValueOfUint64(f.id(name, odd))
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		return protoreflect.ValueOfUint32(f.small(name, odd))
	case protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind:
		n := int64(f.number())
		if strings.HasSuffix(name, "_ms") && !odd {
			n = time.Now().UnixMilli()
		}
		return protoreflect.ValueOfInt64(n)
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind:
		return protoreflect.ValueOfInt32(int32(f.number()))
	case protoreflect.DoubleKind:
		return protoreflect.ValueOfFloat64(math.Inf(1))
	default:
		return field.Default()
	}
}

func (f *filler) string(name string, odd bool) string {
	text := f.text()
	if !odd {
		text = f.good()
		if strings.Contains(name, "name") {
			text = pick(f.values, f.world.people).name
		}
	}
	if !utf8.ValidString(text) && len(text) >= 8 {
		stand := strings.Repeat("~", len(text)-8) + f.word()[:4] + "~~~~"
		f.raw = append(f.raw, [2][]byte{[]byte(stand), []byte(text)})
		return stand
	}
	return strings.ToValidUTF8(text, "\x00")
}

func (f *filler) bytesOf(name string, odd bool) []byte {
	switch {
	case name == "body" && odd:
		return []byte(f.text())
	case name == "body":
		return []byte(f.good())
	case odd:
		return f.bytes()
	case name == "token":
		token, _ := base64.RawURLEncoding.DecodeString(f.world.people[f.self].token) // the gate's
		return token
	case strings.HasSuffix(name, "_id"):
		if len(f.used) > 0 && f.chance(0.1) {
			return pick(f.values, f.used)
		}
		id := make([]byte, 16)
		binary.BigEndian.PutUint64(id, f.Uint64())
		binary.BigEndian.PutUint64(id[8:], f.Uint64())
		f.used = append(f.used, id)
		return id
	}
	return f.bytes()
}

// id is a number of a conversation, a person or an event.
func (f *filler) id(name string, odd bool) uint64 {
	switch {
	case odd:
		return f.number()
	case strings.Contains(name, "conversation"):
		if f.chance(0.05) {
			return pick(f.values, f.world.all()) // somebody else's
		}
		return pick(f.values, f.world.of(f.self))
	case strings.Contains(name, "user"), strings.Contains(name, "sender"), strings.Contains(name, "member"):
		return pick(f.values, f.world.people).id
	case f.chance(0.5):
		return 0
	}
	return f.Uint64N(30)
}

func (f *filler) small(name string, odd bool) uint32 {
	switch {
	case odd:
		return uint32(f.number())
	case name == "protocol":
		return 1
	case name == "kind":
		return f.Uint32N(2)
	}
	return f.Uint32N(300)
}

// request is a frame with the request of that field of ClientFrame.
func (f *filler) request(field protoreflect.FieldDescriptor, id uint64) []byte {
	m := &chatv1.ClientFrame{RequestId: id}
	f.fill(m.ProtoReflect().Mutable(field).Message(), 0)
	return f.encode(m)
}

// encode writes a message down, with the texts that are not UTF-8, as a frame.
func (f *filler) encode(m proto.Message) []byte { return framed(f.marshal(m)) }

func (f *filler) marshal(m proto.Message) []byte {
	body, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return nil // a text that is not UTF-8 slipped through; it is a case without a frame
	}
	for _, r := range f.raw {
		body = bytes.Replace(body, r[0], r[1], 1)
	}
	f.raw = f.raw[:0]
	return body
}

func framed(body []byte) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...)
}

// hello introduces a person.
func (f *filler) hello(id uint64) []byte {
	token, _ := base64.RawURLEncoding.DecodeString(f.world.people[f.self].token) // the gate's
	return f.encode(&chatv1.ClientFrame{RequestId: id, Body: &chatv1.ClientFrame_Hello{
		Hello: &chatv1.Hello{Protocol: 1, Token: token, Client: "fuzz"},
	}})
}

// strange adds to a message what its reader does not know, or changes its bytes.
func (f *filler) strange(body []byte) []byte {
	body = bytes.Clone(body)
	switch f.IntN(8) {
	case 0: // fields of later releases
		for range 1 + f.IntN(5) {
			number := protowire.Number(1 + f.IntN(3000))
			body = protowire.AppendTag(body, number, protowire.BytesType)
			body = protowire.AppendBytes(body, f.bytes())
		}
	case 1:
		body = protowire.AppendVarint(protowire.AppendTag(body, 1, protowire.VarintType), f.number())
	case 2: // groups in groups
		n := f.IntN(20_000)
		body = append(body, bytes.Repeat(protowire.AppendTag(nil, 99, protowire.StartGroupType), n)...)
		body = append(body, bytes.Repeat(protowire.AppendTag(nil, 99, protowire.EndGroupType), n)...)
	case 3: // a number that is longer than it need be
		body = append(protowire.AppendTag(body, 1, protowire.VarintType), 0x85, 0x80, 0x80, 0x00)
	case 4:
		body = append(body, f.bytes()...)
	case 5:
		body = body[:f.IntN(len(body)+1)]
	case 6: // another wire type
		body = protowire.AppendFixed64(protowire.AppendTag(body, protowire.Number(1+f.IntN(9)),
			protowire.Fixed64Type), 7)
	default:
		for range 1 + f.IntN(4) {
			if len(body) > 0 {
				body[f.IntN(len(body))] = byte(f.Uint32())
			}
		}
	}
	return body
}

// looksFrame judges every text of a frame, by what it is.
func (p *player) looksFrame(m protoreflect.Message, where string) {
	if e, ok := m.Interface().(*chatv1.Event); ok && e.GetKind() <= 1 {
		p.shown(where, shownText(string(e.GetBody())))
	}
	m.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		for _, v := range each(field, value) {
			switch {
			case field.Message() != nil:
				p.looksFrame(v.Message(), where)
			case field.Kind() == protoreflect.StringKind:
				p.shown(where, judgeOf(field)(v.String()))
			}
		}
		return true
	})
}

// judgeOf is how the texts of a field are judged.
func judgeOf(field protoreflect.FieldDescriptor) func(string) error {
	switch field.FullName() {
	case "msrchat.chat.v1.User.name", "msrchat.chat.v1.Welcome.user_name":
		return shownName
	case "msrchat.chat.v1.Draft.text":
		return shownDraft
	}
	return shownLine
}

// each lists a value's elements, itself where it is no list.
func each(field protoreflect.FieldDescriptor, value protoreflect.Value) (out []protoreflect.Value) {
	if !field.IsList() {
		return []protoreflect.Value{value}
	}
	for i := range value.List().Len() {
		out = append(out, value.List().Get(i))
	}
	return out
}
