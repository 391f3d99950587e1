package alert

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"time"

	"slipway/internal/config"
	"slipway/internal/health"
)

const (
	// beatWithin bounds one request.
	beatWithin = 10 * time.Second
	// maxRedirects is how many addresses one may lead to.
	maxRedirects = 3
)

// heartbeat asks for an address. Whoever waits there for the next time notices also what a daemon cannot tell: that its host is gone.
type heartbeat struct {
	config.Heartbeat
	client *http.Client

	mu     sync.Mutex // guards what follows
	failed error
	since  time.Time // of the failures
}

func newHeartbeat(h config.Heartbeat) *heartbeat {
	return &heartbeat{Heartbeat: h, client: &http.Client{
		Timeout: beatWithin,
		CheckRedirect: func(r *http.Request, via []*http.Request) error {
			switch {
			case len(via) > maxRedirects:
				return errors.New("too many redirections")
			case via[0].URL.Scheme == "https" && r.URL.Scheme != "https":
				return errors.New("it leads from https to " + r.URL.Scheme)
			}
			return nil
		},
	}}
}

// beatOnce is the step: one request while nothing is wrong. What of the heartbeat itself is wrong does not count: it would never come back.
func (w *Watcher) beatOnce(ctx context.Context) {
	list, err := w.status(ctx)
	w.amendHooks(list)
	if why := health.Problems(list, err); len(why) > 0 {
		w.opt.Log.Debug("no heartbeat", "why", why)
		return
	}
	err = w.beat.send(ctx)
	if ctx.Err() != nil {
		return // the daemon ends
	}
	if w.beat.note(err, time.Now()) {
		w.opt.Log.Warn("heartbeat", "error", err)
	}
}

// send asks for the address. Its error does not name the address, which is a secret with some services.
func (h *heartbeat) send(ctx context.Context) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, h.URL, nil)
	if err != nil {
		return errors.New("heartbeat.url is not an address")
	}
	r.Header.Set("User-Agent", "slipway")
	resp, err := h.client.Do(r)
	if err != nil {
		var of *url.Error
		if errors.As(err, &of) {
			err = of.Err
		}
		return err
	}
	_, _ = io.CopyN(io.Discard, resp.Body, 4<<10) // for the connection's sake; what it says is nobody's concern
	_ = resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("the answer is %s", resp.Status)
	}
	return nil
}

// note remembers how it went, and tells whether that is to be said: failures in a row once.
func (h *heartbeat) note(err error, now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	first := err != nil && h.failed == nil
	if first {
		h.since = now
	}
	h.failed = err
	return first
}

// failure says in words why the heartbeat is not heard; "" when it is.
func (h *heartbeat) failure() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.failed == nil {
		return ""
	}
	return fmt.Sprintf("the heartbeat has not been heard since %s: %v; see heartbeat.url in the configuration", h.since.Format(time.DateTime), h.failed)
}
