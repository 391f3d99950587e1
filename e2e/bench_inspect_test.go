//go:build bench

package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"slipway/internal/control"
)

// TestBenchInspect: what commands, page and metrics take that only read this node's state, with many files in the catalog and many
// batches in the store; with daemons running, then stopped, then dead.
// Everything lies in memory: what a disk takes would hide the rest.
func TestBenchInspect(t *testing.T) {
	memory := t.TempDir()
	must(t, syscall.Mount("none", memory, "tmpfs", 0, "size=16g,nr_inodes=8m"))
	t.Cleanup(func() { must(t, syscall.Unmount(memory, 0)) })
	t.Run("in memory", func(t *testing.T) {
		t.Setenv("TMPDIR", memory)
		benchInspect(t)
	})
}

func benchInspect(t *testing.T) {
	files, batches := count(100_000, 1_000_000), count(1000, 10_000)
	s := newSite(t, siteOptions{plain: true, vaults: []string{"vault1"}, primary: "batch_interval: 1ms\nsettle: 0s\nhttp: {listen: \"127.0.0.1:0\"}"})
	manyFiles(t, s.source, files)
	s.start()
	s.wait("sealed")
	s.manyBatches(uint64(batches))
	s.wait("stored")
	rows := [][]string{{"", "running", "stopped", "dead"}}
	questions := s.questions(batches)
	running := s.ask(questions)
	page := s.pageOf(s.primary)
	scrapes := map[string]time.Duration{"scrape of /metrics": timeToGet(t, page+"metrics"), "the page's look-up of batches": timeToGet(t, page+"batches?volume=projects")}
	stopped := s.askStopped(questions)
	s.stopPrimary()
	s.shipper.stop(t)
	dead := s.ask(questions)
	for i, q := range questions {
		rows = append(rows, []string{q.name, millis(running[i]), millis(stopped[i]), millis(dead[i])})
		if slow := max(running[i], stopped[i], dead[i]); slow > 200*time.Millisecond {
			t.Errorf("%s takes %v, want at most 200 ms", q.name, slow)
		}
	}
	for name, d := range scrapes {
		rows = append(rows, []string{name, millis(d), "", ""})
		if d > 50*time.Millisecond {
			t.Errorf("%s takes %v, want at most 50 ms", name, d)
		}
	}
	table(t, fmt.Sprintf("%d files in the catalog, %s batches in the store; medians of 9, whole processes", files, s.head()), rows...)
}

func millis(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000) }

// manyFiles makes small files, 1,000 a directory.
func manyFiles(t *testing.T, dir string, n int) {
	t.Helper()
	var g errgroup.Group
	g.SetLimit(runtime.NumCPU())
	for from := 0; from < n; from += 1000 {
		g.Go(func() error {
			sub := filepath.Join(dir, fmt.Sprintf("d%06d", from))
			if err := os.Mkdir(sub, 0o755); err != nil {
				return err
			}
			for i := from; i < min(n, from+1000); i++ {
				if err := os.WriteFile(filepath.Join(sub, fmt.Sprintf("f%07d", i)), fmt.Append(nil, i), 0o644); err != nil {
					return err
				}
			}
			return nil
		})
	}
	must(t, g.Wait())
}

// manyBatches changes files until so many batches are sealed.
func (s *site) manyBatches(n uint64) {
	s.t.Helper()
	for i, head := 0, uint64(0); head < n; i++ {
		must(s.t, os.WriteFile(filepath.Join(s.mount, fmt.Sprintf("changing%d", i%100)), fmt.Append(nil, i), 0o644))
		b, err := control.Wait(s.t.Context(), filepath.Join(s.dir, "state"), control.Goal{Stage: control.Sealed}, func(control.Barrier) {})
		must(s.t, err)
		head = b.Seq
	}
}

// question is a command that only reads this node's state.
type question struct {
	name string
	args []string
}

func (s *site) questions(batches int) []question {
	file := filepath.Join(s.mount, "d000000", "f0000000")
	dir := "d000000"
	list := []question{
		{"explain PATH", []string{"explain", file}}, {"ls DIR", []string{"ls", dir}}, {"spool pending", []string{"spool", "pending"}}, {"sender show", []string{"sender", "show"}},
	}
	for i := range list {
		list[i].args = append(list[i].args, "-c", s.config)
	}
	for _, node := range []struct{ name, conf string }{{"alpha", s.config}, {"cache1", s.cacheCf}} {
		for _, args := range [][]string{
			{"status"}, {"spool", "ls"}, {"spool", "ls", "--json"}, {"spool", "ls", "--stage", "sealed"}, {"spool", "show", fmt.Sprint(batches)}, {"config", "check"},
		} {
			name := fmt.Sprintf("%s: %v", node.name, args)
			list = append(list, question{name, append(slices.Clone(args), "-c", node.conf)})
		}
	}
	return append(list, question{"cache1: ship --explain", []string{"ship", "--explain", "-c", s.cacheCf}})
}

// askStopped is ask while the daemons are stopped.
func (s *site) askStopped(list []question) []time.Duration {
	s.t.Helper()
	pids := append(s.child("spooler"), s.shipper.cmd.Process.Pid)
	for _, pid := range pids {
		must(s.t, syscall.Kill(pid, syscall.SIGSTOP))
	}
	took := s.ask(list)
	for _, pid := range pids {
		must(s.t, syscall.Kill(pid, syscall.SIGCONT))
	}
	return took
}

// ask returns the median of what each question takes, as a whole process.
func (s *site) ask(list []question) []time.Duration {
	s.t.Helper()
	took := make([][]time.Duration, len(list))
	for range 9 {
		for i, q := range list {
			began := time.Now()
			s.slipway(q.args...)
			took[i] = append(took[i], time.Since(began))
		}
	}
	var medians []time.Duration
	for _, d := range took {
		medians = append(medians, median(d))
	}
	return medians
}

// timeToGet returns the median of what it takes to get a page whole.
func timeToGet(t *testing.T, url string) time.Duration {
	t.Helper()
	var took []time.Duration
	for range 9 {
		began := time.Now()
		code, body := fetch(t, url)
		took = append(took, time.Since(began))
		if code != http.StatusOK || body == "" {
			t.Fatalf("%s: %d, %d bytes", url, code, len(body))
		}
	}
	return median(took)
}
