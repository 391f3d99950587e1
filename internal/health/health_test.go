package health

import (
	"errors"
	"slices"
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
