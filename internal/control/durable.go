package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/cenkalti/backoff/v5"

	"slipway/internal/journal"
)

// Durable is what the mount asks for an fsync under a `durability:` pattern: has this object, as it is now, reached the stage? Unlike a
// Barrier it makes the daemon hurry.
type Durable struct {
	Object journal.Ident `json:"object"`
	Path   []byte        `json:"path"` // as the mount knows it, for words
	Stage  Stage         `json:"stage"`
	// Names: the mount does not know every name that the object has. Where another one asks for a higher stage, that counts.
	Names  bool          `json:"names"`
	Within time.Duration `json:"within"` // the daemon gives up then, and says what it waited for
}

// Syncer is a Reporter that an fsync can wait at.
type Syncer interface {
	// Durable returns nil once it is so; fs.ErrNotExist when the volume has no such object (any more).
	Durable(ctx context.Context, q Durable) error
}

// AwaitDurable asks until there is an answer, ctx ends or within is over. The daemon may die and come back meanwhile: it is asked anew then.
// The daemon's words about what it waited for come a little before the time is over.
func AwaitDurable(ctx context.Context, stateDir string, q Durable, within time.Duration) error {
	ctx, stop := context.WithTimeout(ctx, within)
	defer stop()
	deadline, _ := ctx.Deadline()
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval, pause.MaxInterval = 20*time.Millisecond, 250*time.Millisecond
	for {
		q.Within = time.Until(deadline) * 19 / 20
		err := newClient(stateDir, answerWithin, 0).durable(ctx, q)
		if err == nil || ctx.Err() == nil && !errors.Is(err, ErrNoDaemon) && !errors.Is(err, ErrSilent) {
			return err
		}
		timer := time.NewTimer(pause.NextBackOff())
		select {
		case <-ctx.Done():
			timer.Stop()
			return fmt.Errorf("wait for stage %s: %w", q.Stage, errors.Join(err, ctx.Err()))
		case <-timer.C:
		}
	}
}

func (c *Client) durable(ctx context.Context, q Durable) error {
	text, err := json.Marshal(q)
	if err != nil {
		return err
	}
	_, err = get[struct{}](ctx, c, http.MethodPost, "/durable", url.Values{"question": {string(text)}})
	return err
}

func (s server) durable(w http.ResponseWriter, req *http.Request) {
	var q Durable
	err := json.Unmarshal([]byte(req.FormValue("question")), &q)
	accept(w) // not before the body is read: the header would close it
	syncer, ok := s.r.(Syncer)
	switch {
	case err != nil:
		err = fmt.Errorf("read question: %w", err)
	case !ok:
		err = errNoVolume
	default:
		err = syncer.Durable(req.Context(), q)
	}
	if req.Context().Err() != nil {
		return // this daemon ends: an answer that is cut off has the next one asked
	}
	answer(w, []struct{}{}, err)
}
