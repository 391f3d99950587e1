package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	if state := os.Getenv("CONTROL_TEST_SERVE"); state != "" { // a daemon of its own, for tests that stop it
		err := Serve(context.Background(), state, &fake{status: []Status{{Volume: "projects"}}}, time.Second)
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

// fake is a daemon that answers what it was told to.
type fake struct {
	mu      sync.Mutex
	status  []Status
	rows    []BatchRow
	pending []PendingRow
	err     error
	asked   []string
	hold    chan struct{} // if set, every answer waits for it
	barrier func(Barrier) (Barrier, error)
}

func (f *fake) note(ctx context.Context, format string, args ...any) error {
	f.mu.Lock()
	f.asked = append(f.asked, fmt.Sprintf(format, args...))
	hold := f.hold
	f.mu.Unlock()
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return f.err
}

func (f *fake) Status(ctx context.Context) ([]Status, error) {
	err := f.note(ctx, "status")
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.status), err
}

func (f *fake) Batches(ctx context.Context, volume string, from uint64, limit int) ([]BatchRow, error) {
	return f.rows, f.note(ctx, "batches %s %d %d", volume, from, limit)
}

func (f *fake) Pending(ctx context.Context, limit int) ([]PendingRow, error) {
	return f.pending, f.note(ctx, "pending %d", limit)
}

func (f *fake) Explain(ctx context.Context, path string) (Explained, error) {
	return Explained{Path: path, Stage: "cached", Batch: 7}, f.note(ctx, "explain %q", path)
}

func (f *fake) Barrier(ctx context.Context, b Barrier) (Barrier, error) {
	if err := f.note(ctx, "barrier %q %s", b.Paths, b.Mark); err != nil {
		return b, err
	}
	return f.barrier(b)
}

func (f *fake) Do(ctx context.Context, verb, arg string) error {
	return f.note(ctx, "do %s %s", verb, arg)
}

func (f *fake) last() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.asked[len(f.asked)-1]
}

// serve runs a daemon until the test ends, and waits until it can be reached.
func serve(t *testing.T, state string, r Reporter) {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	var g errgroup.Group
	g.Go(func() error { return Serve(ctx, state, r, time.Hour) })
	t.Cleanup(func() {
		stop()
		if err := g.Wait(); err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	await(t, func() bool { _, err := Dial(state); return err == nil })
}

// shelf has batches, a volume's numbers with gaps.
type shelf struct {
	Reporter
	batches, broken int  // how many there are; from which on they cannot be read
	most            *int // that it was asked for at once
}

func (shelf) Status(context.Context) ([]Status, error) { return nil, nil }

func (s shelf) Batches(_ context.Context, _ string, from uint64, limit int) (rows []BatchRow, err error) {
	*s.most = max(*s.most, limit)
	for i := range s.batches {
		if seq := uint64(3 * i); seq >= from && len(rows) < limit {
			if s.broken > 0 && i >= s.broken {
				return rows, errors.New("the disk is ill")
			}
			rows = append(rows, BatchRow{Volume: "projects", Seq: seq})
		}
	}
	return rows, nil
}

// TestManyBatches: however many there are, a daemon looks up some at a time, and each comes once.
func TestManyBatches(t *testing.T) {
	for _, tt := range []struct{ batches, broken, limit, want int }{
		{0, 0, 0, 0},
		{1, 0, 0, 1},
		{batchesAtOnce, 0, 0, batchesAtOnce},
		{batchesAtOnce + 1, 0, 0, batchesAtOnce + 1},
		{3*batchesAtOnce + 7, 0, 0, 3*batchesAtOnce + 7},
		{3 * batchesAtOnce, 0, batchesAtOnce, batchesAtOnce},
		{3 * batchesAtOnce, 0, batchesAtOnce + 9, batchesAtOnce + 9},
		{3 * batchesAtOnce, 0, 5, 5},
		{3 * batchesAtOnce, batchesAtOnce + 5, 0, 0},
	} {
		dir, most := t.TempDir(), 0
		serve(t, dir, shelf{batches: tt.batches, broken: tt.broken, most: &most})
		rows, err := dial(t, dir).Batches(t.Context(), "projects", 0, tt.limit)
		if tt.broken > 0 {
			if err == nil || !strings.Contains(err.Error(), "the disk is ill") {
				t.Errorf("%+v: %v", tt, err)
			}
			continue
		}
		if err != nil || len(rows) != tt.want || most > batchesAtOnce {
			t.Errorf("%+v: %d rows, %d at once, %v", tt, len(rows), most, err)
		}
		for i, r := range rows {
			if r.Seq != uint64(3*i) {
				t.Fatalf("%+v: row %d is batch %d", tt, i, r.Seq)
			}
		}
	}
}

func await(t *testing.T, done func() bool) {
	t.Helper()
	deadline := time.After(time.Minute)
	for !done() {
		select {
		case <-deadline:
			t.Fatal("it does not come")
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// dial asks patiently: how long a daemon may take is not what most tests are about, and a busy machine may take longer.
func dial(t *testing.T, state string) *Client {
	t.Helper()
	c, err := DialWithin(state, wholeWithin)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestQuestionsAndAnswers(t *testing.T) {
	state := t.TempDir()
	at := time.Date(2026, 11, 23, 10, 0, 0, 123456789, time.UTC)
	f := &fake{
		status:  []Status{{Volume: "projects", Node: "alpha", Epoch: 2, HeadBatch: 42, At: at, Daemon: Running, Stores: []StoreStatus{{Name: "cache1"}}}, {Volume: "other"}},
		rows:    []BatchRow{{Volume: "projects", Seq: 1, SealedAt: at}, {Volume: "projects", Seq: 2, SealedAt: at, Stage: "stored"}},
		pending: []PendingRow{{Path: "a\nb \"c\" ü", Since: at}, {Path: "bad\xff\xfename", Since: at, Bytes: 3}},
		barrier: func(b Barrier) (Barrier, error) { b.Seq = 9; return b, nil },
	}
	serve(t, state, f)
	c, ctx := dial(t, state), t.Context()

	if got, err := c.Status(ctx); err != nil || cmp.Diff(f.status, got) != "" {
		t.Errorf("status: %v %s", err, cmp.Diff(f.status, got))
	}
	if got, err := c.Batches(ctx, "projects", 5, 9); err != nil || cmp.Diff(f.rows, got) != "" || f.last() != "batches projects 5 9" {
		t.Errorf("batches: %v, asked %s", err, f.last())
	}
	if got, err := c.Pending(ctx, 3); err != nil || cmp.Diff(f.pending, got) != "" || f.last() != "pending 3" {
		t.Errorf("pending: %v %s", err, cmp.Diff(f.pending, got))
	}
	odd := "dir/new\nline/\xff?&=#%00 ;"
	if got, err := c.Explain(ctx, odd); err != nil || got.Path != odd || got.Batch != 7 {
		t.Errorf("explain: %+v %v, asked %s", got, err, f.last())
	}
	if got, err := c.Barrier(ctx, Barrier{Paths: []string{"a b", odd}, Mark: "1/2"}); err != nil || got.Seq != 9 || got.Mark != "1/2" || len(got.Paths) != 2 {
		t.Errorf("barrier: %+v %v", got, err)
	}
	if want := fmt.Sprintf("barrier %q 1/2", []string{"a b", odd}); f.last() != want {
		t.Errorf("asked %s, want %s", f.last(), want)
	}
	if err := c.Do(ctx, "ship", "projects"); err != nil || f.last() != "do ship projects" {
		t.Errorf("do: %v, asked %s", err, f.last())
	}
	f.rows = nil
	if got, err := c.Batches(ctx, "", 0, 0); err != nil || len(got) != 0 {
		t.Errorf("no batches: %v %v", got, err)
	}
}

func TestFailuresKeepTheirClass(t *testing.T) {
	state := t.TempDir()
	f := &fake{}
	serve(t, state, f)
	c := dial(t, state)
	f.err = fmt.Errorf("no such path: %w", fs.ErrNotExist)
	if _, err := c.Explain(t.Context(), "x"); !errors.Is(err, fs.ErrNotExist) || err.Error() != f.err.Error() {
		t.Errorf("explain: %v", err)
	}
	f.err = errors.New("cannot ship: manual")
	if err := c.Do(t.Context(), "ship", ""); err == nil || errors.Is(err, fs.ErrNotExist) || err.Error() != f.err.Error() {
		t.Errorf("do: %v", err)
	}
	if _, err := c.Status(t.Context()); err == nil {
		t.Error("a failed status is taken")
	}
}

// impatient asks as commands do.
func impatient(t *testing.T, state string) *Client {
	t.Helper()
	var c *Client
	await(t, func() bool {
		var err error
		c, err = Dial(state)
		return err == nil
	})
	return c
}

// TestSlowAnswers: a daemon at work may take its time, except for Status, where being slow means being stuck.
func TestSlowAnswers(t *testing.T) {
	state := t.TempDir()
	f := &fake{barrier: func(b Barrier) (Barrier, error) { return b, nil }}
	serve(t, state, f)
	c := impatient(t, state)
	f.mu.Lock()
	f.hold = make(chan struct{})
	f.mu.Unlock()
	began := time.Now()
	if _, err := c.Status(t.Context()); !errors.Is(err, ErrSilent) {
		t.Errorf("status of a stuck daemon: %v", err)
	}
	if took := time.Since(began); took < answerWithin || took > wholeWithin/2 {
		t.Errorf("gave up after %v, want %v", took, answerWithin)
	}
	var g errgroup.Group
	g.Go(func() error { _, err := c.Barrier(t.Context(), Barrier{}); return err })
	g.Go(func() error { _, err := c.Batches(t.Context(), "", 0, 0); return err })
	timer := time.NewTimer(2 * answerWithin)
	<-timer.C
	close(f.hold)
	if err := g.Wait(); err != nil {
		t.Errorf("an answer that took its time: %v", err)
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if _, err := c.Status(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("a caller that gave up: %v", err)
	}
}

func TestNoDaemon(t *testing.T) {
	state := t.TempDir()
	if _, err := Dial(state); !errors.Is(err, ErrNoDaemon) {
		t.Errorf("no socket: %v", err)
	}
	if _, err := Dial(filepath.Join(state, "none", strings.Repeat("x", 120))); !errors.Is(err, ErrNoDaemon) {
		t.Errorf("no directory: %v", err)
	}
	stale(t, state)
	if _, err := Dial(state); !errors.Is(err, ErrNoDaemon) {
		t.Errorf("stale socket: %v", err)
	}
}

// stale leaves a socket file that nobody listens on.
func stale(t *testing.T, state string) {
	t.Helper()
	l, err := net.Listen("unix", SocketPath(state))
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(SocketPath(state)); err != nil {
		t.Fatal(err)
	}
}

func TestStaleSocketIsReplaced(t *testing.T) {
	state := t.TempDir()
	stale(t, state)
	serve(t, state, &fake{})
	st, err := os.Stat(SocketPath(state))
	if err != nil || st.Mode().Perm() != 0o660 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
}

func TestSecondDaemonIsRefused(t *testing.T) {
	state := t.TempDir()
	serve(t, state, &fake{})
	if err := Serve(t.Context(), state, &fake{}, time.Hour); err == nil || !strings.Contains(err.Error(), "another daemon") {
		t.Errorf("a second daemon: %v", err)
	}
	dial(t, state)
}

func TestLongPath(t *testing.T) {
	state := filepath.Join(t.TempDir(), strings.Repeat("long-", 30), strings.Repeat("path-", 30))
	if err := os.MkdirAll(state, 0o700); err != nil {
		t.Fatal(err)
	}
	serve(t, state, &fake{status: []Status{{Volume: "projects"}}})
	if list, err := dial(t, state).Status(t.Context()); err != nil || len(list) != 1 {
		t.Errorf("%v %v", list, err)
	}
}

// TestStoppedDaemon: a SIGSTOPped process accepts connections and never answers.
func TestStoppedDaemon(t *testing.T) {
	state := t.TempDir()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), "CONTROL_TEST_SERVE="+state)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	await(t, func() bool { list, err := LastStatus(state); return err == nil && len(list) == 1 })
	await(t, func() bool { _, err := Dial(state); return err == nil })
	await(t, func() bool { // one that is kept from the processor for long does not answer
		daemon, list, err := FindState(t.Context(), state)
		if err != nil || len(list) != 1 || list[0].Stale != (daemon != Running) {
			t.Fatalf("running: %q %+v %v", daemon, list, err)
		}
		return daemon == Running
	})
	c := impatient(t, state)
	if err := cmd.Process.Signal(unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	var status unix.WaitStatus // the signal has been sent; now wait until every thread has stopped
	if _, err := unix.Wait4(cmd.Process.Pid, &status, unix.WUNTRACED, nil); err != nil || !status.Stopped() {
		t.Fatal(status, err)
	}
	began := time.Now()
	if _, err := Dial(state); !errors.Is(err, ErrSilent) || !strings.Contains(err.Error(), "its process is stopped") { // seen, not waited for
		t.Errorf("dial: %v", err)
	}
	if _, err := c.Pending(t.Context(), 0); !errors.Is(err, ErrSilent) {
		t.Errorf("pending: %v", err)
	}
	daemon, list, err := FindState(t.Context(), state)
	if daemon != NotAnswering || err != nil || len(list) != 1 || !list[0].Stale || list[0].Daemon != NotAnswering || list[0].Volume != "projects" {
		t.Errorf("stopped: %q %+v %v", daemon, list, err)
	}
	if took := time.Since(began); took > wholeWithin/2 {
		t.Errorf("three questions to a stopped daemon took %v", took)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if daemon, list, err = FindState(t.Context(), state); daemon != Dead || err != nil || len(list) != 1 || list[0].Daemon != Dead {
		t.Errorf("dead: %q %+v %v", daemon, list, err)
	}
}

func TestFindStateOfNothing(t *testing.T) {
	if daemon, list, err := FindState(t.Context(), t.TempDir()); daemon != Dead || list != nil || err != nil {
		t.Errorf("%q %v %v", daemon, list, err)
	}
}

func TestDamagedStatusFile(t *testing.T) {
	state := t.TempDir()
	for _, content := range []string{"{", "[]\n", "{\"volume\":1}\n", strings.Repeat("x", longestLine+10)} {
		if err := os.WriteFile(StatusPath(state), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if list, err := LastStatus(state); err == nil {
			t.Errorf("%.20q is taken: %v", content, list)
		}
	}
}

// TestKeeper: an unchanged answer is not written again at once, a changed one is.
func TestKeeper(t *testing.T) {
	state := t.TempDir()
	f := &fake{status: []Status{{Volume: "projects", At: time.Now()}}}
	var k keeper
	stamp := func() time.Time {
		t.Helper()
		list, err := LastStatus(state)
		if err != nil || len(list) != 1 {
			t.Fatalf("%v %v", list, err)
		}
		return list[0].At
	}
	step := func(again time.Duration) {
		t.Helper()
		if err := k.step(t.Context(), state, f, again); err != nil {
			t.Fatal(err)
		}
	}
	step(time.Hour)
	first := stamp()
	f.status[0].At = first.Add(time.Minute)
	if step(time.Hour); !stamp().Equal(first) {
		t.Error("only the time differs, and it was written again")
	}
	if step(0); stamp().Equal(first) {
		t.Error("an old answer was not written again")
	}
	f.status[0].HeadBatch, f.status[0].At = 7, first.Add(time.Hour)
	if step(time.Hour); !stamp().Equal(f.status[0].At) {
		t.Error("a changed answer was not written")
	}
	f.err = errors.New("no answer")
	if err := k.step(t.Context(), state, f, 0); !errors.Is(err, f.err) {
		t.Errorf("%v", err)
	}
}

// TestLastWord: what a daemon has come to since it last wrote is written when it ends.
func TestLastWord(t *testing.T) {
	state := t.TempDir()
	f := &fake{status: []Status{{Volume: "projects", HeadBatch: 6}}}
	ctx, stop := context.WithCancel(t.Context())
	var g errgroup.Group
	g.Go(func() error { return Serve(ctx, state, f, time.Hour) })
	await(t, func() bool { list, err := LastStatus(state); return err == nil && len(list) == 1 })
	f.mu.Lock()
	f.status = []Status{{Volume: "projects", HeadBatch: 7}}
	f.mu.Unlock()
	stop()
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	if list, err := LastStatus(state); err != nil || list[0].HeadBatch != 7 {
		t.Errorf("%+v, %v", list, err)
	}
}

func TestStages(t *testing.T) {
	for s := Pending; s <= Verified; s++ {
		if got, err := ParseStage(s.String()); err != nil || got != s {
			t.Errorf("%v: %v %v", s, got, err)
		}
	}
	for _, word := range []string{"", "Sealed", "stage 6", "shipped"} {
		if _, err := ParseStage(word); err == nil {
			t.Errorf("%q is taken", word)
		}
	}
	if Stage(9).String() != "stage 9" {
		t.Error(Stage(9).String())
	}
}

// TestKeys pins every key of the JSON contract. Keys are only ever added.
func TestKeys(t *testing.T) {
	eta := 1.5
	tests := []struct {
		row  any
		keys string
	}{
		{Status{Stores: []StoreStatus{{}}}, "volume node role epoch sender journal pending head_batch complete spool stores at stale daemon"},
		{SenderStatus{}, "node term state"},
		{JournalStatus{}, "head sealed gaps"},
		{PendingStatus{}, "files bytes oldest_seconds"},
		{SpoolStatus{}, "bytes cap"},
		{StoreStatus{}, "name kind url batch lag_batches lag_seconds state error"},
		{BatchRow{}, "volume epoch seq sealed_at files bytes shards stage copies"},
		{PendingRow{}, "path state since bytes writers"},
		{PendingRow{Path: "\xff", Why: "x"}, "path path_b64 state since bytes writers why"},
		{Explained{ETASeconds: &eta}, "path stage batch copies waiting_for eta_seconds"},
		{Explained{}, "path stage batch copies waiting_for eta_seconds"},
		{Barrier{}, "mark sealed seq stage copies need why"},
	}
	for _, tt := range tests {
		data, err := json.Marshal(tt.row)
		if err != nil {
			t.Fatal(err)
		}
		var got map[string]any
		if err := json.Unmarshal(data, &got); err != nil {
			t.Fatal(err)
		}
		want := strings.Fields(tt.keys)
		for _, key := range want {
			if _, ok := got[key]; !ok {
				t.Errorf("%T lacks %q: %s", tt.row, key, data)
			}
		}
		if len(got) != len(want) {
			t.Errorf("%T has %d keys, want %d: %s", tt.row, len(got), len(want), data)
		}
	}
}
