package supervisor

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

// TestSpoolerVerdict: a spooler is started again whatever ends it, unless the volume is not this node's any more.
func TestSpoolerVerdict(t *testing.T) {
	for _, code := range []int{-1, 0, 1, ExitConfig, 5} {
		if final, err := spoolerVerdict(code); final || err != nil {
			t.Errorf("exit code %d: %v %v", code, final, err)
		}
	}
	if final, err := spoolerVerdict(ExitSuperseded); !final || !errors.Is(err, ErrSuperseded) {
		t.Errorf("superseded: %v %v", final, err)
	}
}

// TestPeer: a peer beside the volume is started again when it is killed, has no descriptor of the source, and ends with the mount; one
// that refuses its configuration is left alone, and the volume goes on.
func TestPeer(t *testing.T) {
	s := newSetting(t, "serve", "serve")
	s.PeerArgs = []string{"slipway", "child", "peer", s.notes, "serve"}
	stop, _ := run(t, s)
	awaitLives(t, s, 1)
	peers := func() map[int]life { return lives(t, s.notes, "peer") }
	eventually(t, "the peer is there", func() bool { return len(peers()) == 1 })
	killAll(t, peers())
	eventually(t, "the peer is there again", func() bool { return len(peers()) == 2 })
	if n := len(lives(t, s.notes, "spooler")); n != 1 {
		t.Errorf("%d spoolers were started", n)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	ended := 0
	for pid, l := range peers() {
		if len(l.Source) > 0 || isRunning(pid) {
			t.Errorf("peer: %+v", l)
		}
		if l.Ended {
			ended++
		}
	}
	if ended != 1 {
		t.Errorf("%d peers were asked to end, and did", ended)
	}

	s = newSetting(t, "serve", "serve")
	s.PeerArgs = []string{"slipway", "child", "peer", s.notes, "exit 2"}
	stop, _ = run(t, s)
	awaitLives(t, s, 1)
	eventually(t, "the peer is there", func() bool { return len(peers()) == 1 })
	let(t, s)
	killAll(t, lives(t, s.notes, "spooler"))
	eventually(t, "the spooler is there again", func() bool { return len(lives(t, s.notes, "spooler")) == 2 })
	if n := len(peers()); n != 1 {
		t.Errorf("a peer that refuses its configuration was started %d times", n)
	}
	if err := stop(); !errors.Is(err, ErrPeerConfig) {
		t.Errorf("the end: %v", err)
	}
}

// TestChildrenAreSilent: systemd hears the supervisor alone.
func TestChildrenAreSilent(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "/run/systemd/notify")
	t.Setenv("WATCHDOG_USEC", "1000000")
	t.Setenv("SLIPWAY_LOG_LEVEL", "debug")
	env := environment()
	for _, e := range env {
		if strings.HasPrefix(e, "NOTIFY_SOCKET=") || strings.HasPrefix(e, "WATCHDOG_") {
			t.Errorf("a child gets %s", e)
		}
	}
	if !slices.Contains(env, "SLIPWAY_LOG_LEVEL=debug") {
		t.Error("and nothing else is taken away")
	}
}
