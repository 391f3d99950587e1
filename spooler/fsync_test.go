package spooler

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"slipway/internal/batch"
	"slipway/internal/config"
	"slipway/internal/control"
	"slipway/internal/journal"
	"slipway/spooler/capture"
)

// syncing is a rig with rules: what lies below db waits until it is sealed and replicated, which without replicas is at once.
func syncing(t *testing.T) *rig {
	t.Helper()
	r := newRig(t)
	r.cfg.Durability = []config.Durability{{Path: "db/**", Stage: "replicated"}}
	r.mount()
	r.open()
	r.mkdir("db")
	r.drain()
	return r
}

// fsync does what the mount does, and asks.
func (r *rig) fsync(path string, change ...func(*control.Durable)) <-chan error {
	r.t.Helper()
	id, attr := r.stat(path)
	r.w.Append(&journal.Record{Op: journal.OpSync, Node: id, Attr: attr})
	return r.ask(id, path, change...)
}

func (r *rig) ask(id journal.Ident, path string, change ...func(*control.Durable)) <-chan error {
	q := control.Durable{Object: id, Path: []byte(path), Stage: control.Replicated, Within: 20 * time.Second}
	for _, c := range change {
		c(&q)
	}
	answer := make(chan error, 1)
	before := r.waiting()
	go func() { answer <- r.s.Durable(r.t.Context(), q) }()
	for deadline := time.Now().Add(10 * time.Second); r.waiting() == before; {
		if time.Now().After(deadline) {
			r.t.Fatal("the fsync does not wait")
		}
	}
	return answer
}

// waiting counts the fsyncs that wait.
func (r *rig) waiting() int {
	st, _ := r.s.fsyncs.Report(time.Now())
	return st.Waiting
}

// answered makes steps until an fsync is answered.
func (r *rig) answered(answer <-chan error) (err error) {
	r.t.Helper()
	done := false
	r.steps(func() bool {
		select {
		case err = <-answer:
			done = true
		default:
		}
		return done
	})
	return err
}

// waits makes steps, and expects that they do not answer.
func (r *rig) waits(answer <-chan error, steps int) {
	r.t.Helper()
	for range steps {
		_, err := r.s.Step(r.t.Context())
		check(r.t, err)
	}
	if r.waiting() == 0 {
		r.t.Fatalf("it was answered with %v", <-answer)
	}
}

// openFor opens a file for writing as an application does, and keeps it open.
func (r *rig) openFor(path string) *os.File {
	r.t.Helper()
	f, err := os.OpenFile(filepath.Join(r.src, path), os.O_RDWR|os.O_CREATE, 0o644)
	check(r.t, err)
	r.t.Cleanup(func() { check(r.t, f.Close()) })
	id, attr := r.stat(path)
	r.w.Append(&journal.Record{Op: journal.OpOpen, Node: id, Attr: attr})
	return f
}

// held returns the content of a file as the newest batch of the own store has it.
func (r *rig) held(path string) string {
	r.t.Helper()
	data, err := os.ReadFile(filepath.Join(r.restoreTo(r.cfg.Spool.Dir, restoreAt(0)), path))
	check(r.t, err)
	return string(data)
}

// TestFsyncOpenFile: a file that stays open is read at once, long before its interval is over, and each time anew.
func TestFsyncOpenFile(t *testing.T) {
	r := syncing(t)
	r.create("db/open", "")
	r.drain()
	f := r.openFor("db/open")
	want := ""
	for i := range 3 {
		text := fmt.Sprintf("line %d\n", i)
		want += text
		_, err := f.WriteString(text)
		check(t, err)
		began := time.Now()
		check(t, r.answered(r.fsync("db/open")))
		if took := time.Since(began); took > r.cfg.MaxAge/2 {
			t.Errorf("it took %v", took)
		}
		if got := r.held("db/open"); got != want {
			t.Fatalf("the own store has %q, want %q", got, want)
		}
	}
	head := r.s.vol.history.Meta().Head
	check(t, r.answered(r.fsync("db/open"))) // nothing changed: looked at, not sealed
	if r.s.vol.history.Meta().Head != head {
		t.Errorf("batch %d was sealed for nothing", r.s.vol.history.Meta().Head)
	}
}

// TestFsyncRunningCapture: a capture that began before the fsync is not enough.
func TestFsyncRunningCapture(t *testing.T) {
	r := syncing(t)
	r.create("db/file", "first")
	for deadline := time.Now().Add(10 * time.Second); r.s.vol.pool.Busy() == 0 && time.Now().Before(deadline); {
		_, err := r.s.Step(t.Context())
		check(t, err)
	}
	r.read(nil)
	r.write("db/file", "second")
	answer := r.fsync("db/file")
	head := r.s.vol.history.Meta().Head
	for r.s.vol.history.Meta().Head == head {
		r.waits(answer, 1)
	}
	if got := r.held("db/file"); got != "first" {
		t.Fatalf("the first capture had %q", got)
	}
	check(t, r.answered(answer))
	if got := r.held("db/file"); got != "second" {
		t.Errorf("the own store has %q", got)
	}
}

// TestFsyncUnclean: content that moved while it was read is not what was synced. The next capture is.
func TestFsyncUnclean(t *testing.T) {
	r := syncing(t)
	r.create("db/file", "first")
	r.drain()
	r.write("db/file", "second")
	answer := r.fsync("db/file")
	r.waits(answer, 1)
	for deadline := time.Now().Add(10 * time.Second); r.s.vol.pool.Busy() == 0 && time.Now().Before(deadline); {
		r.waits(answer, 1)
	}
	r.read(func(c *capture.Captured) { c.Clean = false })
	head := r.s.vol.history.Meta().Head
	for r.s.vol.history.Meta().Head == head {
		r.waits(answer, 1)
	}
	r.waits(answer, 2)
	impatient := r.fsync("db/file", within(2*time.Second))
	r.waits(impatient, 1)
	if err := <-impatient; err == nil || !strings.Contains(err.Error(), "others change the file all the time") {
		t.Errorf("it waits for %v", err)
	}
	check(t, r.answered(answer))
	if got := r.held("db/file"); got != "second" {
		t.Errorf("the own store has %q", got)
	}
}

// TestFsyncDirectory: the names that a directory had at its fsync are sealed: also those of files that nobody has closed yet.
func TestFsyncDirectory(t *testing.T) {
	r := syncing(t)
	f, err := os.OpenFile(filepath.Join(r.src, "db/new"), os.O_RDWR|os.O_CREATE, 0o644)
	check(t, err)
	defer func() { check(t, f.Close()) }()
	r.created("db/new")
	id, attr := r.stat("db/new")
	r.w.Append(&journal.Record{Op: journal.OpOpen, Node: id, Attr: attr})
	check(t, r.answered(r.fsync("db")))
	if got := r.held("db/new"); got != "" {
		t.Errorf("%q", got)
	}
	r.create("db/temporary", "whole")
	check(t, r.answered(r.fsync("db/temporary")))
	v := r.s.vol
	v.timing.Batch = time.Hour
	r.rename("db/temporary", "db/final", 0)
	answer := r.fsync("db")
	r.waits(answer, 3)
	v.timing.Batch = 0
	check(t, r.answered(answer))
	if got := r.held("db/final"); got != "whole" {
		t.Errorf("%q", got)
	}
}

// TestFsyncUnread: what lies before the fsync in the journal is folded first.
func TestFsyncUnread(t *testing.T) {
	r := syncing(t)
	r.create("db/file", "text")
	r.drain()
	answer := r.fsync("db/file", within(2*time.Second))
	check(t, r.s.vol.tree.Within(r.s.fsyncs.Hasten)) // nothing was folded since
	if err := <-answer; err == nil || err.Error() != "the spooler reads the journal" {
		t.Errorf("it waits for %v", err)
	}
	check(t, r.answered(r.fsync("db/file")))
}

// within has an fsync be answered in some time.
func within(d time.Duration) func(*control.Durable) {
	return func(q *control.Durable) { q.Within = d }
}

// TestFsyncMoved: who is asked about is the object, not its path.
func TestFsyncMoved(t *testing.T) {
	r := syncing(t)
	r.create("db/file", "text")
	answer := r.fsync("db/file")
	r.rename("db/file", "db/elsewhere", 0)
	r.create("db/file", "another")
	check(t, r.answered(answer))
	if got := r.held("db/elsewhere"); got != "text" {
		t.Errorf("%q", got)
	}
}

// TestFsyncNames: of several names one is enough to wait, and where none asks for anything nobody waits.
func TestFsyncNames(t *testing.T) {
	r := syncing(t)
	names := func(q *control.Durable) { q.Stage, q.Names = control.Pending, true }
	r.create("out", "1")
	r.link("out", "out2")
	answer := r.fsync("out", names)
	for deadline := time.Now().Add(10 * time.Second); len(answer) == 0 && time.Now().Before(deadline); {
		_, err := r.s.Step(t.Context()) // reads nothing
		check(t, err)
	}
	check(t, <-answer)
	r.link("out", "db/in")
	answer = r.fsync("out", names)
	r.waits(answer, 3)
	check(t, r.answered(answer))
	if got := r.held("db/in"); got != "1" {
		t.Errorf("%q", got)
	}
}

// TestFsyncGone: what is not in the volume is said not to be there, also when it is removed while somebody waits.
func TestFsyncGone(t *testing.T) {
	r := syncing(t)
	if err := r.answered(r.ask(journal.Ident{FS: 1, Ino: 2}, "db/never")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("never there: %v", err)
	}
	r.create("db/file", "1")
	answer := r.fsync("db/file")
	r.waits(answer, 1)
	r.remove("db/file")
	if err := r.answered(answer); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("removed: %v", err)
	}
}

// TestFsyncsShareBatch: several fsyncs wait for one batch, which does not wait for its interval.
func TestFsyncsShareBatch(t *testing.T) {
	r := syncing(t)
	v := r.s.vol
	v.timing.Batch = time.Minute
	r.skew = time.Hour
	var answers []<-chan error
	for i := range 8 {
		r.create(fmt.Sprintf("db/%d", i), "text")
		answers = append(answers, r.fsync(fmt.Sprintf("db/%d", i)))
	}
	head := v.history.Meta().Head
	reader := v.pool.Reader()
	for read := 0; read < 8; {
		_, err := r.s.Step(t.Context())
		check(t, err)
		if v.pool.Once(t.Context(), reader, true) {
			read++
		}
	}
	for _, a := range answers {
		check(t, r.answered(a))
	}
	if v.history.Meta().Head != head+1 {
		t.Errorf("8 fsyncs took %d batches", v.history.Meta().Head-head)
	}
}

// TestFsyncTimeout: status says what was waited for in vain, for a while.
func TestFsyncTimeout(t *testing.T) {
	r := syncing(t)
	r.create("db/file", "1")
	answer := r.fsync("db/file", func(q *control.Durable) { q.Stage, q.Within = control.Cached, time.Second })
	status := func() control.Status {
		list, err := r.s.Status(t.Context())
		check(t, err)
		return list[0]
	}
	if st := status(); st.Fsyncs == nil || st.Fsyncs.Waiting != 1 {
		t.Errorf("status: %+v", st.Fsyncs)
	}
	if err := r.answered(answer); err == nil || !strings.Contains(err.Error(), "waits for the cache") {
		t.Errorf("answered with %v", err)
	}
	st := status()
	want := `fsync of "db/file" waited 1s for stage cached and was answered with EIO: waits for the cache`
	if st.Fsyncs.Waiting != 0 || st.Fsyncs.TimedOut != 1 || !slices.ContainsFunc(st.Warnings, func(w string) bool { return strings.HasPrefix(w, want) }) {
		t.Errorf("status: %+v, %q", st.Fsyncs, st.Warnings)
	}
	r.skew = time.Hour
	if w := strings.Join(status().Warnings, "\n"); strings.Contains(w, "was answered with EIO") {
		t.Errorf("it is still said: %q", w)
	}
	r.skew = 0
	// Acknowledged, the same fsync succeeds at once.
	r.s.stages.Delivered("cache", "cache1", batch.Seq(1000))
	check(t, r.answered(r.fsync("db/file", func(q *control.Durable) { q.Stage = control.Cached })))
}

// TestFsyncOfUncompared: during the comparison after a start, what is known is sealed at once, and what is not is waited for.
func TestFsyncOfUncompared(t *testing.T) {
	r := newRig(t)
	r.cfg.Durability = []config.Durability{{Path: "db/**", Stage: "replicated"}}
	check(t, os.Mkdir(filepath.Join(r.src, "db"), 0o755))
	r.create2("db/old", "there before")
	r.mount()
	r.open()
	answer := r.fsync("db/old")
	check(t, r.answered(answer))
	if got := r.held("db/old"); got != "there before" {
		t.Errorf("%q", got)
	}
}
