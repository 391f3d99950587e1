package health

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"slipway/internal/control"
)

// TestAmend: a volume that does not move has an alarm, one that moves has none; what only warns of the rpo is no problem.
func TestAmend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j Judge
		list := func() []control.Status {
			return []control.Status{{Volume: "media"}, {Volume: "projects", Stores: []control.StoreStatus{{Name: "cache1", LagBatches: 1, State: "ok"}}}}
		}
		j.Amend(list())
		<-time.After(StallAfter)
		got := list()
		j.Amend(got)
		if len(got[0].Alarms) != 0 || len(got[1].Alarms) != 1 || got[1].Alarms[0].Event != control.Stalled {
			t.Errorf("%+v", got)
		}
		got[0].Warn(control.Alarm{Event: control.BehindRPO, Level: control.LevelWarning, Message: "mild"})
		got[0].Warn(control.Alarm{Event: control.BehindRPO, Level: control.LevelError, Message: "bad"})
		got[0].Warnings = append(got[0].Warnings, "one recipient only")
		got[1].Stores[0].State, got[1].Stores[0].Error = "full", "no room"
		want := []string{"bad", "one recipient only", got[1].Alarms[0].Message, "cache1 is full: no room"}
		if why := Problems(got, nil); !slices.Equal(why, want) {
			t.Errorf("problems %q", why)
		}
	})
	told := []control.Status{{Warnings: []string{"no room", "else"}, Stores: []control.StoreStatus{{Name: "cache1", State: "full", Error: "no room; make some"}}}}
	if why := Problems(told, nil); !slices.Equal(why, []string{"else", "cache1 is full: no room; make some"}) {
		t.Errorf("told twice: %q", why)
	}
	if why := Problems(nil, errors.New("stuck")); !slices.Equal(why, []string{"the daemon does not answer: stuck"}) {
		t.Errorf("problems %q", why)
	}
}

// TestBacklog: what is on its way, and what is where it should be.
func TestBacklog(t *testing.T) {
	store := func(lag int64, state, fault string) control.Status {
		return control.Status{Stores: []control.StoreStatus{{Name: "cache1", LagBatches: lag, State: state, Error: fault}}}
	}
	files := control.PendingStatus{Files: 2}
	for _, c := range []struct {
		status control.Status
		want   string
	}{
		{control.Status{Journal: control.JournalStatus{Head: 9, Sealed: 8}, Pending: files}, "not sealed: 2 files"},
		{control.Status{Journal: control.JournalStatus{Head: 9, Sealed: 8}}, ""},                 // of what is excluded
		{control.Status{Journal: control.JournalStatus{Head: 9, Sealed: 9}, Pending: files}, ""}, // held open, unchanged
		{store(0, "down", "refused"), ""}, {store(1, "waiting", ""), ""}, {store(1, "sending", ""), "cache1 lags 1 batch, sending"}, {store(2, "down", "no route"), "cache1 lags 2 batches, down: no route"},
	} {
		if got := strings.Join(backlog(&c.status), "; "); got != c.want {
			t.Errorf("%+v: %q, want %q", c.status, got, c.want)
		}
	}
	for state, want := range map[string]bool{"down": true, "full": true, "refused": true, "ok": false, "waiting": false, "sending": false, "unchecked": false} {
		if Wrong(state) != want {
			t.Errorf("%s: %v", state, !want)
		}
	}
	for fault, want := range map[string]bool{"no room; make some": true, "no route": false, "": false} {
		if got := Told("no room", []control.StoreStatus{{State: "full", Error: fault}}); got != want {
			t.Errorf("%q: %v", fault, got)
		}
	}
	if Told("no room", []control.StoreStatus{{State: "ok", Error: "no room"}}) || Told("", []control.StoreStatus{{State: "full"}}) {
		t.Error("what no store's state says counts as told")
	}
}

// TestSlowLine: a large batch on a slow line moves as long as its rate is measured; the last rate of a shipper that has died does not.
func TestSlowLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j Judge
		list := func(rate float64) []control.Status {
			return []control.Status{{Volume: "projects", Stores: []control.StoreStatus{{Name: "vault1", LagBatches: 1, Rate: rate}}}}
		}
		for rate := range 20 {
			if why := j.Stalled(list(1e6+float64(rate)), time.Now()); len(why) != 0 {
				t.Fatalf("while bytes go: %q", why)
			}
			<-time.After(StallAfter / 4)
		}
		for range 6 {
			j.Stalled(list(1e6), time.Now())
			<-time.After(StallAfter / 4)
		}
		if why := j.Stalled(list(1e6), time.Now()); len(why) != 1 {
			t.Errorf("nothing measures the rate any more: %q", why)
		}
	})
}
