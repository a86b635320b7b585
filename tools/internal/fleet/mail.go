package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/msrchat/msrchat/tools/mailbox"
)

// ErrNoMail says that there is no mail for an address yet.
var ErrNoMail = errors.New("no mail")

// Mail writes the text of the newest mail to the address.
func (f *Fleet) Mail(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second) // a local request
	defer cancel()
	target := fmt.Sprintf("http://127.0.0.1:%d/messages?limit=1&to=%s", f.ports.MailHTTP(), url.QueryEscape(address))
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, target, http.NoBody)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		if !f.running() {
			return ErrDown
		}
		return fmt.Errorf("the mailbox does not answer (./justw logs mail): %w", err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("the mailbox answered %s", response.Status)
	}
	var messages []mailbox.Message
	if err := json.NewDecoder(response.Body).Decode(&messages); err != nil {
		return fmt.Errorf("the mailbox's answer: %w", err)
	}
	if len(messages) == 0 {
		return fmt.Errorf("%w for %s yet (mails are lost when the mail service restarts)", ErrNoMail, address)
	}
	m := messages[0]
	f.printf("From: %s\nTo: %s\nDate: %s\nSubject: %s\n\n%s\n", m.From, address, m.Received.Format(time.RFC1123),
		m.Subject, m.Text)
	return nil
}
