package flood

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"golang.org/x/crypto/argon2"
)

// Blocks of loopback addresses: 1 is the silent ones'.
const (
	hostileBlock = 2
	honestBlock  = 3
)

// logInLimit is how long a log-in may take.
const logInLimit = 15 * time.Second

// client is an HTTP client from one address.
func client(block byte, i int) *http.Client {
	dialer := net.Dialer{LocalAddr: source(block, i)}
	return &http.Client{
		Transport: &http.Transport{DialContext: dialer.DialContext, MaxIdleConnsPerHost: 4}, Timeout: logInLimit,
	}
}

type credentials struct {
	Name     string `json:"name"`
	Password string `json:"password"`
	Device   string `json:"device"`
}

// logIn logs in as nobody, again and again, from one address.
func (a *attack) logIn(ctx context.Context, i int) {
	c := client(hostileBlock, i)
	defer c.CloseIdleConnections()
	for ctx.Err() == nil {
		a.logIns.Add(1)
		status, err := post(ctx, c, a.order.Gate, credentials{Name: "nobody", Password: rand.Text(), Device: "x"})
		if err == nil && status == http.StatusServiceUnavailable {
			a.refused.Add(1)
		}
	}
}

func post(ctx context.Context, c *http.Client, gate string, who credentials) (status int, err error) {
	body, err := json.Marshal(who) //nolint:gosec // the password is made up, and this is the log-in
	if err != nil {
		return 0, err
	}
	url := gate + "/v1/sessions?later=true"
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	request.Header.Set("Content-Type", "application/json")
	answer, err := c.Do(request)
	if err != nil {
		return 0, err
	}
	_, err = io.Copy(io.Discard, answer.Body)
	_ = answer.Body.Close()
	return answer.StatusCode, err
}

// Person is somebody who logs in with a password.
type Person struct{ Name, Password string }

// LogIn logs a person in from the i-th honest address, once, on a connection of its own.
func LogIn(ctx context.Context, gate string, who Person, i int) error {
	c := client(honestBlock, i)
	defer c.CloseIdleConnections()
	status, err := post(ctx, c, gate, credentials{
		Name: who.Name, Password: who.Password, Device: fmt.Sprint("device ", i),
	})
	if err == nil && status != http.StatusCreated {
		err = fmt.Errorf("log-in: %d", status)
	}
	return err
}

// Hash is what the gate stores for a password.
func Hash(password string) string {
	const memory, passes, lanes, keyBytes = 19456, 2, 1, 32
	salt := make([]byte, 16)
	_, _ = rand.Read(salt) // never fails: the program would end
	key := argon2.IDKey([]byte(password), salt, passes, memory, lanes, keyBytes)
	text := base64.RawStdEncoding.EncodeToString
	return fmt.Sprintf("$argon2id$v=19$m=%d,t=%d,p=%d$%s$%s", memory, passes, lanes, text(salt), text(key))
}
