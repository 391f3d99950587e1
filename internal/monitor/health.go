package monitor

import (
	"encoding/json"
	"net/http"
	"time"

	"slipway/internal/health"
)

// livez: the daemon answers.
func (m *monitor) livez(w http.ResponseWriter, r *http.Request) {
	_, err := m.status(r.Context())
	verdict(w, health.Problems(nil, err))
}

// readyz: it answers, and what there is to do gets on.
func (m *monitor) readyz(w http.ResponseWriter, r *http.Request) {
	list, err := m.status(r.Context())
	verdict(w, append(health.Problems(nil, err), m.health.Stalled(list, time.Now())...))
}

// healthz: nothing is wrong at all, in the daemon's own words.
func (m *monitor) healthz(w http.ResponseWriter, r *http.Request) {
	list, err := m.status(r.Context())
	m.health.Amend(list)
	verdict(w, health.Problems(list, err))
}

// verdict answers 200, or 503 with the reasons.
func verdict(w http.ResponseWriter, why []string) {
	w.Header().Set("Content-Type", "application/json")
	if len(why) > 0 {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_ = json.NewEncoder(w).Encode(struct { // the asker may have gone
		OK  bool     `json:"ok"`
		Why []string `json:"why,omitempty"`
	}{len(why) == 0, why})
}
