package render

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"slipway/internal/control"
	"slipway/internal/doctor"
	"slipway/internal/drill"
	"slipway/internal/restore/verify"
)

func TestName(t *testing.T) {
	for in, want := range map[string]string{
		"plain": "plain", "with blank": "with blank", "ü": "ü", "a\nb": `"a\nb"`, "\xff": `"\xff"`, "\x1b[31m": `"\x1b[31m"`, `"q"`: `"\"q\""`, "": "",
		"\u202egnp": `"\u202egnp"`,
	} {
		if got := Name(in); got != want {
			t.Errorf("%q: %s, want %s", in, got, want)
		}
	}
}

// TestNamesAreHarmless: whatever a file is called, what is printed is plain text, and no two names are printed alike.
func TestNamesAreHarmless(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := string(rapid.SliceOf(rapid.Byte()).Draw(t, "a")), string(rapid.SliceOf(rapid.Byte()).Draw(t, "b"))
		got := Name(a)
		if !utf8.ValidString(got) || strings.ContainsFunc(got, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Fatalf("%q is printed as %q", a, got)
		}
		if a != b && got == Name(b) {
			t.Fatalf("%q and %q are printed alike", a, b)
		}
	})
}

func sample() control.Status {
	return control.Status{
		Volume: "projects", Node: "alpha", Role: "primary", Epoch: 3, HeadBatch: 1204, Complete: true, Daemon: control.Running,
		Pending: control.PendingStatus{Files: 3, Bytes: 1 << 20, OldestSeconds: 2}, Spool: control.SpoolStatus{Bytes: 12 << 30, Cap: 50 << 30},
		Stores: []control.StoreStatus{
			{Name: "alpha", Kind: "own", Batch: 1204, State: "ok"},
			{Name: "bravo", Kind: "replica", Batch: 1204, State: "ok"},
			{Name: "cache1", Kind: "cache", Batch: 1204, State: "sending"},
			{Name: "vault1", Kind: "backup", Batch: 1203, LagBatches: 1, LagSeconds: 3, State: "ok"},
			{Name: "vault2", Kind: "backup", Batch: 1000, LagBatches: 204, LagSeconds: 840, State: "down", Error: "connection refused"},
		},
		Warnings: []string{"one recipient only"},
	}
}

func TestStatusScreen(t *testing.T) {
	var b bytes.Buffer
	if err := Status(&b, []control.Status{sample()}, time.Now()); err != nil {
		t.Fatal(err)
	}
	want := `projects  primary alpha, epoch 3, head batch 1204

pending           → alpha (own)       → bravo (replica)  → cache1 (cache)  → vault1 (backup)
3 files, 1.0 MiB    batch 1204          batch 1204         batch 1204        batch 1203, 1 behind, 3s
oldest 2s           12 GiB of 50 GiB    ok                 sending           ok
                    ok                                                       vault2 (backup)
                                                                             batch 1000, 204 behind, 14m
                                                                             down
vault2: connection refused
warning: one recipient only
`
	if d := cmp.Diff(want, b.String()); d != "" {
		t.Error(d)
	}
}

func TestStatusOfOthers(t *testing.T) {
	now := time.Now()
	stale, adopting, cache := sample(), sample(), sample()
	stale.Daemon, stale.At, stale.Stale = control.Dead, now.Add(-3*time.Minute), true
	adopting.Complete, adopting.Waiting = false, "adoption: 7 directories"
	cache.Role, cache.Node, cache.Complete = "cache", "cache1", false
	var b bytes.Buffer
	if err := Status(&b, []control.Status{stale, adopting, cache}, now); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"the daemon is dead; its last answer is 3m old", "head batch 1204, incomplete: adoption: 7 directories\n", "cache cache1, epoch 3, head batch 1204, incomplete\n",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in:\n%s", want, b.String())
		}
	}
	if n := strings.Count(b.String(), "pending"); n != 2 {
		t.Errorf("pending stands there %d times; a cache host has none", n)
	}
}

func TestStatusOfFsyncs(t *testing.T) {
	for want, fsyncs := range map[string]*control.FsyncStatus{
		"fsyncs: 3 wait for a stage\n": {Waiting: 3, TimedOut: 1},
		"":                             {TimedOut: 1},
	} {
		s := sample()
		s.Fsyncs = fsyncs
		var out bytes.Buffer
		if err := Status(&out, []control.Status{s}, time.Now()); err != nil {
			t.Fatal(err)
		}
		if got := out.String(); want == "" && strings.Contains(got, "fsyncs") || !strings.Contains(got, want) {
			t.Errorf("%+v:\n%s", fsyncs, got)
		}
	}
}

func TestStatusOfWarmTree(t *testing.T) {
	for want, warm := range map[string]*control.WarmStatus{
		"\nwarm tree: batch 1204\n":                             {Batch: 1204},
		"\nwarm tree: batch 0, 1204 behind: no identity fits\n": {Error: "no identity fits"},
		"": nil,
	} {
		s := sample()
		s.Role, s.Warm = "peer", warm
		var b bytes.Buffer
		if err := Status(&b, []control.Status{s}, time.Now()); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(b.String(), want) || strings.Contains(b.String(), "warm tree") != (warm != nil) {
			t.Errorf("no %q in:\n%s", want, b.String())
		}
	}
}

// TestStatusOfAlarms: an error stands there once, as an error, what only warns as a warning, and the last drills before them.
func TestStatusOfAlarms(t *testing.T) {
	now := time.Now()
	s := sample()
	s.Warn(control.Alarm{Event: control.BehindRPO, Level: control.LevelError, Message: "behind rpo 5m"})
	s.Warn(control.Alarm{Event: control.BehindRPO, Level: control.LevelWarning, Message: "behind rpo 5s of db/"})
	s.Alarms = append(s.Alarms, control.Alarm{Event: control.Stalled, Level: control.LevelError, Message: "volume projects has not moved"})
	s.Drills = []control.Drill{{Store: "vault1", At: now.Add(-3 * time.Hour), Passed: true, Seconds: 2.1}, {Store: "vault2", At: now.Add(-time.Minute), Seconds: 10}}
	var b bytes.Buffer
	if err := Status(&b, []control.Status{s}, now); err != nil {
		t.Fatal(err)
	}
	want := `vault2: connection refused
last drill: passed 3h ago, 2.1 s, from vault1
last drill: failed 1m ago, 10.0 s, from vault2
error: behind rpo 5m
error: volume projects has not moved
warning: one recipient only
warning: behind rpo 5s of db/
`
	if !strings.HasSuffix(b.String(), want) {
		t.Errorf("no\n%s in:\n%s", want, b.String())
	}
}

// TestDrills: how each host's drill went, with odd names shown as such and not too many problems.
func TestDrills(t *testing.T) {
	list := []drill.Result{
		{Volume: "projects", Seed: 7, Compared: 3, Drill: control.Drill{Store: "vault1", Passed: true, Batch: 12, Files: 20, Bytes: 3 << 20, Seconds: 2.14}},
		{Volume: "projects", Seed: 7, Drill: control.Drill{Store: "vault2"}, Problems: []drill.Problem{{Problem: "connection refused"}, {Path: "a\nb", Problem: "corrupt"}}},
	}
	for range mostProblems {
		list[1].Problems = append(list[1].Problems, drill.Problem{Path: "c", Problem: "corrupt"})
	}
	var b bytes.Buffer
	if err := Drills(&b, list); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"passed  vault1  volume projects, batch 12: 20 files, 3.0 MiB, 3 compared with the source, 2.1 s\nfailed  vault2  volume projects, 0.0 s\n        connection refused\n",
		`        "a\nb": corrupt` + "\n", "        and 2 more\nthe same sample again: --seed 7\n",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in:\n%s", want, b.String())
		}
	}
}

// terminal is a pseudo-terminal: what is written to tty is read from the other side.
func terminal(t *testing.T, write func(tty *os.File)) string {
	t.Helper()
	ptmx, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ptmx.Close() }()
	if err := unix.IoctlSetPointerInt(int(ptmx.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(ptmx.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetWinsize(int(ptmx.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 40, Col: 120}); err != nil {
		t.Fatal(err)
	}
	tty, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	var seen bytes.Buffer
	var g errgroup.Group
	g.Go(func() error { _, err := io.Copy(&seen, ptmx); return err }) // ends with EIO when the last writer has gone
	write(tty)
	if err := tty.Close(); err != nil {
		t.Fatal(err)
	}
	_ = g.Wait()
	return seen.String()
}

func TestColour(t *testing.T) {
	screen := func(tty *os.File) {
		if err := Status(tty, []control.Status{sample()}, time.Now()); err != nil {
			t.Error(err)
		}
	}
	t.Setenv("NO_COLOR", "")
	if got := terminal(t, screen); !strings.Contains(got, "\x1b[31m") || !strings.Contains(got, "\x1b[0m") {
		t.Errorf("no colour on a terminal: %q", got)
	}
	findings := func(tty *os.File) {
		if err := Doctor(tty, []doctor.Finding{{Check: "clock", Level: doctor.Fault, Says: "it stands"}}); err != nil {
			t.Error(err)
		}
	}
	drills := func(tty *os.File) {
		if err := Drills(tty, []drill.Result{{Drill: control.Drill{Store: "vault1"}}}); err != nil {
			t.Error(err)
		}
	}
	for _, show := range []func(*os.File){findings, drills} {
		if got := terminal(t, show); !strings.Contains(got, "\x1b[31m") {
			t.Errorf("no colour on a terminal: %q", got)
		}
	}
	t.Setenv("NO_COLOR", "1")
	for _, show := range []func(*os.File){screen, findings, drills} {
		if got := terminal(t, show); strings.Contains(got, "\x1b") {
			t.Errorf("colour although NO_COLOR is set: %q", got)
		}
	}
	t.Setenv("NO_COLOR", "")
	var pipe bytes.Buffer
	if err := errors.Join(Doctor(&pipe, []doctor.Finding{{Level: doctor.Fault}}), Drills(&pipe, []drill.Result{{}})); err != nil || strings.Contains(pipe.String(), "\x1b") {
		t.Errorf("colour in a pipe: %q, %v", pipe.String(), err)
	}
}

func TestProgress(t *testing.T) {
	seen := terminal(t, func(tty *os.File) {
		p := NewProgress(tty, "restore", true)
		p.Set(1<<20, 4<<20)
		p.Set(4<<20, 4<<20)
		p.End()
		p.Set(5, 5) // too late, and harmless
		p.End()
	})
	if !strings.Contains(seen, "restore") || !strings.Contains(seen, "4.0 MiB") || !strings.Contains(seen, "100 %") {
		t.Errorf("%q", seen)
	}
	unfinished := terminal(t, func(tty *os.File) {
		p := NewProgress(tty, "verify", false)
		p.Set(1, 4)
		p.End()
	})
	if !strings.Contains(unfinished, "1 / 4") {
		t.Errorf("%q", unfinished)
	}
	var b bytes.Buffer
	p := NewProgress(&b, "restore", true)
	p.Set(1, 2)
	p.End()
	if b.Len() > 0 {
		t.Errorf("%q is written where there is no terminal", b.String())
	}
}

func TestFollow(t *testing.T) {
	fault := errors.New("fault")
	var b bytes.Buffer
	asked := false
	err := NewProgress(&b, "ship", true).Follow(t.Context(), func(context.Context) error { return fault }, func() int64 { asked = true; return 1 })
	if !errors.Is(err, fault) || asked {
		t.Errorf("%v, asked %v", err, asked)
	}
	seen := terminal(t, func(tty *os.File) {
		looks := make(chan int64, 3)
		looks <- 300
		looks <- 100
		looks <- 0
		done := make(chan struct{})
		err := NewProgress(tty, "ship", false).Follow(t.Context(), func(context.Context) error { <-done; return fault }, func() int64 {
			n := <-looks
			if n == 0 {
				close(done)
			}
			return n
		})
		if !errors.Is(err, fault) {
			t.Error(err)
		}
	})
	if !strings.Contains(seen, "ship") || !strings.Contains(seen, "/ 300") {
		t.Errorf("%q", seen)
	}
}

// failing is a writer that is full.
type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, unix.ENOSPC }

// TestFullOutput: a result that cannot be written is an error, not a success.
func TestFullOutput(t *testing.T) {
	for name, err := range map[string]error{
		"status":  Status(failing{}, []control.Status{sample()}, time.Now()),
		"batches": Batches(failing{}, nil), "pending": Pending(failing{}, nil), "explained": Explained(failing{}, control.Explained{}),
		"listing": Listing(failing{}, []control.ListRow{{}}), "verified": Verified{Report: new(verify.Report)}.Text(failing{}),
		"JSON": JSON(failing{}, 1), "verified JSON": Verified{Report: new(verify.Report)}.JSON(failing{}),
	} {
		if !errors.Is(err, unix.ENOSPC) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestListing(t *testing.T) {
	var b bytes.Buffer
	at := time.Date(2026, 11, 23, 10, 0, 0, 0, time.Local)
	err := Listing(&b, []control.ListRow{
		{Path: "a", Type: "file", Mode: 0o640, UID: 1, GID: 2, Size: 12345, Mtime: at, State: "unclean"}, {Path: "d", Type: "dir", Mode: 0o1777, Mtime: at},
		{Path: "l", Type: "symlink", Mode: 0o777, Target: "x\ny", Mtime: at}, {Path: "p", Type: "fifo", Mode: 0o4700, Mtime: at},
	})
	want := `-rw-r-----  1:2  12345  2026-11-23 10:00:00  a            unclean
drwxrwxrwt  0:0  0      2026-11-23 10:00:00  d
lrwxrwxrwx  0:0  0      2026-11-23 10:00:00  l -> "x\ny"
prws------  0:0  0      2026-11-23 10:00:00  p
`
	if d := cmp.Diff(want, b.String()); d != "" || err != nil {
		t.Error(d, err)
	}
}

func TestVerifiedKeys(t *testing.T) {
	var b bytes.Buffer
	v := Verified{"vault1", "projects", true, &verify.Report{Findings: []verify.Finding{{Store: "vault1", Object: "shards/x", Err: errors.New("gone")}}, Batches: 2}}
	if err := v.JSON(&b); err != nil {
		t.Fatal(err)
	}
	dec := json.NewDecoder(&b)
	var finding, summary map[string]any
	if err := errors.Join(dec.Decode(&finding), dec.Decode(&summary)); err != nil {
		t.Fatal(err)
	}
	if finding["object"] != "shards/x" || finding["problem"] != "gone" || summary["findings"] != 1.0 || summary["batches"] != 2.0 {
		t.Errorf("%v %v", finding, summary)
	}
	b.Reset()
	v.Owner = "ssh-ed25519 AAAA"
	if err := v.Text(&b); err != nil || !strings.Contains(b.String(), "vault1: shards/x: gone\nvault1: no owner's key was given") {
		t.Errorf("%s %v", b.String(), err)
	}
}

// TestLeftOut: what is excluded says so, and by what.
func TestLeftOut(t *testing.T) {
	const why = "excluded by line 7 of the configuration"
	var out strings.Builder
	if err := Listing(&out, []control.ListRow{{Path: "a"}, {Path: "x.tmp", State: "excluded", Why: why}}); err != nil {
		t.Fatal(err)
	}
	if lines := strings.Split(out.String(), "\n"); !strings.HasSuffix(lines[0], " a") || !strings.HasSuffix(lines[1], "x.tmp  "+why) {
		t.Errorf("ls:\n%s", out.String())
	}
	out.Reset()
	if err := Pending(&out, []control.PendingRow{{Path: "x.tmp", State: "excluded", Why: why}}); err != nil {
		t.Fatal(err)
	}
	if got := out.String(); !strings.Contains(got, "\nexcluded ") || !strings.HasSuffix(got, "x.tmp  "+why+"\n") {
		t.Errorf("spool pending:\n%s", got)
	}
}

// TestNarrow: what does not fit a terminal of 40 columns is told below one another, and nothing is lost.
func TestNarrow(t *testing.T) {
	list := []control.BatchRow{{Seq: 42, Epoch: 2, Files: 3, Bytes: 4096, Stage: "cached", Stores: []string{"alpha", "cache1"}, Held: true}}
	status := []control.Status{{
		Volume: "projects", Node: "alpha", Role: "primary", HeadBatch: 42, Complete: true, Daemon: control.Running,
		Sender: control.SenderStatus{Node: "alpha", State: "sending", Batch: 42, Shards: 3, Of: 7, Rate: 1 << 20},
		Stores: []control.StoreStatus{
			{Name: "cache1", Kind: "cache", Batch: 41, LagBatches: 1, LagSeconds: 5, LagFiles: 3, LagBytes: 10 << 20, Rate: 2 << 20, State: "sending"}, {Name: "vault1", Kind: "backup", Batch: 40, State: "down"},
		},
	}}
	narrow, wide := onTerminal(t, 40), onTerminal(t, 200)
	for name, show := range map[string]func(w io.Writer) error{
		"batches": func(w io.Writer) error { return Batches(w, list) }, "status": func(w io.Writer) error { return Status(w, status, time.Now()) },
	} {
		small, large := narrow(show), wide(show)
		if n := widest(plain(small)); n > 40 && name == "batches" {
			t.Errorf("%s: %d columns\n%s", name, n, small)
		}
		for _, word := range strings.Fields(plain(large)) {
			if !strings.Contains(strings.ToLower(plain(small)), strings.ToLower(word)) && word != "→" {
				t.Errorf("%s: %q is lost:\n%s", name, word, small)
			}
		}
	}
	beside := func(text string) bool {
		for line := range strings.Lines(plain(text)) {
			if strings.Contains(line, "cache1 (cache)") && strings.Contains(line, "vault1 (backup)") {
				return true
			}
		}
		return false
	}
	show := func(w io.Writer) error { return Status(w, status, time.Now()) }
	var file strings.Builder
	if err := show(&file); err != nil || !beside(wide(show)) || !beside(file.String()) || beside(narrow(show)) {
		t.Errorf("the stores stand beside one another where there is room, and only there:\n%s\n%s", wide(show), narrow(show))
	}
	text := wide(show)
	if !strings.Contains(text, "\x1b[31m") || !strings.Contains(plain(text), "sender: alpha sending batch 42, 3 of 7 shards, 1.0 MiB/s\n") || !strings.Contains(text, "2.0 MiB/s, about 5s") || !strings.Contains(text, "3 files, 10 MiB to go") {
		t.Errorf("%q", text)
	}
	t.Setenv("NO_COLOR", "1")
	if text := wide(func(w io.Writer) error { return Status(w, status, time.Now()) }); strings.Contains(text, "\x1b[") {
		t.Errorf("colours although NO_COLOR is set: %q", text)
	}
	var pipe strings.Builder
	if err := Status(&pipe, status, time.Now()); err != nil || strings.Contains(pipe.String(), "\x1b[") {
		t.Errorf("colours in a pipe: %q, %v", pipe.String(), err)
	}
}

// TestEighty: on a terminal of 80 columns a listing is a table, a line for each batch where three stores hold it, and what is said at length
// is folded in the last column.
func TestEighty(t *testing.T) {
	show := onTerminal(t, 80)
	batches := []control.BatchRow{
		{Seq: 42, Epoch: 2, Files: 3, Bytes: 4096, Shards: 7, Stage: "stored", Copies: 2, Stores: []string{"cache1", "vault1", "vault2"}},
		{Seq: 43, Epoch: 2, Files: 3, Bytes: 4096, Shards: 7, Stage: "cached", Stores: []string{"replica1", "replica2", "cache1"}, Held: true},
	}
	got := plain(show(func(w io.Writer) error { return Batches(w, batches) }))
	if n := strings.Count(got, "\n"); n != 4 || widest(got) > 80 || !strings.Contains(got, "cache1 vault1 vault2\n") || !strings.HasSuffix(got, "replica1 replica2\n"+strings.Repeat(" ", widest(got)-17-3)+"cache1 (held)\n") {
		t.Errorf("%d lines, %d columns\n%s", n, widest(got), got)
	}
	pending := []control.PendingRow{{State: "open", Bytes: 1, Path: "reports/2026.odt", Why: "open for writing; read every 30s while it changes"}}
	got = plain(show(func(w io.Writer) error { return Pending(w, pending) }))
	if !strings.HasPrefix(got, "STATE ") || widest(got) > 80 {
		t.Errorf("%d columns\n%s", widest(got), got)
	}
	for _, word := range strings.Fields(pending[0].Why) {
		if !strings.Contains(got, word) {
			t.Errorf("%q is lost\n%s", word, got)
		}
	}
}

// TestHeading: what a volume's first lines say of what is not whole, and of a daemon that does not answer.
func TestHeading(t *testing.T) {
	now := time.Date(2026, 12, 1, 10, 0, 0, 0, time.UTC)
	for want, s := range map[string]control.Status{
		"v  primary a, epoch 1, head batch 7\n":                                                         {HeadBatch: 7, Complete: true, Waiting: "x"},
		"v  primary a, epoch 1, head batch 7, incomplete: a start\n":                                    {HeadBatch: 7, Waiting: "a start"},
		"v  primary a, epoch 1, head batch 7, incomplete\n":                                             {HeadBatch: 7},
		"v  primary a, epoch 1, head batch 0\n":                                                         {},
		"v  primary a, epoch 1, head batch 1\nthe daemon is dead; its last answer is 1m30s old\n":       {HeadBatch: 1, Complete: true, Daemon: control.Dead, At: now.Add(-90 * time.Second)},
		"v  primary a, epoch 1, head batch 1\nthe daemon is dead; when it last answered is not known\n": {HeadBatch: 1, Complete: true, Daemon: control.Dead},
	} {
		s.Volume, s.Node, s.Role, s.Epoch = "v", "a", "primary", 1
		if s.Daemon == "" {
			s.Daemon = control.Running
		}
		var b strings.Builder
		if heading(&b, false, s, now); b.String() != want+"\n" {
			t.Errorf("%q, want %q", b.String(), want)
		}
	}
}

// TestSending: who is not sending anything is not told of; a trouble is told unless a store's error says it.
func TestSending(t *testing.T) {
	for want, s := range map[string]control.Status{
		"": {Sender: control.SenderStatus{Node: "alpha", State: "idle"}}, "alpha waiting": {Sender: control.SenderStatus{Node: "alpha", State: "waiting"}},
		"alpha idle batch 3, 1 of 2 shards": {Sender: control.SenderStatus{Node: "alpha", State: "idle", Batch: 3, Shards: 1, Of: 2}},
		"alpha failing: no route":           {Sender: control.SenderStatus{Node: "alpha", State: "failing", Trouble: "no route"}, Stores: []control.StoreStatus{{}, {Error: "refused"}}},
		"alpha failing":                     {Sender: control.SenderStatus{Node: "alpha", State: "failing", Trouble: "push: no route"}, Stores: []control.StoreStatus{{Error: "no route"}}},
	} {
		if got := sending(s); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// TestStoreCell: what is told of a store, and what of it there is to tell.
func TestStoreCell(t *testing.T) {
	spool := control.SpoolStatus{Bytes: 1024, Cap: 2048}
	for want, st := range map[string]control.StoreStatus{
		"c (cache)|batch 1|ok":                                   {Kind: "cache", State: "ok"},
		"c (cache)|batch 1, 2 behind|5.0 MiB to go|waiting":      {Kind: "cache", State: "waiting", LagBatches: 2, LagBytes: 5 << 20},
		"c (cache)|batch 1, 1 behind, 2s|3 files, 1.0 MiB to go": {Kind: "cache", LagBatches: 1, LagSeconds: 2, LagFiles: 3, LagBytes: 1 << 20},
		"c (cache)|batch 1|1.0 MiB/s, about 5s|sending":          {Kind: "cache", State: "sending", Rate: 1 << 20, LagBytes: 5 << 20},
		"c (cache)|batch 1|1.0 MiB/s|down":                       {Kind: "cache", State: "down", Rate: 1 << 20, LagBytes: 5 << 20},
		"c (cache)|batch 1|1.0 MiB/s|waiting":                    {Kind: "cache", State: "waiting", Rate: 1 << 20, LagBytes: 5 << 20},
		"c (cache)|batch 1|1.0 MiB/s":                            {Kind: "cache", Rate: 1 << 20},
		"c (own)|batch 1|1.0 KiB of 2.0 KiB":                     {Kind: "own"},
	} {
		st.Name, st.Batch = "c", 1
		if got := strings.Join(storeCell(st, spool), "|"); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	if got := strings.Join(storeCell(control.StoreStatus{Name: "c", Kind: "own"}, control.SpoolStatus{}), "|"); got != "c (own)|batch 0" {
		t.Errorf("without a cap: %q", got)
	}
}

// TestLine: the line for systemd names what is not as it should be.
func TestLine(t *testing.T) {
	for want, s := range map[string]control.Status{
		"v: batch 7": {Stores: []control.StoreStatus{{Name: "c", State: "ok"}}},
		"v: batch 7, 1 file pending, c waiting, 2 behind, d down, 0 behind, 1 warning": {
			Pending: control.PendingStatus{Files: 1}, Stores: []control.StoreStatus{{Name: "c", State: "waiting", LagBatches: 2}, {Name: "d", State: "down"}}, Warnings: []string{"x"},
		},
	} {
		s.Volume, s.HeadBatch = "v", 7
		if got := Line([]control.Status{s}); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// TestExplainedLines: each line stands where there is something to say, and only there.
func TestExplainedLines(t *testing.T) {
	at, eta := time.Date(2026, 11, 23, 10, 0, 0, 0, time.Local), 90.0
	for want, e := range map[string]control.Explained{
		"path . (the volume's own directory)|stage pending":                                       {Stage: "pending"},
		"path a|stage pending|since 2026-11-23 10:00:00|waiting for the window|expected in 1m30s": {Path: "a", Stage: "pending", Since: &at, WaitingFor: "waits for the window", ETASeconds: &eta},
		"path a|stage sealed|batch 3|copies 0|in alpha|sealed 2026-11-23 10:00:00 alpha|below it not all is sealed: b|versions sealed: with --identity FILE they are listed": {
			Path: "a", Stage: "sealed", Batch: 3, Stores: []string{"alpha"}, Since: &at, Below: "b", Reached: []control.Reached{{Stage: "sealed", At: at, Store: "alpha"}},
		},
	} {
		var b strings.Builder
		if err := Explained(&b, e); err != nil {
			t.Error(err)
		}
		var lines []string
		for line := range strings.Lines(b.String()) {
			lines = append(lines, strings.Join(strings.Fields(line), " "))
		}
		if got := strings.Join(lines, "|"); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// TestToldOnce: an error that stands as a store's is no warning besides, and whether the node may be switched off stands first.
func TestToldOnce(t *testing.T) {
	s := sample()
	s.Warnings = []string{"connection refused", "one recipient only"}
	s.Stores[3].State, s.Stores[3].WaitsFor, s.Stores[3].LagSeconds = "waiting", "the window 22:00-06:00, in 3h12m", 0
	s.Stores[3].Rate, s.Stores[3].LagBytes = 1<<20, 5<<20
	s.SwitchOff = &control.SwitchOff{Why: "3 files not sealed"}
	var b bytes.Buffer
	if err := Status(&b, []control.Status{s}, time.Now()); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(b.String(), "about") {
		t.Errorf("what waits is told to be there soon\n%s", b.String())
	}
	if !strings.Contains(b.String(), "\nsafe to switch off? no: 3 files not sealed\nvault1: waits for the window 22:00-06:00, in 3h12m\nvault2: connection refused\nwarning: one recipient only\n") || !regexp.MustCompile(`batch 1203, 1 behind\n`).MatchString(b.String()) {
		t.Errorf("%s", b.String())
	}
}

// plain removes colours and the carriage returns that a terminal adds.
func plain(s string) string {
	return strings.ReplaceAll(regexp.MustCompile("\x1b\\[[0-9]*m").ReplaceAllString(s, ""), "\r", "")
}

// onTerminal returns what runs something that writes to a terminal of a width, and reads what came out at its other end.
func onTerminal(t *testing.T, width uint16) func(show func(w io.Writer) error) string {
	return func(show func(w io.Writer) error) string {
		t.Helper()
		master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = master.Close() }()
		if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
			t.Fatal(err)
		}
		n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
		if err != nil {
			t.Fatal(err)
		}
		terminal, err := os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.IoctlSetWinsize(int(terminal.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: width}); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(show(terminal), terminal.Close()); err != nil {
			t.Fatal(err)
		}
		out := make([]byte, 1<<16) // the terminal's own buffer is smaller
		got, err := master.Read(out)
		if err != nil {
			t.Fatal(err)
		}
		return string(out[:got])
	}
}
