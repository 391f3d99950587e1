package e2e

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// TestKill kills mount, spooler, shipper and sshd sessions with SIGKILL at random moments while files are written. Afterwards
// everything drains by itself, and what a backup host restores equals the source.
func TestKill(t *testing.T) {
	r := random(t)
	s := newSite(t, siteOptions{inPlace: true})
	s.start()
	load := s.startLoad(r.Uint64())

	victims := []string{"mount process", "spooler", "shipper", "sshd session"}
	shots := count(3, 20)
	open := 0
	for i := range shots * len(victims) {
		victim := victims[i%len(victims)]
		pause(t, time.Duration(100+r.IntN(900))*time.Millisecond)
		underWay := s.batchOpen()
		if underWay {
			open++
		}
		pids := s.shoot(victim, r)
		t.Logf("shot %d: %s %v, batch open: %v, files written: %d", i+1, victim, pids, underWay, load.written.Load())
	}
	load.stop(t)
	if total := shots * len(victims); open*2 < total {
		t.Errorf("%d of %d shots hit with a batch open, want half at least", open, total)
	}
	s.waitMounted()
	s.wait("stored")
	want := snapshot(t, s.mount)
	equal(t, "restored from vault1", want, snapshot(t, s.restore("vault1")))
	equal(t, "restored from vault2", want, snapshot(t, s.restore("vault2")))
	s.stopPrimary()
	equal(t, "source", want, snapshot(t, s.source))
}

// load is an application that writes, renames and removes files all the time.
type load struct {
	pace    time.Duration // between two steps
	big     int           // bytes of one file in ten, twelve times as many of a few; the others have up to 64 KiB
	cancel  context.CancelFunc
	done    chan error
	written atomic.Int64
}

func (s *site) startLoad(seed uint64) *load { return s.startLoadAt(seed, 5*time.Millisecond, 1<<20) }

func (s *site) startLoadAt(seed uint64, pace time.Duration, big int) *load {
	ctx, cancel := context.WithCancel(context.Background())
	l := &load{pace: pace, big: big, cancel: cancel, done: make(chan error, 1)}
	r := rand.New(rand.NewPCG(seed, 1))
	go func() { l.done <- l.run(ctx, s.mount, r) }()
	s.t.Cleanup(cancel)
	return l
}

func (l *load) stop(t *testing.T) {
	t.Helper()
	l.cancel()
	must(t, <-l.done)
	if l.written.Load() == 0 {
		t.Fatal("the load wrote nothing")
	}
}

func (l *load) run(ctx context.Context, dir string, r *rand.Rand) error {
	pace := time.NewTicker(l.pace)
	defer pace.Stop()
	for i := 0; ; i++ {
		select {
		case <-ctx.Done():
			return nil
		case <-pace.C:
		}
		err := l.step(dir, i, r)
		// The mount answers ENOTCONN while it is dead, and files of that moment are where they are.
		if err != nil && !errors.Is(err, syscall.ENOTCONN) && !errors.Is(err, syscall.ECONNABORTED) && !errors.Is(err, syscall.EIO) && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("load, step %d: %w", i, err)
		}
	}
}

func (l *load) step(dir string, i int, r *rand.Rand) error {
	sub := filepath.Join(dir, fmt.Sprintf("d%d", r.IntN(8)))
	if err := os.Mkdir(sub, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	name := filepath.Join(sub, fmt.Sprintf("f%d", r.IntN(200)))
	switch r.IntN(10) {
	case 0:
		return os.Remove(name)
	case 1:
		return os.Rename(name, filepath.Join(dir, fmt.Sprintf("moved%d", r.IntN(50))))
	case 2:
		size := l.big
		if i%50 == 0 {
			size *= 12
		}
		return l.write(name, noise(r, size))
	default:
		return l.write(name, noise(r, 1+r.IntN(64<<10)))
	}
}

func (l *load) write(name string, data []byte) error {
	if err := os.WriteFile(name, data, 0o644); err != nil {
		return err
	}
	l.written.Add(1)
	return nil
}

// batchOpen tells whether something is on its way: files pending, or a store that lags.
func (s *site) batchOpen() bool {
	for _, conf := range []string{s.config, s.cacheCf} {
		for _, row := range s.jsonLines("status", "-c", conf) {
			if p, ok := row["pending"].(map[string]any); ok && p["files"] != 0.0 {
				return true
			}
			stores, _ := row["stores"].([]any)
			for _, x := range stores {
				if st, ok := x.(map[string]any); ok && st["lag_batches"] != 0.0 {
					return true
				}
			}
		}
	}
	return false
}

// shoot kills one victim and sees to it that it comes back as it would in life.
func (s *site) shoot(victim string, r *rand.Rand) []int {
	s.t.Helper()
	var pids []int
	switch victim {
	case "mount process":
		pids = s.child("fusefs")
	case "spooler":
		pids = s.child("spooler")
	case "shipper":
		pids = []int{s.shipper.cmd.Process.Pid}
	case "sshd session":
		s.eventually(20*time.Second, "an sshd session", func() error {
			for _, i := range r.Perm(3) {
				h := s.hosts[[]string{"cache1", "vault1", "vault2"}[i]]
				if live := h.srv.Sessions(); len(live) > 0 {
					pids = []int{live[r.IntN(len(live))]}
					return nil
				}
			}
			return errors.New("no session is open")
		})
	}
	for _, pid := range pids {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			s.t.Fatalf("kill %s %d: %v", victim, pid, err)
		}
	}
	if victim == "shipper" {
		<-s.shipper.done
		s.startShipper()
	}
	return pids
}

// child waits for the supervisor's child that runs a verb, and returns its process id.
func (s *site) child(verb string) []int {
	s.t.Helper()
	var found []int
	s.eventually(20*time.Second, "the "+verb+" process", func() error {
		found = children(s.primary.cmd.Process.Pid, verb)
		if len(found) == 0 {
			return fmt.Errorf("no child runs %s", verb)
		}
		return nil
	})
	return found
}

// children returns the processes below a parent whose command line has a word, or all of them for "".
func children(parent int, verb string) []int {
	var out []int
	dirs, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, file := range dirs {
		stat, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		if len(fields) < 2 || fields[1] != strconv.Itoa(parent) || fields[0] == "Z" {
			continue
		}
		args, err := os.ReadFile(filepath.Join(filepath.Dir(file), "cmdline"))
		if err != nil || verb != "" && !strings.Contains(string(args), "\x00"+verb+"\x00") {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if err == nil {
			out = append(out, pid)
		}
	}
	return out
}

// pause lets the system work for a while between two shots: the moment is what is random here, so there is no event to wait for.
func pause(t *testing.T, d time.Duration) {
	t.Helper()
	timer := time.NewTimer(d)
	defer timer.Stop()
	<-timer.C
}
