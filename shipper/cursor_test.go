package shipper

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"slipway/internal/batch"
	"slipway/internal/config"
	"slipway/internal/control"
	"slipway/internal/intake"
	"slipway/internal/store"
)

// TestTransitionsAreDocumented compares docs/sending.md with the code.
func TestTransitionsAreDocumented(t *testing.T) {
	data, err := os.ReadFile("../docs/sending.md")
	must(t, err)
	_, table, _ := strings.Cut(string(data), "<!-- transitions -->")
	table, _, found := strings.Cut(table, "<!-- end -->")
	if !found {
		t.Fatal("docs/sending.md has no table of transitions")
	}
	documented := map[string][]string{}
	for _, row := range regexp.MustCompile(`(?m)^\| (\w+) \| ([\w, ]+) \|$`).FindAllStringSubmatch(table, -1) {
		if row[1] != "from" {
			documented[row[1]] = strings.Split(row[2], ", ")
		}
	}
	for from, to := range transitions {
		var names []string
		for _, s := range to {
			names = append(names, s.String())
		}
		slices.Sort(names)
		slices.Sort(documented[from.String()])
		if !slices.Equal(names, documented[from.String()]) {
			t.Errorf("from %s: the code has %v, the document %v", from, names, documented[from.String()])
		}
	}
	if len(documented) != len(transitions) || len(transitions) != len(stateNames) {
		t.Errorf("%d states documented, %d have transitions, %d have names", len(documented), len(transitions), len(stateNames))
	}
}

func TestIllegalTransitionIsLogged(t *testing.T) {
	c := queueOf(t, time.Now(), nil, time.Hour)
	log := c.s.log.Handler().(*recorder)
	c.enter(Idle)
	if log.find("illegal") != 0 {
		t.Error("looking → idle is called illegal")
	}
	c.enter(Waiting)
	if log.find("illegal") != 1 {
		t.Error("idle → waiting was not noticed")
	}
}

// walk steps a cursor and returns the states it was in.
func (c *cacheHost) walk(p *primary, host string, steps int) (states []string) {
	c.t.Helper()
	s := c.start()
	ctx := context.Background()
	s.discover(ctx)
	v := s.volumes[p.name]
	_, err := s.arrive(ctx, v)
	must(c.t, err)
	for _, cur := range v.cursors {
		if cur.h.name != host {
			continue
		}
		st := Looking
		for range steps {
			st = cur.step(ctx, st)
			states = append(states, st.String())
		}
	}
	return states
}

// TestWalksTheTable drives a cursor through every state.
func TestWalksTheTable(t *testing.T) {
	two := func(t *testing.T) (*cacheHost, *primary) {
		c, p := newCacheHost(t, "vault1"), newPrimary(t, "projects")
		p.put(c.store, p.seal([]int{10}, nil), p.seal(nil, nil))
		return c, p
	}
	t.Run("all is well", func(t *testing.T) {
		c, p := two(t)
		wantStates(t, c.walk(p, "vault1", 3), "sending", "sending", "idle")
	})
	t.Run("a condition", func(t *testing.T) {
		c, p := two(t)
		c.cfg.Ship.When = []config.Condition{{Manual: true}}
		wantStates(t, c.walk(p, "vault1", 1), "holding")
	})
	t.Run("away while looking", func(t *testing.T) {
		c, p := two(t)
		c.hosts["vault1"].setFault(store.ErrTemporary)
		wantStates(t, c.walk(p, "vault1", 2), "waiting", "looking")
	})
	t.Run("away while sending", func(t *testing.T) {
		c, p := two(t)
		c.hosts["vault1"].setBefore(func(context.Context, string) error { return store.ErrTemporary })
		wantStates(t, c.walk(p, "vault1", 4), "sending", "waiting", "looking", "sending")
	})
	t.Run("host key", func(t *testing.T) {
		c, p := two(t)
		c.hosts["vault1"].setFault(store.ErrHostKey)
		wantStates(t, c.walk(p, "vault1", 2), "refused", "looking")
	})
	t.Run("nothing has arrived", func(t *testing.T) {
		c, p := newCacheHost(t, "vault1"), newPrimary(t, "projects")
		must(t, os.Mkdir(filepath.Join(c.cfg.Store, "projects"), 0o770))
		wantStates(t, c.walk(p, "vault1", 1), "idle")
	})
}

func wantStates(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("went %v, want %v", got, want)
	}
}

// TestBackOff: after a fault the host is left alone for longer and longer, and not beyond half a minute.
func TestBackOff(t *testing.T) {
	c, p := newCacheHost(t, "vault1"), newPrimary(t, "projects")
	p.put(c.store, p.seal([]int{10}, nil)) // outside: encoders keep channels
	synctest.Test(t, func(t *testing.T) {
		c.hosts["vault1"].setFault(store.ErrTemporary)
		s := c.start()
		s.discover(t.Context())
		_, err := s.arrive(t.Context(), s.volumes["projects"])
		must(t, err)
		cur := s.volumes["projects"].cursors[0]
		st, last := Looking, time.Now()
		var waits []time.Duration
		for range 40 {
			if st = cur.step(t.Context(), st); st == Looking {
				waits = append(waits, time.Since(last))
				last = time.Now()
			}
		}
		if waits[0] > time.Second {
			t.Errorf("the first wait takes %v", waits[0])
		}
		for _, w := range waits[10:] {
			if w < 5*time.Second || w > 31*time.Second {
				t.Errorf("a late wait takes %v", w)
			}
		}
		c.hosts["vault1"].setFault(nil)
		if st = cur.step(t.Context(), Looking); st != Sending {
			t.Errorf("back again, it is %s", st)
		}
		if cur.step(t.Context(), st); cur.backoff.NextBackOff() > time.Second {
			t.Error("the next fault would wait as long as the last one")
		}
	})
}

// TestHostThatWentBack: a host whose disk was put back, or emptied, is told as such, and filled from the cache or, where that has
// evicted, from another host.
func TestHostThatWentBack(t *testing.T) {
	for _, what := range []string{"older", "empty"} {
		t.Run(what, func(t *testing.T) {
			c := newCacheHost(t, "vault1", "vault2")
			c.cfg.Ship.Keep = 0
			p := newPrimary(t, "projects")
			for range 4 {
				p.put(c.store, p.seal([]int{1000}, nil))
			}
			c.mustOnce()
			c.mustOnce() // evicts
			kept, _ := filepath.Glob(filepath.Join(c.cfg.Store, "projects", "shards", "*", "*"))
			if len(kept) != 0 {
				t.Fatalf("%d shards are still in the cache", len(kept))
			}
			v := filepath.Join(c.hosts["vault2"].dir, "projects")
			if what == "empty" {
				must(t, os.RemoveAll(v))
			} else {
				must(t, os.Remove(filepath.Join(v, p.sealed[2].path())))
				must(t, os.Remove(filepath.Join(v, p.sealed[3].path())))
			}
			b5 := p.seal([]int{500}, nil)
			p.put(c.store, b5)
			c.clock.pass(time.Minute) // long enough without a word
			c.mustOnce()
			c.wantCopy("vault2", p, p.sealed...)
			c.wantHead("projects", "vault2", 5)
			if c.log.find("a backup host has gone back") != 1 {
				t.Error("nobody said so")
			}
			c.wantWentBack("vault2, which had batch 4, was found without it at ")
			c.clock.pass(backShown + time.Second)
			c.wantWentBack("")
			c.noneIllegal()
		})
	}
}

// wantWentBack looks for what status warns of, and no fault of health: all has been sent again.
func (c *cacheHost) wantWentBack(want string) {
	c.t.Helper()
	list, err := c.ship.Status(c.t.Context())
	must(c.t, err)
	if want == "" && len(list[0].Alarms) == 0 {
		return
	}
	if a := list[0].Alarms; want == "" || len(a) != 1 || a[0].Event != control.WentBack || a[0].Level != control.LevelWarning || a[0].Store != "vault2" || !strings.HasPrefix(a[0].Message, want) {
		c.t.Errorf("alarms %+v, want %q", a, want)
	}
}

// TestHostOfAnotherVolume: one name, two ids.
func TestHostOfAnotherVolume(t *testing.T) {
	c := newCacheHost(t, "vault1", "vault2")
	p, other := newPrimary(t, "projects"), newPrimary(t, "projects")
	other.put(c.hosts["vault1"].Store, other.seal(nil, nil))
	b := p.seal([]int{10}, nil)
	p.put(c.store, b)
	if err := c.once(); !errors.Is(err, intake.ErrOtherVolume) {
		t.Errorf("got %v", err)
	}
	c.wantHead("projects", "vault1", 0)
	c.wantHead("projects", "vault2", 1)
	c.wantCopy("vault1", other, other.sealed...)
	st, err := c.ship.Status(context.Background())
	must(t, err)
	if s := st[0].Stores[1]; s.State != "refused" || s.Error == "" {
		t.Errorf("status of vault1: %+v", s)
	}
}

// TestForkOnHost: another batch under one of our numbers is never overwritten and never built upon.
func TestForkOnHost(t *testing.T) {
	c := newCacheHost(t, "vault1")
	p := newPrimary(t, "projects")
	b1, b2 := p.seal(nil, nil), p.seal([]int{10}, nil)
	p.put(c.store, b1)
	c.mustOnce()
	v := store.Sub(c.hosts["vault1"].Store, "projects")
	must(t, v.Publish(context.Background(), b2.path(), append(slices.Clone(b2.File), 'x')))
	p.put(c.store, b2)
	c.start()
	if err := c.once(); !errors.Is(err, errFork) {
		t.Errorf("got %v", err)
	}
	c.wantHead("projects", "vault1", 1)
}

// TestHeadExchangedOnHost: the host's head has the right name, and another content.
func TestHeadExchangedOnHost(t *testing.T) {
	c := newCacheHost(t, "vault1")
	p := newPrimary(t, "projects")
	b1 := p.seal(nil, nil)
	p.put(c.store, b1)
	c.mustOnce()
	must(t, os.WriteFile(filepath.Join(c.hosts["vault1"].dir, "projects", b1.path()), flip(b1.File), 0o660))
	p.put(c.store, p.seal([]int{10}, nil))
	c.start()
	if err := c.once(); !errors.Is(err, errFork) {
		t.Errorf("got %v", err)
	}
	c.wantHead("projects", "vault1", 1)
}

// TestLooksBeforeSendingAfterSilence: a host that was not heard of for a while is looked at before it gets anything; one that
// answered just now is not.
func TestLooksBeforeSendingAfterSilence(t *testing.T) {
	for silence, want := range map[time.Duration]State{time.Second: Sending, time.Minute: Looking} {
		c := newCacheHost(t, "vault1")
		p := newPrimary(t, "projects")
		p.put(c.store, p.seal([]int{10}, nil))
		c.mustOnce()
		v := c.ship.volumes["projects"]
		c.clock.pass(silence)
		p.put(c.store, p.seal([]int{10}, nil))
		_, err := c.ship.arrive(t.Context(), v)
		must(t, err)
		if got := v.cursors[0].step(t.Context(), Idle); got != want {
			t.Errorf("after %v: %s, want %s", silence, got, want)
		}
	}
}

// TestFoundOnHost: what another shipper, or a disk carried there, brought is acknowledged and not sent again.
func TestFoundOnHost(t *testing.T) {
	c := newCacheHost(t, "vault1")
	p := newPrimary(t, "projects")
	for range 5 {
		p.seal([]int{100}, nil)
	}
	p.put(c.store, p.sealed...)
	p.put(c.hosts["vault1"].Store, p.sealed[:3]...)
	c.mustOnce()
	c.wantHead("projects", "vault1", 5)
	if n := c.hosts["vault1"].count(); n != 4 {
		t.Errorf("%d objects were sent, want 4", n)
	}
}

// TestNewEpoch: the same owner may begin one; a stranger only if the owner named it; a fork never.
func TestNewEpoch(t *testing.T) {
	begin := func(t *testing.T) (*cacheHost, *primary, *sealedBatch) {
		c, p := newCacheHost(t, "vault1"), newPrimary(t, "projects")
		bravo := newPrimary(t, "projects")
		b := p.seal(nil, func(e *batch.Envelope) { e.NextKeys = []string{p.key, bravo.key} })
		p.put(c.store, b, p.seal([]int{10}, nil))
		c.mustOnce()
		bravo.id, bravo.epoch, bravo.next, bravo.prev = p.id, 2, 3, p.prev
		bravo.sealed = nil
		return c, bravo, b
	}
	signed := func(t *testing.T, b *sealedBatch) string {
		parsed, err := batch.Parse(b.File)
		must(t, err)
		return parsed.SignedEnvelope()
	}
	t.Run("named", func(t *testing.T) {
		c, bravo, by := begin(t)
		bravo.put(c.store, bravo.seal([]int{20}, func(e *batch.Envelope) { e.NamedBy = signed(t, by) }), bravo.seal(nil, nil))
		c.mustOnce()
		c.wantHead("projects", "vault1", 4)
		if a := c.acks("projects", "vault1"); a.Epoch != 2 {
			t.Errorf("epoch %d, want 2", a.Epoch)
		}
		if c.log.find("a new epoch begins") != 1 {
			t.Error("nobody said so")
		}
		must(t, os.Remove(filepath.Join(c.cfg.State, "volumes", "projects.json")))
		c.start() // the pins alone still tell who may write
		c.mustOnce()
		c.wantHead("projects", "cache1", 4)
		if n := len(c.acks("projects", "cache1").Refused); n != 0 {
			t.Errorf("%d objects were refused", n)
		}
	})
	t.Run("not named", func(t *testing.T) {
		c, bravo, _ := begin(t)
		bravo.put(c.store, bravo.seal([]int{20}, nil))
		c.mustOnce()
		c.wantRefused(batch.Path(2, 3, 3), "owner")
		c.wantHead("projects", "vault1", 2)
	})
	t.Run("named by a stranger", func(t *testing.T) {
		c, bravo, _ := begin(t)
		thief := newPrimary(t, "projects")
		thief.id = bravo.id
		by := thief.seal(nil, func(e *batch.Envelope) { e.NextKeys = []string{bravo.key} })
		bravo.put(c.store, bravo.seal(nil, func(e *batch.Envelope) { e.NamedBy = signed(t, by) }))
		c.mustOnce()
		c.wantRefused(batch.Path(2, 3, 3), "owner")
	})
	t.Run("fork", func(t *testing.T) {
		c, bravo, by := begin(t)
		bravo.next = 2
		bravo.prev = &by.Digest
		bravo.put(c.store, bravo.seal(nil, func(e *batch.Envelope) { e.NamedBy = signed(t, by) }))
		c.mustOnce()
		c.wantRefused(batch.Path(2, 2, 2), "fork")
		c.wantHead("projects", "vault1", 2)
	})
	t.Run("two first batches", func(t *testing.T) {
		c, bravo, by := begin(t)
		good := bravo.seal(nil, func(e *batch.Envelope) { e.NamedBy = signed(t, by) })
		bravo.next, bravo.prev = 2, &by.Digest
		bad := bravo.seal(nil, func(e *batch.Envelope) { e.NamedBy = signed(t, by) })
		bravo.put(c.store, good, bad)
		c.mustOnce()
		c.wantHead("projects", "vault1", 2)
		st, err := c.ship.Status(context.Background())
		must(t, err)
		if !strings.Contains(strings.Join(st[0].Warnings, " "), "two first batches") {
			t.Errorf("warnings: %q", st[0].Warnings)
		}
		must(t, os.Remove(filepath.Join(c.cfg.Store, "projects", bad.path())))
		c.mustOnce()
		c.wantHead("projects", "vault1", 3)
	})
}

// TestTwoShippers on one store, with states of their own, harm nothing; on one state the second is refused.
func TestTwoShippers(t *testing.T) {
	c := newCacheHost(t, "vault1", "vault2")
	p := newPrimary(t, "projects")
	for range 20 {
		p.seal([]int{1000, 2000}, nil)
	}
	p.put(c.store, p.sealed...)
	one := c.start()
	unlock, err := one.begin()
	must(t, err)
	if err := c.start().ShipOnce(t.Context(), false); err == nil {
		t.Error("a second shipper on one state directory went to work")
	}
	unlock()
	cfg := *c.cfg
	cfg.State += "2"
	first := c.start()
	c.cfg = &cfg
	second := c.start()
	errs := make(chan error)
	for _, s := range []*Shipper{first, second} {
		go func() { errs <- s.ShipOnce(context.Background(), false) }()
	}
	for range 2 {
		must(t, <-errs)
	}
	c.wantCopy("vault1", p, p.sealed...)
	c.wantCopy("vault2", p, p.sealed...)
	c.wantHead("projects", "vault1", 20)
}

func TestDown(t *testing.T) {
	for _, class := range []error{store.ErrTemporary, store.ErrFull, store.ErrReadOnly, store.ErrAuth} {
		t.Run(fmt.Sprint(class), func(t *testing.T) {
			c := newCacheHost(t, "vault1", "vault2")
			p := newPrimary(t, "projects")
			c.cfg.Ship.Copies = 1
			b := p.seal([]int{10}, nil)
			p.put(c.store, b)
			c.hosts["vault1"].setBefore(func(context.Context, string) error { return class })
			if err := c.once(); !errors.Is(err, class) {
				t.Errorf("got %v", err)
			}
			c.wantHead("projects", "vault1", 0)
			c.wantHead("projects", "vault2", 1)
			a := c.acks("projects", "vault1")
			full := errors.Is(class, store.ErrFull) || errors.Is(class, store.ErrReadOnly)
			if a.Error == "" || a.Full != full {
				t.Errorf("acks of vault1: %+v", a)
			}
			rows, err := c.ship.Batches(context.Background(), "projects", 1, 10)
			must(t, err)
			if len(rows) != 1 || rows[0].Stage != "stored" || rows[0].Copies != 1 {
				t.Errorf("batches: %+v", rows)
			}
			st, err := c.ship.Status(context.Background())
			must(t, err)
			want := map[error]string{store.ErrTemporary: "down", store.ErrFull: "full", store.ErrReadOnly: "full", store.ErrAuth: "refused"}[class]
			if s := st[0].Stores[1]; s.State != want || s.LagBatches != 1 || s.Error == "" {
				t.Errorf("status of vault1: %+v", s)
			}
			c.hosts["vault1"].setBefore(nil)
			c.mustOnce()
			c.wantCopy("vault1", p, b)
			if a := c.acks("projects", "vault1"); a.Error != "" || a.Full || a.Head != 1 {
				t.Errorf("acks of vault1 afterwards: %+v", a)
			}
			c.noneIllegal()
		})
	}
}
