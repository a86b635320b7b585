package account

import (
	"fmt"
	"time"

	"github.com/msrchat/msrchat/gate/internal/mail"
)

// The subjects hold no secret, because a locked screen may show them.

func codeMail(to, digits string, lifetime time.Duration) mail.Message {
	return mail.Message{
		To: to, Subject: "Your msrChat code", Expires: time.Now().Add(lifetime),
		Text: fmt.Sprintf(`Your code: %s

It is for registering with msrChat and valid for %s. Only the newest code
works.

If you did not ask for it, somebody typed your address by mistake. You do not
have to do anything. Do not give the code to anybody.
`, digits, minutes(lifetime)),
	}
}

func takenMail(to, name string, lifetime time.Duration) mail.Message {
	return mail.Message{
		To: to, Subject: "Your msrChat account", Expires: time.Now().Add(lifetime),
		Text: fmt.Sprintf(`You, or somebody who typed your address, asked to register with msrChat.

This address has an account already. Its name is

    %s

Log in with that name, or with this address, and your password. If it was not
you, you do not have to do anything: nothing was changed.
`, name),
	}
}

func minutes(d time.Duration) string {
	if d < 2*time.Minute {
		return d.String()
	}
	return fmt.Sprintf("%d minutes", d/time.Minute)
}
