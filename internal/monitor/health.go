package monitor

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"slipway/internal/control"
)

// stallAfter is how long something may wait to be sealed or sent without anything moving.
const stallAfter = time.Minute

// health remembers of each volume when it last moved.
type health struct {
	mu   sync.Mutex
	seen map[string]seen
}

type seen struct {
	mark  string
	moved time.Time // or had nothing to do
}

// step takes note of the present state.
func (h *health) step(list []control.Status, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := range list {
		s := &list[i]
		last, known := h.seen[s.Volume]
		if mark := markOf(s); !known || mark != last.mark || len(backlog(s)) == 0 {
			h.seen[s.Volume] = seen{mark, now}
		}
	}
}

// stalled says in words what does not move; nothing where all does.
func (h *health) stalled(list []control.Status, now time.Time) []string {
	h.step(list, now)
	h.mu.Lock()
	defer h.mu.Unlock()
	var why []string
	for i := range list {
		s := &list[i]
		if still := now.Sub(h.seen[s.Volume].moved); still >= stallAfter {
			why = append(why, fmt.Sprintf("volume %s has not moved for %s: %s", s.Volume, still.Round(time.Second), strings.Join(backlog(s), "; ")))
		}
	}
	return why
}

// markOf changes whenever something was sealed or delivered.
func markOf(s *control.Status) string {
	var b strings.Builder
	fmt.Fprint(&b, s.Epoch, s.Journal.Sealed, s.HeadBatch, s.Sender.Term, s.Sender.Batch, s.Sender.Shards)
	for _, st := range s.Stores {
		fmt.Fprint(&b, " ", st.Batch)
	}
	return b.String()
}

// backlog says what is on its way. What waits for a condition that the operator has set does not count: it is where it should be.
func backlog(s *control.Status) []string {
	var list []string
	if s.Journal.Head > s.Journal.Sealed && s.Pending.Files > 0 {
		list = append(list, fmt.Sprintf("%d files are not sealed", s.Pending.Files))
	}
	for _, st := range s.Stores {
		if st.LagBatches > 0 && st.State != "waiting" {
			text := fmt.Sprintf("%s lags %d batches, %s", st.Name, st.LagBatches, st.State)
			if st.Error != "" {
				text += ": " + st.Error
			}
			list = append(list, text)
		}
	}
	return list
}

// livez: the daemon answers.
func (m *monitor) livez(w http.ResponseWriter, r *http.Request) {
	_, err := m.status(r.Context())
	verdict(w, problems(err, nil))
}

// readyz: it answers, and what there is to do gets on.
func (m *monitor) readyz(w http.ResponseWriter, r *http.Request) {
	list, err := m.status(r.Context())
	verdict(w, problems(err, m.health.stalled(list, time.Now())))
}

// healthz: nothing is wrong at all, in the daemon's own words.
func (m *monitor) healthz(w http.ResponseWriter, r *http.Request) {
	list, err := m.status(r.Context())
	why := m.health.stalled(list, time.Now())
	for _, s := range list {
		why = append(why, s.Warnings...)
		for _, st := range s.Stores {
			if wrong(st.State) {
				why = append(why, fmt.Sprintf("%s is %s: %s", st.Name, st.State, st.Error))
			}
		}
	}
	verdict(w, problems(err, why))
}

// wrong tells states of a store that want an operator.
func wrong(state string) bool { return state == "down" || state == "full" || state == "refused" }

func problems(err error, why []string) []string {
	if err != nil {
		return append(why, fmt.Sprintf("the daemon does not answer: %v", err))
	}
	return why
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
