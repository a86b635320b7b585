package mailbox

import (
	"encoding/json"
	"net/http"
	"strconv"
)

func (m *Mailbox) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("ok\n"))
	})
	mux.HandleFunc("GET /messages", m.messages)
	return mux
}

func (m *Mailbox) messages(w http.ResponseWriter, r *http.Request) {
	limit := keep
	if text := r.FormValue("limit"); text != "" {
		number, err := strconv.Atoi(text)
		if err != nil || number < 1 {
			http.Error(w, "limit: a number of at least 1 is expected", http.StatusBadRequest)
			return
		}
		limit = number
	}
	w.Header().Set("Content-Type", "application/json")
	// On an error the client is gone.
	_ = json.NewEncoder(w).Encode(m.store.find(r.FormValue("to"), limit))
}
