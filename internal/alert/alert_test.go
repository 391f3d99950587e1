package alert

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"slipway/internal/config"
	"slipway/internal/control"
	"slipway/internal/health"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// daemon is a Reporter that says what a test wants.
type daemon struct {
	control.Reporter
	mu     sync.Mutex
	status []control.Status
	err    error
}

func (d *daemon) Status(context.Context) ([]control.Status, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	list := slices.Clone(d.status)
	for i := range list {
		list[i].Alarms, list[i].Warnings = slices.Clone(list[i].Alarms), slices.Clone(list[i].Warnings)
	}
	return list, d.err
}

func (d *daemon) change(what func(s *control.Status)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	what(&d.status[0])
}

func well() *daemon {
	return &daemon{status: []control.Status{{
		Volume: "projects", Node: "alpha", HeadBatch: 7, Sender: control.SenderStatus{Node: "alpha", Term: 1, Reason: "the owner sends"},
		Stores: []control.StoreStatus{{Name: "cache1", Kind: "cache", Batch: 7, State: "ok"}},
	}}}
}

func watch(t *testing.T, d *daemon, state string, hooks config.Hooks, beat config.Heartbeat) *Watcher {
	return New(Options{Reporter: d, Health: &health.Judge{}, Hooks: hooks, Heartbeat: beat, State: state, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
}

func behind(store string) control.Alarm {
	return control.Alarm{Event: control.BehindRPO, Level: control.LevelError, Store: store, Message: "behind rpo 30s: " + store}
}

// told looks, and returns what each hook would be told.
func told(t *testing.T, w *Watcher) (list []string) {
	w.lookOnce(t.Context())
	for _, event := range events {
		if r := w.runners[event]; r != nil {
			for _, n := range r.take() {
				list = append(list, strings.Join([]string{n.Event, n.Volume, n.Node, n.Store, n.Message}, "|"))
			}
		}
	}
	return list
}

var all = config.Hooks{Stalled: []string{"x"}, BehindRPO: []string{"x"}, VerificationFailed: []string{"x"}, Takeover: []string{"x"}, Recovered: []string{"x"}}

// TestOnce: what goes wrong is told when it begins, and not again while it lasts, comes and goes, or the daemon is started again; its end after it
// has stayed away for five minutes.
func TestOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, state := well(), t.TempDir()
		w := watch(t, d, state, all, config.Heartbeat{})
		expect := func(when string, want ...string) {
			t.Helper()
			if diff := cmp.Diff(want, told(t, w)); diff != "" {
				t.Errorf("%s: %s", when, diff)
			}
		}
		late := func(stores ...string) {
			d.change(func(s *control.Status) {
				s.Alarms = nil
				for _, store := range stores {
					s.Alarms = append(s.Alarms, behind(store))
				}
			})
		}
		expect("all is well")
		late("cache1")
		expect("it begins", "behind_rpo|projects|alpha|cache1|behind rpo 30s: cache1")
		for range 10 { // flaps: each time for less than five minutes
			<-time.After(time.Second)
			expect("it lasts")
			late()
			expect("it is away")
			<-time.After(calm - time.Second)
			expect("it is away for long")
			late("cache1")
			expect("it is back")
		}
		late("cache1", "cache2")
		expect("another store", "behind_rpo|projects|alpha|cache2|behind rpo 30s: cache2")
		w = watch(t, d, state, all, config.Heartbeat{})
		expect("the daemon was started again")
		<-time.After(calm)
		late()
		expect("over at last, though nobody looked for long")
		<-time.After(calm)
		expect("and told", "recovered|projects|alpha|cache1|over: behind rpo 30s: cache1", "recovered|projects|alpha|cache2|over: behind rpo 30s: cache2")
		late("cache1")
		expect("it begins anew", "behind_rpo|projects|alpha|cache1|behind rpo 30s: cache1")
		d.change(func(s *control.Status) { s.Alarms[0].Level = control.LevelWarning; s.Alarms[0].Store = "cache3" })
		expect("what only warns is told to nobody")
	})
}

// TestStalled: the judgement is the one of /readyz.
func TestStalled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := well()
		w := watch(t, d, t.TempDir(), all, config.Heartbeat{})
		d.change(func(s *control.Status) {
			s.Stores[0] = control.StoreStatus{Name: "cache1", LagBatches: 2, State: "down", Error: "refused"}
		})
		if got := told(t, w); got != nil {
			t.Errorf("at once: %q", got)
		}
		<-time.After(health.StallAfter)
		want := "stalled|projects|alpha||volume projects has not moved for 1m0s: cache1 lags 2 batches, down: refused"
		if got := told(t, w); !slices.Equal(got, []string{want}) {
			t.Errorf("after a minute: %q", got)
		}
		<-time.After(time.Hour)
		if got := told(t, w); got != nil {
			t.Errorf("after an hour: %q", got)
		}
	})
}

// TestTakeover: another sender under a higher term is told, also one that came while the daemon was down; the first sight of a volume, a lower term
// and the same node again are not.
func TestTakeover(t *testing.T) {
	d, state := well(), t.TempDir()
	w := watch(t, d, state, all, config.Heartbeat{})
	sends := func(node string, term uint32) []string {
		d.change(func(s *control.Status) {
			s.Sender = control.SenderStatus{Node: node, Term: term, Reason: "alpha is silent"}
		})
		return told(t, w)
	}
	if got := sends("alpha", 1); got != nil {
		t.Errorf("first sight: %q", got)
	}
	if got := sends("", 0); got != nil {
		t.Errorf("not known: %q", got)
	}
	want := []string{"takeover|projects|alpha||bravo sends projects in the place of alpha, term 2: alpha is silent"}
	if got := sends("bravo", 2); !slices.Equal(got, want) {
		t.Errorf("bravo took over: %q", got)
	}
	if got := append(sends("bravo", 2), append(sends("alpha", 1), sends("bravo", 3)...)...); got != nil {
		t.Errorf("nothing new: %q", got)
	}
	kept, err := os.Stat(w.path())
	must(t, err)
	if got := sends("bravo", 3); got != nil {
		t.Errorf("the same: %q", got)
	}
	if now, err := os.Stat(w.path()); err != nil || !os.SameFile(kept, now) {
		t.Errorf("written again for nothing: %v", err)
	}
	w = watch(t, d, state, all, config.Heartbeat{})
	if got := sends("charlie", 4); len(got) != 1 || !strings.Contains(got[0], "charlie sends projects in the place of bravo") {
		t.Errorf("while the daemon was down: %q", got)
	}
}

// TestFirstSender: the first one seen took nobody's place, and is remembered.
func TestFirstSender(t *testing.T) {
	d, state := well(), t.TempDir()
	for _, c := range []struct {
		node string
		term uint32
		told bool
	}{{"", 0, false}, {"alpha", 1, false}, {"bravo", 2, true}} {
		w := watch(t, d, state, all, config.Heartbeat{}) // the daemon is started again each time
		d.change(func(s *control.Status) { s.Sender = control.SenderStatus{Node: c.node, Term: c.term} })
		if got := told(t, w); (got != nil) != c.told {
			t.Errorf("%q sends: %q", c.node, got)
		}
	}
}

// TestMemory: a file that cannot be read is said once, and what lasts is told again; no file is no fault.
func TestMemory(t *testing.T) {
	for text, says := range map[string]string{
		"":               "",
		`{"format":1}`:   "",
		"nonsense":       "invalid character",
		`{"format":2}`:   "format 2 is not known",
		"a directory":    "is a directory",
		`{"format":"1"}`: "cannot unmarshal",
	} {
		d, w, log := recorded(t, t.TempDir())
		switch text {
		case "":
		case "a directory":
			must(t, os.Mkdir(w.path(), 0o700))
		default:
			must(t, os.WriteFile(w.path(), []byte(text), 0o600))
		}
		d.change(func(s *control.Status) { s.Alarms = []control.Alarm{behind("cache1")} })
		if got := told(t, w); len(got) != 1 {
			t.Errorf("%q: told %q", text, got)
		}
		first, _, _ := strings.Cut(log.String(), "\n")
		if (first == "") != (says == "") || !strings.Contains(first, says) {
			t.Errorf("%q: the log says %q, want %q", text, first, says)
		}
	}
}

// TestNotKept: a state directory that cannot be written is said once, until it can.
func TestNotKept(t *testing.T) {
	state := filepath.Join(t.TempDir(), "state")
	d, w, log := recorded(t, state)
	for i, want := range []int{1, 1, 1, 1, 2} {
		switch i {
		case 2:
			must(t, os.Mkdir(state, 0o700))
		case 4:
			must(t, os.RemoveAll(state))
		}
		d.change(func(s *control.Status) { s.Alarms = append(s.Alarms, behind(fmt.Sprint("cache", i))) })
		if got := told(t, w); len(got) != 1 {
			t.Errorf("%d: told %q", i, got)
		}
		if got := strings.Count(log.String(), "is not written down"); got != want {
			t.Errorf("%d: said %d times, want %d: %s", i, got, want, log)
		}
	}
}

func recorded(t *testing.T, state string) (*daemon, *Watcher, *bytes.Buffer) {
	d, log := well(), &bytes.Buffer{}
	w := watch(t, d, state, all, config.Heartbeat{})
	w.opt.Log = slog.New(slog.NewTextHandler(log, nil))
	return d, w, log
}

// TestSilentDaemon: nothing begins, and nothing ends, while the daemon says nothing; a file that cannot be read is no obstacle.
func TestSilentDaemon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := well()
		w := watch(t, d, t.TempDir(), all, config.Heartbeat{})
		d.change(func(s *control.Status) { s.Alarms = []control.Alarm{behind("cache1")} })
		if got := told(t, w); len(got) != 1 {
			t.Fatalf("told %q", got)
		}
		d.mu.Lock()
		d.err, d.status = errors.New("stuck"), nil
		d.mu.Unlock()
		for range 3 {
			<-time.After(calm)
			if got := told(t, w); got != nil {
				t.Errorf("a silent daemon: %q", got)
			}
		}
	})
}
