package monitor

import (
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"strconv"
	"time"

	"slipway/internal/control"
)

// refresh is the pause between two pictures.
const refresh = time.Second

// batchRows is how many batches one look shows.
const batchRows = 200

//go:embed page.html page.css page.js
var files embed.FS

// page adds what a browser asks for.
func (m *monitor) page(mux *http.ServeMux) {
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) { http.ServeFileFS(w, r, files, "page.html") })
	mux.HandleFunc("GET /page.css", func(w http.ResponseWriter, r *http.Request) { http.ServeFileFS(w, r, files, "page.css") })
	mux.HandleFunc("GET /page.js", func(w http.ResponseWriter, r *http.Request) { http.ServeFileFS(w, r, files, "page.js") })
	mux.HandleFunc("GET /events", m.events)
	mux.HandleFunc("GET /batches", m.batches)
	mux.HandleFunc("GET /explain", m.explain)
}

// picture is what the page draws.
type picture struct {
	Volumes []control.Status `json:"volumes"`
	Stalled []string         `json:"stalled,omitempty"`
	Error   string           `json:"error,omitempty"` // the daemon does not answer
}

// events sends a picture every second (server-sent events, HTML Living Standard 9.2) until the browser goes.
func (m *monitor) events(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	out := http.NewResponseController(w)
	tick := time.NewTicker(refresh)
	defer tick.Stop()
	for {
		var p picture
		var err error
		if p.Volumes, err = m.status(r.Context()); err != nil {
			p.Error = err.Error()
		}
		p.Stalled = m.health.Stalled(p.Volumes, time.Now())
		text, err := json.Marshal(p)
		if err != nil {
			return // no such value is in a status
		}
		if _, err := fmt.Fprintf(w, "data: %s\n\n", text); err != nil || out.Flush() != nil {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case <-tick.C:
		}
	}
}

// batches answers a volume's newest batches, or those from ?from= on.
func (m *monitor) batches(w http.ResponseWriter, r *http.Request) {
	from, err := strconv.ParseUint(r.FormValue("from"), 10, 64)
	if err != nil && r.FormValue("from") != "" {
		http.Error(w, "from= is not the number of a batch", http.StatusBadRequest)
		return
	}
	if r.FormValue("from") == "" {
		from = m.newest(r, batchRows)
	}
	rows, err := m.reporter.Batches(r.Context(), r.FormValue("volume"), from, batchRows)
	if errors.Is(err, fs.ErrNotExist) {
		http.Error(w, fmt.Sprintf("this node holds no volume %q", r.FormValue("volume")), http.StatusNotFound)
		return
	}
	reply(w, rows, err)
}

// newest returns where the last n batches begin.
func (m *monitor) newest(r *http.Request, n uint64) uint64 {
	list, _ := m.status(r.Context())
	for _, s := range list {
		if s.Volume == r.FormValue("volume") && s.HeadBatch > n {
			return s.HeadBatch - n + 1
		}
	}
	return 1
}

// explain answers where a file stands.
func (m *monitor) explain(w http.ResponseWriter, r *http.Request) {
	path := r.FormValue("path")
	e, err := m.reporter.Explain(r.Context(), path)
	if errors.Is(err, fs.ErrNotExist) {
		http.Error(w, fmt.Sprintf("%q is not in the volume", path), http.StatusNotFound)
		return
	}
	reply(w, e, err)
}

func reply(w http.ResponseWriter, v any, err error) {
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // the browser may have gone
}
