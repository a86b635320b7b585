package demo

import (
	"slices"
	"testing"
	"time"

	"github.com/msrchat/msrchat/proof/check"
	"github.com/msrchat/msrchat/proof/journal"
)

// talk is a conversation of ann (user 1) and ben (user 2), in which the director
// typed all but number 3, which ben typed by hand.
type talk struct {
	log   []check.Row
	typed [2][]uint64
	shown [2][]check.Row
}

func whole() *talk {
	row := func(seq, sender uint64, text string) check.Row {
		return check.Row{Conversation: 9, Seq: seq, Sender: sender, ID: [16]byte{byte(seq)}, Text: journal.Digest(text)}
	}
	log := []check.Row{row(1, 1, "one"), row(2, 2, "two"), row(3, 2, "by hand"), row(4, 1, "three")}
	return &talk{
		log: log, typed: [2][]uint64{{log[0].Text, log[3].Text}, {log[1].Text}},
		shown: [2][]check.Row{slices.Clone(log), slices.Clone(log)},
	}
}

func (c *talk) judge(hands bool) (*check.Report, int) {
	run := &check.Run{
		Log: slices.Clone(c.log), Members: map[uint64][]uint64{9: {1, 2}}, Quiet: time.Now(), Heartbeat: time.Minute,
	}
	for i, name := range names {
		j := journal.New(journal.Device{User: uint64(i + 1), Name: name})
		j.Add(journal.Entry{Kind: journal.Joined})
		for _, r := range c.shown[i] {
			j.Add(journal.Entry{
				Kind: journal.Shown, ID: r.ID, Conversation: r.Conversation, Seq: r.Seq, Sender: r.Sender, Text: r.Text,
			})
		}
		run.Journals = append(run.Journals, j)
	}
	return judge(run, c.typed, hands)
}

func TestWhatAnnAndBenWereShownIsJudged(t *testing.T) {
	report, byHand := whole().judge(true)
	if err := report.Err(); err != nil || byHand != 1 || report.Logged != 4 || report.Acked != 4 {
		t.Errorf("%v, %d by hand\n%s", err, byHand, report)
	}
	late := whole() // typed by hand after the log was read
	late.shown[0] = append(late.shown[0], check.Row{Conversation: 9, Seq: 5, Sender: 2, ID: [16]byte{5}})
	if report, _ := late.judge(true); report.Err() != nil {
		t.Errorf("a message that came later: %v", report.Err())
	}
	if report, _ := whole().judge(false); report.Count(check.Untyped) != 1 {
		t.Errorf("nobody could type by hand: %v", report.Err())
	}
}

func TestWhatIsWrongWithAnnsAndBensMessagesIsFound(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(*talk)
		want  check.Kind
	}{
		"lost": {func(c *talk) {
			c.log, c.shown[0], c.shown[1] = c.log[:3], c.shown[0][:3], c.shown[1][:3]
		}, check.Lost},
		"a text of the director's twice": {func(c *talk) {
			again := c.log[0]
			again.Seq, again.ID = 5, [16]byte{5}
			c.log = append(c.log, again)
			c.shown[0], c.shown[1] = append(c.shown[0], again), append(c.shown[1], again)
		}, check.Untyped},
		"reordered":                 {func(c *talk) { slices.Reverse(c.typed[0]) }, check.Reordered},
		"a gap":                     {func(c *talk) { c.log[3].Seq = 5 }, check.Gap},
		"from eve":                  {func(c *talk) { c.log[2].Sender = 3 }, check.Untyped},
		"altered":                   {func(c *talk) { c.log[1].Text = 0 }, check.Lost},
		"shown twice":               {func(c *talk) { c.shown[1] = append(c.shown[1], c.shown[1][0]) }, check.Repeated},
		"not shown":                 {func(c *talk) { c.shown[0] = c.shown[0][:3] }, check.Missing},
		"shown in another order":    {func(c *talk) { slices.Reverse(c.shown[0][1:3]) }, check.Disordered},
		"by hand and not shown":     {func(c *talk) { c.shown[0] = slices.Delete(c.shown[0], 2, 3) }, check.Missing},
		"by hand and shown altered": {func(c *talk) { c.shown[0][2].Text = 0 }, check.Distorted},
	} {
		spoilt := whole()
		c.spoil(spoilt)
		if report, _ := spoilt.judge(true); report.Count(c.want) == 0 {
			t.Errorf("%s: %s is not in:\n%s", name, c.want, report)
		}
	}
}

func TestALossIsCounted(t *testing.T) {
	c := whole()
	c.log, c.shown[0], c.shown[1] = c.log[:3], c.shown[0][:3], c.shown[1][:2]
	report, _ := c.judge(true)
	if got := broken(report); got != (Counts{2, 0, 0}) {
		t.Errorf("lost, doubled, reordered: %v, want one that is not in the log and one that was not shown", got)
	}
}
