// Package health judges from what a daemon reports whether it gets on, and whether all is well. The status page, the metrics, the hooks and
// the heartbeat share one Judge, so that they never say different things.
//
// It keeps nothing on disk: after a crash nothing is stalled until a minute has passed without a move.
package health

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/dustin/go-humanize/english"

	"slipway/internal/control"
)

// StallAfter is how long something may wait to be sealed or sent without anything moving.
const StallAfter = time.Minute

// Judge remembers of each volume when it last moved. Safe for concurrent use; the zero value is ready.
type Judge struct {
	mu   sync.Mutex
	seen map[string]seen
}

type seen struct {
	mark  string
	moved time.Time // or had nothing to do
}

// Step takes note of the present state.
func (j *Judge) Step(list []control.Status, now time.Time) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.seen == nil {
		j.seen = map[string]seen{}
	}
	for i := range list {
		s := &list[i]
		if mark := markOf(s); mark != j.seen[s.Volume].mark || len(backlog(s)) == 0 {
			j.seen[s.Volume] = seen{mark, now}
		}
	}
}

// Stalled says in words what does not move; nothing where all does.
func (j *Judge) Stalled(list []control.Status, now time.Time) []string {
	j.Step(list, now)
	var why []string
	for i := range list {
		if text := j.stalled(&list[i], now); text != "" {
			why = append(why, text)
		}
	}
	return why
}

// Amend adds to each status the alarm that its volume does not move.
func (j *Judge) Amend(list []control.Status) {
	now := time.Now()
	j.Step(list, now)
	for i := range list {
		if text := j.stalled(&list[i], now); text != "" {
			list[i].Alarms = append(list[i].Alarms, control.Alarm{Event: control.Stalled, Level: control.LevelError, Message: text})
		}
	}
}

func (j *Judge) stalled(s *control.Status, now time.Time) string {
	j.mu.Lock()
	defer j.mu.Unlock()
	still := now.Sub(j.seen[s.Volume].moved)
	if still < StallAfter {
		return ""
	}
	return fmt.Sprintf("volume %s has not moved for %s: %s", s.Volume, still.Round(time.Second), strings.Join(backlog(s), "; "))
}

// markOf changes whenever something was sealed or delivered, and while bytes go: on a slow line a batch takes long. A rate is measured, so
// that it is hardly twice the same but when nobody measures it any more.
func markOf(s *control.Status) string {
	var b strings.Builder
	fmt.Fprint(&b, s.Epoch, s.Journal.Sealed, s.HeadBatch, s.Sender.Term, s.Sender.Batch, s.Sender.Shards)
	for _, st := range s.Stores {
		fmt.Fprint(&b, " ", st.Batch, ":", st.Rate)
	}
	return b.String()
}

// backlog says what is on its way. What waits for a condition that the operator has set does not count: it is where it should be.
func backlog(s *control.Status) []string {
	var list []string
	if s.Journal.Head > s.Journal.Sealed && s.Pending.Files > 0 {
		list = append(list, "not sealed: "+english.Plural(int(s.Pending.Files), "file", ""))
	}
	for _, st := range s.Stores {
		if st.LagBatches > 0 && st.State != "waiting" {
			text := fmt.Sprintf("%s lags %s, %s", st.Name, english.Plural(int(st.LagBatches), "batch", ""), st.State)
			if st.Error != "" {
				text += ": " + st.Error
			}
			list = append(list, text)
		}
	}
	return list
}

// Problems say all that is wrong, in the daemon's own words; none: all is well. An alarm that only warns is no problem yet.
func Problems(list []control.Status, err error) []string {
	var why []string
	say := func(text string) {
		if !slices.Contains(why, text) {
			why = append(why, text)
		}
	}
	if err != nil {
		say(fmt.Sprintf("the daemon does not answer: %v", err))
	}
	for i := range list {
		s := &list[i]
		mild := map[string]bool{}
		for _, a := range s.Alarms {
			if a.Level == control.LevelError {
				say(a.Message)
			} else {
				mild[a.Message] = true
			}
		}
		for _, w := range s.Warnings {
			if !mild[w] && !Told(w, s.Stores) {
				say(w)
			}
		}
		for _, st := range s.Stores {
			if Wrong(st.State) {
				say(fmt.Sprintf("%s is %s: %s", st.Name, st.State, st.Error))
			}
		}
	}
	return why
}

// Told tells whether a warning is what a store's error says already.
func Told(warning string, stores []control.StoreStatus) bool {
	return slices.ContainsFunc(stores, func(st control.StoreStatus) bool {
		return st.Error != "" && Wrong(st.State) && strings.HasPrefix(st.Error, warning)
	})
}

// Wrong tells states of a store that want an operator.
func Wrong(state string) bool { return state == "down" || state == "full" || state == "refused" }
