package progress

import (
	"math"
	"testing"
	"time"

	"slipway/internal/batch"
)

// scene is a judge of alpha in epoch 1, term 1, with a clock that the test moves: five seconds each for stale and stalled.
type scene struct {
	t *testing.T
	*Judge
	now time.Time
}

func newScene(t *testing.T) *scene {
	s := &scene{t: t, Judge: &Judge{StaleAfter: 5 * time.Second, StallAfter: 5 * time.Second}, now: time.Unix(1e9, 0)}
	s.Begin("alpha", 1, 1, s.now)
	return s
}

func (s *scene) pass(d time.Duration) { s.now = s.now.Add(d) }

// tell lets a file of alpha's arrive in a store.
func (s *scene) tell(source string, edit func(p *Progress)) {
	p := Progress{Node: "alpha", Run: "first", Epoch: 1, Term: 1, Number: 1, State: Sending, At: s.now}
	edit(&p)
	s.Observe(source, p, s.now)
}

func (s *scene) want(v Verdict) {
	s.t.Helper()
	if got, since, why := s.Verdict(s.now); got != v {
		s.t.Fatalf("%s since %v (%s), want %s", got, since, why, v)
	}
}

func TestNothingExpected(t *testing.T) {
	s := newScene(t)
	s.Expect(s.now, 3, 3)
	s.pass(time.Hour)
	s.want(Healthy)
	if !s.Next(s.now).IsZero() {
		t.Error("time runs")
	}
	s.Expect(s.now, 4, 3) // from here on it does
	s.want(Healthy)
	if next := s.Next(s.now); !next.Equal(s.now.Add(5 * time.Second)) {
		t.Errorf("next at %v", next)
	}
	s.pass(5*time.Second - 1)
	s.want(Healthy)
	s.pass(1)
	s.want(Silent)
	s.Expect(s.now, 4, 4) // it was delivered after all
	s.want(Healthy)
}

func TestSilenceAndStall(t *testing.T) {
	s := newScene(t)
	s.Expect(s.now, 4, 3)
	for i := range uint64(5) { // new files, and nothing delivered
		s.want(Healthy)
		s.tell("own", func(p *Progress) { p.Number = i + 1 })
		s.pass(time.Second)
	}
	s.want(Stalled)
	if _, since, _ := s.Verdict(s.now); !since.Equal(s.now) {
		t.Errorf("stalled since %v", since)
	}
	s.tell("own", func(p *Progress) { p.Number, p.Bytes = 6, 1 })
	s.want(Healthy)
	s.pass(4 * time.Second)
	s.tell("own", func(p *Progress) { p.Number, p.Bytes = 6, 1 }) // the same file again is no news
	s.pass(time.Second)
	s.want(Silent)
}

// TestSlowIsHealthy: one byte, shard or batch a while is enough, for ever.
func TestSlowIsHealthy(t *testing.T) {
	for name, grow := range map[string]func(p *Progress){
		"bytes":   func(p *Progress) { p.Bytes = int64(p.Number) },
		"batches": func(p *Progress) { p.Delivered = batch.Seq(p.Number) },
		"shards":  func(p *Progress) { p.Batch, p.Shards, p.Of = 4, int(p.Number), 1000 },
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			s.Expect(s.now, 4, 3)
			for i := range uint64(100) {
				s.tell("own", func(p *Progress) { p.Number = i + 1; grow(p) })
				s.pass(4900 * time.Millisecond)
				s.want(Healthy)
			}
		})
	}
	s := newScene(t)
	s.Expect(s.now, 1000, 3)
	for i := range batch.Seq(100) { // no file comes here, but the cache gets on
		s.pass(4900 * time.Millisecond)
		s.Expect(s.now, 1000, 4+i)
		s.want(Healthy)
	}
}

func TestReportedError(t *testing.T) {
	s := newScene(t)
	s.Expect(s.now, 4, 3)
	s.tell("own", func(p *Progress) { p.Number, p.Bytes = 1, 10 })
	s.pass(time.Second)
	s.tell("own", func(p *Progress) { p.Number, p.Bytes, p.State, p.Error = 2, 10, Failing, "no route" })
	s.want(Failed) // at once
	failed := s.now
	if !s.Next(s.now).IsZero() {
		t.Error("time decides, though only an observation can")
	}
	for i := range uint64(10) { // words do not clear it: it tries again and again
		s.pass(time.Second)
		s.tell("own", func(p *Progress) { p.Number, p.Bytes = 3+i, 10 })
		s.want(Failed)
	}
	if _, since, why := s.Verdict(s.now); !since.Equal(failed) || why != "it reports: no route" {
		t.Errorf("since %v: %q", since, why)
	}
	s.tell("own", func(p *Progress) { p.Number, p.Bytes = 13, 11 }) // a delivery does
	s.want(Healthy)
}

// TestErrorAndCache: what the cache gets on clears an error that the sender does not report any more, and nothing else.
func TestErrorAndCache(t *testing.T) {
	s := newScene(t)
	s.Expect(s.now, 9, 3)
	s.tell("own", func(p *Progress) { p.State, p.Error = Failing, "no route" })
	s.Expect(s.now, 9, 4)
	s.want(Failed)
	s.tell("own", func(p *Progress) { p.Number = 2 })
	s.want(Failed)
	s.Expect(s.now, 9, 5)
	s.want(Healthy)
	s.tell("own", func(p *Progress) { p.Number, p.State, p.Error = 3, Failing, "no route" })
	s.want(Failed)
	s.Expect(s.now, 9, 2) // a cache that went back, and what it had before once more, are no delivery
	s.tell("own", func(p *Progress) { p.Number = 4 })
	s.Expect(s.now, 9, 4)
	s.want(Failed)
	s.Expect(s.now, 9, 9) // all is there
	s.want(Healthy)
}

// TestForeign: files of another node, epoch or term say nothing of this sender.
func TestForeign(t *testing.T) {
	for name, edit := range map[string]func(p *Progress){
		"node": func(p *Progress) { p.Node = "bravo" }, "epoch": func(p *Progress) { p.Epoch = 2 }, "term": func(p *Progress) { p.Term = 0 },
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			s.Expect(s.now, 4, 3)
			for i := range uint64(5) {
				s.pass(time.Second)
				s.tell("own", func(p *Progress) { p.Number, p.Bytes, p.State = i+1, int64(i), Failing; edit(p) })
			}
			s.want(Silent)
		})
	}
}

// TestForgedNumber: one file beyond all honest numbers, in either direction, holds up the honest ones for StaleAfter/2 at most.
func TestForgedNumber(t *testing.T) {
	s := newScene(t)
	s.Expect(s.now, 4, 3)
	s.tell("own", func(p *Progress) { p.Number, p.Bytes = 1, 1 })
	s.tell("own", func(p *Progress) { p.Number, p.Bytes = math.MaxUint64, 1 })
	s.pass(time.Second)
	s.tell("own", func(p *Progress) { p.Number, p.Bytes, p.State = 2, 1, Failing })
	s.want(Healthy) // not yet: it is the older one of its run
	s.pass(1500 * time.Millisecond)
	s.tell("own", func(p *Progress) { p.Number, p.Bytes, p.State = 3, 1, Failing })
	s.want(Failed)

	s = newScene(t)
	s.Expect(s.now, 4, 3)
	s.tell("own", func(p *Progress) { p.Number, p.Bytes, p.State = math.MaxUint64, math.MaxInt64, Failing }) // a forged error
	s.want(Failed)
	for i := range uint64(3) {
		s.pass(time.Second)
		s.tell("own", func(p *Progress) { p.Number, p.Bytes = 2+i, int64(2+i) })
	}
	s.want(Healthy)
}

// TestDeadSenderInManyCopies: two stores hold copies of different age. Each counts once; reading them in turns keeps nobody alive.
func TestDeadSenderInManyCopies(t *testing.T) {
	s := newScene(t)
	s.Expect(s.now, 4, 3)
	for range 50 {
		s.tell("own", func(p *Progress) { p.Number, p.Bytes = 9, 9 })
		s.tell("cache", func(p *Progress) { p.Number, p.Bytes = 5, 5 })
		s.pass(100 * time.Millisecond)
	}
	s.want(Silent)
}

// TestFallsBehind: a store that gets the same files later than another neither hides an error nor makes one.
func TestFallsBehind(t *testing.T) {
	s := newScene(t)
	s.Expect(s.now, 4, 3)
	for i := range uint64(20) {
		s.tell("own", func(p *Progress) { p.Number, p.Bytes = 10+i, int64(10+i) })
		s.tell("cache", func(p *Progress) { p.Number, p.Bytes, p.State = 1+i, 1, Failing })
		s.pass(time.Second)
		s.want(Healthy)
	}
}

// TestClocks: those inside the files count for nothing, be they decades apart.
func TestClocks(t *testing.T) {
	for name, by := range map[string]time.Duration{"behind": -40 * 365 * 24 * time.Hour, "ahead": 40 * 365 * 24 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			s.Expect(s.now, 4, 3)
			for i := range uint64(10) {
				s.tell("own", func(p *Progress) { p.Number, p.Bytes, p.At = i+1, int64(i), s.now.Add(by) })
				s.pass(time.Second)
				s.want(Healthy)
			}
			s.tell("own", func(p *Progress) { p.Number, p.Bytes, p.State, p.At = 11, 9, Failing, s.now.Add(-by) })
			s.want(Failed)
		})
	}
}

// TestNewRun: a sender that was started again begins its numbers and its bytes anew, with whatever clock.
func TestNewRun(t *testing.T) {
	for name, by := range map[string]time.Duration{"same clock": 0, "set back": -20 * 365 * 24 * time.Hour, "set on": 20 * 365 * 24 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			s.Expect(s.now, 4, 3)
			s.tell("own", func(p *Progress) { p.Number, p.Bytes = 1000, 1<<40 })
			again := func(n uint64, bytes int64, state State) {
				s.pass(time.Second)
				s.tell("own", func(p *Progress) { p.Run, p.Number, p.Bytes, p.State, p.At = "second", n, bytes, state, s.now.Add(by) })
			}
			for i := range uint64(20) {
				again(i+1, int64(i), Sending)
				s.want(Healthy)
			}
			again(21, 19, Failing)
			again(22, 19, Failing)
			s.want(Failed)
			again(23, 20, Sending)
			s.want(Healthy)
		})
	}
	s := newScene(t) // a process that dies and comes back without delivering stalls, however often
	s.Expect(s.now, 4, 3)
	for i := range 5 {
		s.tell("own", func(p *Progress) { p.Run, p.Bytes = string(rune('a'+i)), int64(100+i) })
		s.pass(time.Second)
	}
	s.want(Stalled)
}

// TestBegin: another term begins with a clean sheet; the same again changes nothing.
func TestBegin(t *testing.T) {
	s := newScene(t)
	s.Expect(s.now, 4, 3)
	s.tell("own", func(p *Progress) { p.State = Failing })
	s.Begin("alpha", 1, 1, s.now)
	s.want(Failed)
	s.Begin("alpha", 1, 2, s.now)
	s.Expect(s.now, 4, 3)
	s.want(Healthy)
	s.tell("own", func(p *Progress) { p.State = Failing }) // of the term before
	s.pass(5 * time.Second)
	s.want(Silent)
	s.tell("own", func(p *Progress) { p.Term = 2 })
	s.want(Stalled)
}

// TestCopyCatchesUp: the copy on the cache lags behind the one in the observer's own store. That it catches up is no delivery.
func TestCopyCatchesUp(t *testing.T) {
	s := newScene(t)
	s.Expect(s.now, 4, 3)
	s.tell("cache", func(p *Progress) { p.Number, p.Bytes = 1, 1 })
	s.tell("own", func(p *Progress) { p.Number, p.Bytes = 5, 500 })
	for i := range uint64(5) {
		s.pass(time.Second)
		s.tell("own", func(p *Progress) { p.Number, p.Bytes = 6+i, 500 })
		s.tell("cache", func(p *Progress) { p.Number, p.Bytes = 2+i, int64(100*i) })
	}
	s.want(Stalled)
}
