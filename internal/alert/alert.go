// Package alert tells the outside when something begins to go wrong at a daemon: it runs the operator's commands (`hooks:`) and asks for an
// address as long as all is well (`heartbeat:`).
//
// Like the status page it asks the daemon's control.Reporter, so that it knows nothing that status does not say, and the daemon's work never
// waits for it. What was told is kept in <state>/alerts.json.
//
// After a crash: alerts.json is written before a command is run, so what it holds is not told again as long as it lasts, and a command that
// restarts the daemon is not run by what it caused itself. One that was running is lost.
package alert

import (
	"context"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"slipway/internal/config"
	"slipway/internal/control"
	"slipway/internal/health"
	"slipway/internal/loop"
)

const (
	// lookEvery is the pause between two looks at what the daemon says.
	lookEvery = 5 * time.Second
	// answerWithin bounds how long a daemon may take to answer for itself.
	answerWithin = 5 * time.Second
)

// Options of a Watcher.
type Options struct {
	Reporter  control.Reporter
	Health    *health.Judge // shared with the status page
	Hooks     config.Hooks
	Heartbeat config.Heartbeat
	State     string // the state directory
	Log       *slog.Logger
}

// Watcher follows one daemon.
type Watcher struct {
	opt     Options
	runners map[string]*runner // by event
	beat    *heartbeat

	mu     sync.Mutex // guards what follows
	memory *memory
	unkept string // why the memory could not be written
}

// New prepares a Watcher. Nothing is started.
func New(opt Options) *Watcher {
	w := &Watcher{opt: opt, runners: map[string]*runner{}, beat: newHeartbeat(opt.Heartbeat)}
	for event, command := range map[string][]string{
		control.Stalled: opt.Hooks.Stalled, control.BehindRPO: opt.Hooks.BehindRPO, control.VerificationFailed: opt.Hooks.VerificationFailed,
		control.Takeover: opt.Hooks.Takeover, control.Recovered: opt.Hooks.Recovered,
	} {
		if len(command) > 0 {
			w.runners[event] = newRunner(event, command, opt.Log)
		}
	}
	return w
}

// Run looks, tells and beats until ctx ends.
func (w *Watcher) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	if len(w.runners) > 0 {
		group.Go(func() error {
			return loop.Every(ctx, lookEvery, nil, func() time.Duration { w.lookOnce(ctx); return 0 })
		})
	}
	for _, r := range w.runners {
		group.Go(func() error {
			return loop.Every(ctx, time.Hour, r.wake, func() time.Duration { return r.runOnce(ctx) })
		})
	}
	if w.opt.Heartbeat.URL != "" {
		group.Go(func() error {
			return loop.Every(ctx, w.opt.Heartbeat.Every, nil, func() time.Duration { w.beatOnce(ctx); return 0 })
		})
	}
	return group.Wait()
}

// lookOnce is the step: it asks the daemon, and hands over what has begun or ended since.
func (w *Watcher) lookOnce(ctx context.Context) {
	list, err := w.status(ctx)
	if err != nil {
		return // a daemon that does not answer tells nothing new; the heartbeat ends
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.memory == nil {
		w.memory, err = recall(w.path())
		if err != nil {
			w.opt.Log.Warn("what hooks have told is not known: what lasts is told again", "error", err)
		}
	}
	news, changed := w.memory.step(list, time.Now())
	if changed {
		w.keepLocked()
	}
	for _, n := range news {
		if r := w.runners[n.Event]; r != nil {
			r.put(n)
		}
	}
}

// keepLocked writes down what was told.
func (w *Watcher) keepLocked() {
	said := ""
	if err := w.memory.keep(w.path()); err != nil {
		said = err.Error()
	}
	if said != "" && said != w.unkept {
		w.opt.Log.Warn("what hooks have told is not written down: the daemon will tell it again when it is restarted", "error", said)
	}
	w.unkept = said
}

func (w *Watcher) path() string { return filepath.Join(w.opt.State, "alerts.json") }

// status asks the daemon, and adds what does not move.
func (w *Watcher) status(ctx context.Context) ([]control.Status, error) {
	ctx, stop := context.WithTimeout(ctx, answerWithin)
	defer stop()
	list, err := w.opt.Reporter.Status(ctx)
	w.opt.Health.Amend(list)
	return list, err
}

// Amend adds to a daemon's status what of the telling itself has failed. It concerns no single volume, so the first one says it.
func (w *Watcher) Amend(list []control.Status) {
	if len(list) == 0 {
		return
	}
	w.amendHooks(list)
	if text := w.beat.failure(); text != "" {
		list[0].Warnings = append(list[0].Warnings, text)
	}
}

func (w *Watcher) amendHooks(list []control.Status) {
	for _, event := range events {
		if r := w.runners[event]; r != nil && len(list) > 0 {
			if text := r.failure(); text != "" {
				list[0].Warnings = append(list[0].Warnings, text)
			}
		}
	}
}

var events = []string{control.Stalled, control.BehindRPO, control.VerificationFailed, control.Takeover, control.Recovered}
