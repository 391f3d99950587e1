package e2e

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"slipway/internal/durable"
)

// durableTo is a primary's configuration in which what lies below db waits for a stage.
func durableTo(stage, timeout string) string {
	return fmt.Sprintf("durability:\n  - {path: \"db/**\", stage: %s}\ndurability_timeout: %s", stage, timeout)
}

// startDurable starts a primary with a directory db, everything in it cached.
func startDurable(t *testing.T, opt siteOptions) *site {
	t.Helper()
	s := newSite(t, opt)
	s.startPrimary()
	must(t, os.Mkdir(filepath.Join(s.mount, "db"), 0o755))
	s.wait("sealed")
	return s
}

// sync writes to an open file and syncs it.
func syncWrite(t *testing.T, f *os.File, text string) (took time.Duration) {
	t.Helper()
	_, err := f.WriteString(text)
	must(t, err)
	began := time.Now()
	must(t, f.Sync())
	return time.Since(began)
}

// TestFsyncCached: the moment fsync returns, everything of this node may be lost, and the cache has what was written. The file stays open.
func TestFsyncCached(t *testing.T) {
	s := startDurable(t, siteOptions{plain: true, primary: durableTo("cached", "60s")})
	f, err := os.Create(filepath.Join(s.mount, "db/journal"))
	must(t, err)
	defer f.Close() //nolint:errcheck // the mount is gone by then
	want := ""
	for i := range 5 {
		line := fmt.Sprintf("transaction %d\n", i)
		want += line
		t.Logf("fsync took %v", syncWrite(t, f, line).Round(time.Millisecond))
	}
	s.primary.crash()
	must(t, os.RemoveAll(filepath.Join(s.dir, "state")))
	must(t, os.RemoveAll(s.source))
	got, err := os.ReadFile(filepath.Join(s.restorePlain("cache1", "--incomplete"), "db/journal"))
	if err != nil || string(got) != want {
		t.Errorf("restored %q, %v; want %q", got, err, want)
	}
}

// TestFsyncSpoolerAway: while the spooler is stopped an fsync is answered with EIO, in time; when it dies meanwhile its successor is asked.
func TestFsyncSpoolerAway(t *testing.T) {
	s := startDurable(t, siteOptions{plain: true, vaults: []string{"vault1"}, primary: durableTo("stored", "2s")})
	f, err := os.Create(filepath.Join(s.mount, "db/journal"))
	must(t, err)
	defer func() { _ = f.Close() }() // only written to
	spooler := s.child("spooler")[0]
	must(t, syscall.Kill(spooler, syscall.SIGSTOP))
	began := time.Now()
	_, err = f.WriteString("first\n")
	must(t, err)
	if err := f.Sync(); !errors.Is(err, syscall.EIO) {
		t.Errorf("with a stopped spooler: %v, want EIO", err)
	}
	if took := time.Since(began); took < time.Second || took > 5*time.Second*busy {
		t.Errorf("it took %v", took)
	}
	must(t, os.WriteFile(filepath.Join(s.mount, "other"), []byte("text"), 0o644)) // nobody else waits
	must(t, syscall.Kill(spooler, syscall.SIGCONT))

	if err := f.Sync(); !errors.Is(err, syscall.EIO) { // no shipper
		t.Errorf("without a shipper: %v, want EIO", err)
	}
	warned := fmt.Sprint(s.status(s.config)["warnings"])
	// What it waited is what was left of 2 s when the spooler was asked.
	if !regexp.MustCompile(`fsync of "db/journal" waited (1(\.\d+)?s|\d+ms) for stage stored and was answered with EIO: waits for`).MatchString(warned) {
		t.Errorf("status warns: %s", warned)
	}

	// With time enough for the shipper to start.
	must(t, f.Close())
	s.stopPrimary()
	rewrite(t, s.config, "durability_timeout: 2s", "durability_timeout: 2m")
	s.startPrimary()
	f, err = os.OpenFile(filepath.Join(s.mount, "db/journal"), os.O_RDWR, 0)
	must(t, err)
	done := make(chan error, 1)
	go func() { done <- f.Sync() }()
	s.eventually(5*time.Second, "the fsync to wait", func() error {
		if n := fmt.Sprint(s.status(s.config)["fsyncs"]); !strings.Contains(n, "waiting:1") {
			return errors.New(n)
		}
		return nil
	})
	must(t, syscall.Kill(s.child("spooler")[0], syscall.SIGKILL))
	s.startShipper()
	if err := <-done; err != nil {
		t.Errorf("over the spooler's death: %v", err)
	}
	s.shipper.crash()
	s.primary.crash()
	must(t, os.RemoveAll(s.source))
	must(t, os.RemoveAll(s.hosts["cache1"].data))
	got, err := os.ReadFile(filepath.Join(s.restorePlain("vault1", "--incomplete"), "db/journal"))
	if err != nil || string(got) != "first\n" {
		t.Errorf("restored %q, %v", got, err)
	}
}

// TestFsyncCacheDown: an fsync that the cache does not get is EIO, and the same one is right once the cache is back.
func TestFsyncCacheDown(t *testing.T) {
	s := startDurable(t, siteOptions{primary: durableTo("cached", "3s")})
	f, err := os.Create(filepath.Join(s.mount, "db/journal"))
	must(t, err)
	defer f.Close() //nolint:errcheck // only written to
	_, err = f.WriteString("first\n")
	must(t, err)
	s.eventually(30*time.Second, "the first fsync to be answered", f.Sync)
	s.hosts["cache1"].down()
	_, err = f.WriteString("second\n")
	must(t, err)
	if err := f.Sync(); !errors.Is(err, syscall.EIO) {
		t.Errorf("without a cache: %v, want EIO", err)
	}
	if got, err := os.ReadFile(filepath.Join(s.source, "db/journal")); err != nil || string(got) != "first\nsecond\n" {
		t.Errorf("the source has %q, %v", got, err)
	}
	s.serve(s.hosts["cache1"])
	s.eventually(30*time.Second, "the fsync to be answered", f.Sync)
	got, err := os.ReadFile(filepath.Join(s.restore("cache1", "--incomplete"), "db/journal"))
	if err != nil || string(got) != "first\nsecond\n" {
		t.Errorf("restored %q, %v", got, err)
	}
}

// TestFsyncTogether: writers that sync at once share batches, on a cache that is a directory and on one behind SFTP with a daemon. What a
// single fsync takes is logged: it is in docs/commands.md.
func TestFsyncTogether(t *testing.T) {
	for name, opt := range map[string]siteOptions{
		"directory": {plain: true},
		"sftp":      {},
	} {
		t.Run(name, func(t *testing.T) {
			opt.primary = durableTo("cached", "60s")
			s := startDurable(t, opt)
			s.together(t, "without a daemon", 8, count(10, 50))
			s.together(t, "alone", 1, count(5, 50))
			s.startShipper()
			s.wait("stored")
			s.together(t, "with a daemon", 8, count(10, 50))
		})
	}
}

// together has writers sync files of their own, again and again, and looks at how long that takes and how many batches it costs.
func (s *site) together(t *testing.T, what string, writers, times int) {
	t.Helper()
	head := s.status(s.config)["head_batch"].(float64) //nolint:forcetypeassert // a number, or the test fails
	took := make([]time.Duration, writers*times)
	var g errgroup.Group
	for w := range writers {
		g.Go(func() error {
			f, err := os.OpenFile(filepath.Join(s.mount, "db", fmt.Sprint("of ", w)), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
			if err != nil {
				return err
			}
			for i := range times {
				if _, err := fmt.Fprintf(f, "line %d\n", i); err != nil {
					return err
				}
				began := time.Now()
				if err := f.Sync(); err != nil {
					return err
				}
				took[w*times+i] = time.Since(began)
			}
			return f.Close()
		})
	}
	must(t, g.Wait())
	slices.Sort(took)
	batches := s.status(s.config)["head_batch"].(float64) - head //nolint:forcetypeassert // as above
	t.Logf("%s: %d writers, %d fsyncs each: p50 %v, p99 %v, %v batches", what, writers, times,
		took[len(took)/2].Round(time.Millisecond), took[len(took)*99/100].Round(time.Millisecond), batches)
	// In step the writers take two batches for each round; the busier the machine, the more they get out of step. Without sharing, each fsync takes one.
	if batches > float64(max(3*times, writers*times*2/3)) {
		t.Errorf("%s: %d fsyncs took %v batches", what, writers*times, batches)
	}
}

// TestFsyncCrash: writers sync in the two usual ways, a line at the end of an open file, and a file renamed into place, until everything of
// the node dies at some moment. Whatever an fsync had answered is in the cache.
func TestFsyncCrash(t *testing.T) {
	r := random(t)
	for range count(1, 10) {
		s := startDurable(t, siteOptions{plain: true, primary: durableTo("cached", "60s")})
		var g errgroup.Group
		var lines, files [3]int // that were answered
		under := make(chan struct{}, 3)
		for w := range 3 {
			g.Go(func() error {
				lines[w] = appendLines(s.mount, w, func() { under <- struct{}{} })
				return nil
			})
			g.Go(func() error { files[w] = renameFiles(s.mount, w); return nil })
		}
		for range 3 {
			<-under
		}
		pause(t, time.Duration(r.IntN(2000))*time.Millisecond)
		s.primary.crash()
		s.detach(func(string) bool { return true }) // who writes goes on until the mount is gone
		must(t, g.Wait())
		must(t, os.RemoveAll(filepath.Join(s.dir, "state")))
		must(t, os.RemoveAll(s.source))
		back := s.restorePlain("cache1", "--incomplete")
		t.Logf("answered: %v lines, %v files", lines, files)
		for w := range 3 {
			text, err := os.ReadFile(filepath.Join(back, "db", fmt.Sprint("lines ", w)))
			if got := strings.Count(string(text), "\n"); lines[w] == 0 || got < lines[w] {
				t.Errorf("writer %d: %d lines were answered, %d are there, %v", w, lines[w], got, err)
			}
			for i := range files[w] {
				text, err := os.ReadFile(filepath.Join(back, "db", fmt.Sprint("files ", w), fmt.Sprint(i)))
				if want := fmt.Sprintf("file %d\n", i); err != nil || string(text) != want {
					t.Errorf("writer %d: file %d was answered and is %q, %v", w, i, text, err)
				}
			}
		}
	}
}

// appendLines writes and syncs lines until it cannot, and returns how many were answered. begun is called when the first one is, or never will be.
func appendLines(mount string, w int, begun func()) (done int) {
	begun = sync.OnceFunc(begun)
	defer begun()
	f, err := os.Create(filepath.Join(mount, "db", fmt.Sprint("lines ", w)))
	if err != nil {
		return 0
	}
	defer f.Close() //nolint:errcheck // the mount dies
	for ; ; done++ {
		if _, err := fmt.Fprintf(f, "line %d\n", done); err != nil || f.Sync() != nil {
			return done
		}
		begun()
	}
}

// renameFiles puts files in place until it cannot, and returns how many were answered.
func renameFiles(mount string, w int) (done int) {
	dir := filepath.Join(mount, "db", fmt.Sprint("files ", w))
	if os.Mkdir(dir, 0o755) != nil {
		return 0
	}
	d, err := os.Open(dir)
	if err != nil {
		return 0
	}
	defer d.Close() //nolint:errcheck // the mount dies
	for ; ; done++ {
		if durable.Overwrite(filepath.Join(dir, fmt.Sprint(done)), fmt.Appendf(nil, "file %d\n", done), 0o644) != nil || d.Sync() != nil {
			return done
		}
	}
}

// TestFsyncDatabase: a database below a pattern keeps its promise over the loss of its machine: what the cache gives back is a sound database
// with every transaction that was answered.
func TestFsyncDatabase(t *testing.T) {
	for _, mode := range []string{"delete", "wal"} {
		t.Run(mode, func(t *testing.T) {
			s := startDurable(t, siteOptions{plain: true, primary: durableTo("cached", "60s")})
			done := s.transact(t, mode, count(8, 40))
			must(t, os.RemoveAll(filepath.Join(s.dir, "state")))
			must(t, os.RemoveAll(s.source))
			db := filepath.Join(s.restorePlain("cache1", "--incomplete"), "db/db")
			out, err := exec.Command("sqlite3", db, "PRAGMA integrity_check; SELECT count(*) FROM t; SELECT max(id) FROM t;").CombinedOutput()
			var rows, last int
			if _, scan := fmt.Sscanf(string(out), "ok\n%d\n%d\n", &rows, &last); err != nil || scan != nil || rows < done || rows != last {
				t.Errorf("%d transactions were answered, the database says %q, %v", done, out, err)
			}
		})
	}
}

// transact has sqlite3 commit transactions until at least so many are answered, ends everything of the node in the middle of the next one,
// and returns how many it was.
func (s *site) transact(t *testing.T, mode string, least int) (done int) {
	t.Helper()
	// extra: with less, sqlite does not sync the removal of its journal, which is what commits in mode delete.
	script := fmt.Sprintf("PRAGMA journal_mode=%s; PRAGMA synchronous=extra; CREATE TABLE t(id INTEGER PRIMARY KEY, text);\n", mode)
	for i := range 10_000 {
		script += fmt.Sprintf("INSERT INTO t VALUES(%d, hex(randomblob(2000))); SELECT 'done';\n", i+1)
	}
	cmd := exec.Command("stdbuf", "-oL", "sqlite3", "-bail", filepath.Join(s.mount, "db/db"))
	cmd.Stdin = strings.NewReader(script)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	began := time.Now()
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if lines.Text() != "done" {
			continue
		}
		if done++; done == least {
			t.Logf("%d transactions in %v", done, time.Since(began).Round(time.Millisecond))
			s.primary.crash()
			s.detach(func(string) bool { return true })
		}
	}
	if err := cmd.Wait(); err == nil || done < least {
		t.Errorf("%d transactions were answered, and sqlite3 ended with %v", done, err)
	}
	return done
}

// restorePlain restores from a store that is a plain directory.
func (s *site) restorePlain(from string, more ...string) string {
	s.t.Helper()
	target := filepath.Join(s.t.TempDir(), "restored")
	s.slipway(append([]string{"restore", "--from", s.hosts[from].data, "--identity", s.ident, "--target", target}, more...)...)
	return target
}
