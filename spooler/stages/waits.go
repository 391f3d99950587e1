package stages

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"slipway/internal/ack"
	"slipway/internal/batch"
	"slipway/internal/config"
	"slipway/internal/control"
)

// Why says what a batch at a stage waits for, in words, and when it will have come on if nothing else happens; nil: nobody knows.
func (s *Stages) Why(seq batch.Seq, stage control.Stage, now time.Time) (string, *time.Time) {
	switch stage {
	case control.Sealed:
		return "waits for the replica peers" + s.trouble("replica"), nil
	case control.Replicated:
		return "waits for the cache" + s.trouble("cache"), nil
	case control.Cached:
		return s.waits(seq, now)
	case control.Stored:
		return "waits to be read back and compared", nil
	}
	return "", nil
}

// waits says what keeps a cached batch from enough backup hosts: what the cache host's acks say of each that lacks it.
func (s *Stages) waits(seq batch.Seq, now time.Time) (string, *time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	need := s.needLocked()
	if need == 0 {
		return "waits for the cache's shipper, which has not said anything yet", nil
	}
	var reasons []string
	hosts := map[string][]string{} // by reason
	var until []time.Time
	for _, a := range sortedAcks(s.backups) {
		if a.Head >= seq {
			need--
			continue
		}
		why := "has not acknowledged it yet"
		switch {
		case a.Error != "":
			why = "is " + a.Word() + ": " + a.Error
		case a.Waits != nil:
			why = "waits for " + a.Waits.For + " on " + s.cacheAs
			if at := a.Waits.Until; at != nil {
				why += ", in " + config.FormatDuration(max(0, at.Sub(now)).Round(time.Second))
				until = append(until, *at)
			}
		}
		if hosts[why] == nil {
			reasons = append(reasons, why)
		}
		hosts[why] = append(hosts[why], a.Store)
	}
	if len(reasons) == 0 && len(s.backups) > 0 {
		return fmt.Sprintf("waits for %d more backup hosts to acknowledge it", max(need, 1)), nil
	}
	if len(reasons) == 0 {
		return fmt.Sprintf("waits for %d backup hosts to acknowledge it", need), nil
	}
	for i, why := range reasons {
		reasons[i] = strings.Join(hosts[why], ", ") + " " + why
	}
	slices.SortFunc(until, time.Time.Compare)
	if need < 1 || len(until) < need {
		return strings.Join(reasons, "; "), nil
	}
	return strings.Join(reasons, "; "), &until[need-1]
}

// Reached says when a sealed batch came to each stage, as far as acks still tell: the time is the one that the store's own daemon, or the
// shipper, has written down.
func (s *Stages) Reached(seq batch.Seq, sealed time.Time) []control.Reached {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := []control.Reached{{Stage: control.Sealed.String(), At: sealed}}
	add := func(stage control.Stage, a ack.Acks) {
		if at, ok := a.ReachedAt(seq); ok {
			list = append(list, control.Reached{Stage: stage.String(), Store: a.Store, At: at})
		}
	}
	for _, a := range sortedAcks(s.others) {
		if a.Kind == "cache" {
			add(control.Cached, a)
		} else {
			add(control.Replicated, a)
		}
	}
	for _, a := range sortedAcks(s.backups) {
		add(control.Stored, a)
	}
	slices.SortStableFunc(list, func(a, b control.Reached) int { return a.At.Compare(b.At) })
	return list
}

func sortedAcks(m map[string]ack.Acks) []ack.Acks {
	list := make([]ack.Acks, 0, len(m))
	for _, a := range m {
		list = append(list, a)
	}
	slices.SortFunc(list, func(a, b ack.Acks) int { return strings.Compare(a.Store, b.Store) })
	return list
}
