package ack

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"slipway/internal/batch"
	"slipway/internal/store"
)

func testStore(t *testing.T) (store.Store, string) {
	t.Helper()
	dir := t.TempDir()
	s, err := store.Open(dir, store.Options{})
	must(t, err)
	return s, dir
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func example() Acks {
	now := time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)
	a := Acks{VolumeID: batch.NewVolumeID(), Store: "vault1", Kind: "backup", URL: "sftp://slipway@vault1/data", At: now}
	a.Advance(1, 1, batch.Digest{1}, now)
	a.Advance(1, 2, batch.Digest{2}, now.Add(time.Second))
	a.Verified = 1
	a.Refuse(Refusal{Name: "shards/aa/aa.shard", Reason: "digest", At: now})
	return a
}

func TestWriteRead(t *testing.T) {
	s, _ := testStore(t)
	ctx := context.Background()
	if _, err := Read(ctx, s, "vault1"); !errors.Is(err, store.ErrNotExist) {
		t.Errorf("no acks: %v", err)
	}
	a := example()
	must(t, Write(ctx, s, a))
	got, err := Read(ctx, s, "vault1")
	must(t, err)
	a.Format = Format
	want, _ := json.Marshal(a)
	have, _ := json.Marshal(got)
	if string(want) != string(have) {
		t.Errorf("read %s\nwrote %s", have, want)
	}
	a.Advance(1, 3, batch.Digest{3}, time.Now())
	must(t, Write(ctx, s, a)) // replaced
	if got, err = Read(ctx, s, "vault1"); err != nil || got.Head != 3 {
		t.Errorf("replaced: head %d, %v", got.Head, err)
	}
}

func TestReadAll(t *testing.T) {
	s, dir := testStore(t)
	ctx := context.Background()
	if all, err := ReadAll(ctx, s); err != nil || len(all) != 0 {
		t.Errorf("of nothing: %v, %v", all, err)
	}
	for _, name := range []string{"cache1", "vault1", "vault2"} {
		a := example()
		a.Store = name
		must(t, Write(ctx, s, a))
	}
	must(t, os.WriteFile(filepath.Join(dir, Path("vault1")), []byte("{"), 0o640))
	must(t, os.WriteFile(filepath.Join(dir, "acks", "notes.txt"), []byte("not ours"), 0o640))
	must(t, os.Mkdir(filepath.Join(dir, "acks", "dir.json"), 0o750))
	all, err := ReadAll(ctx, s)
	if !errors.Is(err, ErrFormat) {
		t.Errorf("the damaged one: %v", err)
	}
	if len(all) != 2 || all[0].Store != "cache1" || all[1].Store != "vault2" {
		t.Errorf("the others: %+v", all)
	}
}

// TestRateAt: a rate that nobody tells anew is none.
func TestRateAt(t *testing.T) {
	now := time.Now()
	for age, want := range map[time.Duration]float64{0: 7, TellRateEvery: 7, -time.Minute: 7, time.Hour: 0} {
		a := Acks{Rate: 7, At: now.Add(-age)}
		if got := a.RateAt(now); got != want {
			t.Errorf("told %v ago: %v, want %v", age, got, want)
		}
	}
}

// TestHostile: whatever lies under the name, reading it ends with an error, soon and small.
func TestHostile(t *testing.T) {
	edit := func(change func(a *Acks)) []byte {
		a := example()
		a.Format = Format
		change(&a)
		data, err := json.Marshal(a)
		must(t, err)
		return data
	}
	now := time.Now()
	tests := map[string][]byte{
		"empty":             {},
		"no object":         []byte("[]"),
		"newer":             edit(func(a *Acks) { a.Format = 2 }),
		"no format":         []byte("{}"),
		"other store":       edit(func(a *Acks) { a.Store = "vault2" }),
		"path as a name":    edit(func(a *Acks) { a.Store = "../vault1" }),
		"verified too much": edit(func(a *Acks) { a.Verified = 3 }),
		"negative rate":     edit(func(a *Acks) { a.Rate = -1 }),
		"mark above head":   edit(func(a *Acks) { a.Recent = append(a.Recent, Mark{Seq: 9, At: now}) }),
		"marks in disorder": edit(func(a *Acks) { a.Recent[1].Seq = 1 }),
		"times in disorder": edit(func(a *Acks) { a.Recent[1].At = a.Recent[0].At.Add(-time.Hour) }),
		"endless marks": edit(func(a *Acks) {
			a.Head, a.Recent = 1000, nil
			for i := range 300 {
				a.Recent = append(a.Recent, Mark{Seq: batch.Seq(i), At: now})
			}
		}),
		"endless error": edit(func(a *Acks) { a.Error = strings.Repeat("x", 5000) }),
		"wrong types":   []byte(`{"format":1,"head":"all"}`),
		"negative":      []byte(`{"format":1,"store":"vault1","head":-1}`),
		"huge":          []byte(`{"format":1,"error":"` + strings.Repeat("x", MaxSize) + `"}`),
	}
	for name, data := range tests {
		t.Run(name, func(t *testing.T) {
			s, dir := testStore(t)
			must(t, os.Mkdir(filepath.Join(dir, "acks"), 0o750))
			must(t, os.WriteFile(filepath.Join(dir, Path("vault1")), data, 0o640))
			if a, err := Read(context.Background(), s, "vault1"); err == nil {
				t.Errorf("read %+v", a)
			}
			if name != "other store" {
				if _, err := Decode(data); !errors.Is(err, ErrFormat) {
					t.Errorf("decode: %v", err)
				}
			}
		})
	}
	t.Run("name", func(t *testing.T) {
		s, _ := testStore(t)
		if _, err := Read(context.Background(), s, "../../etc/passwd"); err == nil || errors.Is(err, store.ErrNotExist) {
			t.Errorf("got %v", err)
		}
	})
}

func TestAdvanceIsMonotonic(t *testing.T) {
	a := example()
	at := a.Recent[1].At
	before := fmt.Sprint(a)
	a.Advance(1, 2, batch.Digest{9}, at.Add(time.Hour))
	a.Advance(1, 1, batch.Digest{9}, at.Add(time.Hour))
	a.Advance(0, 7, batch.Digest{9}, at.Add(time.Hour))
	if fmt.Sprint(a) != before {
		t.Errorf("the head went back: %v", a)
	}
	a.Advance(2, 3, batch.Digest{3}, at.Add(-time.Hour)) // the clock was set back
	if a.Head != 3 || a.Epoch != 2 || !a.Recent[2].At.Equal(at) {
		t.Errorf("got %+v", a)
	}
	if a.check() != nil {
		t.Error("what Advance makes is refused by Read")
	}
}

func TestBounds(t *testing.T) {
	s, dir := testStore(t)
	a := example()
	for i := range 2000 {
		a.Advance(1, batch.Seq(3+i), batch.Digest{}, a.At.Add(time.Duration(i)*time.Minute))
		a.Refuse(Refusal{Name: fmt.Sprintf("shards/%d", i), Reason: strings.Repeat("ü", 5000), At: a.At})
	}
	if len(a.Recent) != MaxRecent || len(a.Refused) != MaxRefused || a.Recent[MaxRecent-1].Seq != a.Head {
		t.Fatalf("%d marks, %d refusals", len(a.Recent), len(a.Refused))
	}
	a.Error = strings.Repeat("\xff", 5000)
	must(t, Write(context.Background(), s, a))
	if st, err := os.Stat(filepath.Join(dir, Path("vault1"))); err != nil || st.Size() > MaxSize {
		t.Errorf("%d bytes, %v", st.Size(), err)
	}
	if _, err := Read(context.Background(), s, "vault1"); err != nil {
		t.Error(err)
	}
	if len(a.Refused[0].Reason) < 5000 {
		t.Error("Write changed what it was given")
	}
}

func TestRefuseReplaces(t *testing.T) {
	a := example()
	a.Refuse(Refusal{Name: "shards/aa/aa.shard", Reason: "size"})
	a.Refuse(Refusal{Name: "shards/bb/bb.shard", Reason: "size"})
	if len(a.Refused) != 2 || a.Refused[0].Reason != "size" {
		t.Errorf("got %+v", a.Refused)
	}
}

func TestRewind(t *testing.T) {
	a := example()
	a.Advance(2, 3, batch.Digest{3}, a.At.Add(time.Hour))
	a.Verified = 3
	a.Rewind(1, 5, batch.Digest{5})
	if a.Head != 3 {
		t.Error("went forward")
	}
	a.Rewind(1, 1, batch.Digest{1})
	if a.Head != 1 || a.Epoch != 1 || a.HeadDigest != (batch.Digest{1}) || a.Verified != 1 || len(a.Recent) != 1 || a.check() != nil {
		t.Errorf("got %+v", a)
	}
	a.Advance(1, 2, batch.Digest{2}, a.At)
	if a.Head != 2 {
		t.Error("does not go on")
	}
}

func TestWord(t *testing.T) {
	for want, a := range map[string]Acks{
		"ok": {}, "full": {Full: true, Error: "no room"}, "down": {Error: "no answer"}, "refused": {Error: "another host key", State: Refused},
	} {
		if got := a.Word(); got != want {
			t.Errorf("%+v: %s", a, got)
		}
	}
	if a := (Acks{Error: "new", State: "unheard of"}); a.Word() != "down" {
		t.Errorf("a later state: %s", a.Word())
	}
}

func TestReachedAt(t *testing.T) {
	a := example()
	for seq, want := range map[batch.Seq]time.Time{1: a.Recent[0].At, 2: a.Recent[1].At} {
		if got, ok := a.ReachedAt(seq); !ok || !got.Equal(want) {
			t.Errorf("batch %d: %v, %v", seq, got, ok)
		}
	}
	if _, ok := a.ReachedAt(3); ok {
		t.Error("above the head")
	}
	a.Advance(1, 900, batch.Digest{}, a.At.Add(time.Hour))
	if got, ok := a.ReachedAt(500); !ok || !got.Equal(a.At.Add(time.Hour)) {
		t.Errorf("passed over: %v, %v", got, ok)
	}
	for i := range 300 {
		a.Advance(1, batch.Seq(901+i), batch.Digest{}, a.At.Add(2*time.Hour))
	}
	if _, ok := a.ReachedAt(2); ok {
		t.Error("the marks do not go back so far")
	}
}

func TestStored(t *testing.T) {
	cache := func(copies int) Acks { return Acks{Kind: "cache", Copies: copies, Head: 9} }
	backup := func(head batch.Seq) Acks { return Acks{Kind: "backup", Head: head} }
	replica := Acks{Kind: "replica", Head: 9}
	for name, tt := range map[string]struct {
		all  []Acks
		want batch.Seq
	}{
		"nothing": {nil, 0}, "nobody says how many": {[]Acks{backup(5), backup(6)}, 0}, "no copies asked for": {[]Acks{cache(0), backup(5)}, 0},
		"less than none": {[]Acks{cache(-1), backup(5)}, 0}, "more than there are": {[]Acks{backup(5), cache(2)}, 0},
		"beyond all": {[]Acks{cache(1 << 40), backup(5)}, 0}, "one": {[]Acks{cache(1), backup(3), backup(5), backup(4)}, 5},
		"two": {[]Acks{backup(3), backup(5), cache(2), backup(4)}, 4}, "all": {[]Acks{cache(3), backup(3), backup(5), backup(4)}, 3},
		"one has nothing": {[]Acks{cache(2), backup(3), backup(0)}, 0}, "a replica is no backup": {[]Acks{cache(1), replica, backup(2)}, 2},
	} {
		if got := Stored(tt.all); got != tt.want {
			t.Errorf("%s: %d, want %d", name, got, tt.want)
		}
	}
}

func FuzzDecode(f *testing.F) {
	a := example()
	a.Format = Format
	seed, _ := json.Marshal(a)
	f.Add(seed)
	f.Add([]byte(`{"format":1,"store":"a","recent":[{"seq":1}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		a, err := Decode(data)
		if err != nil {
			return
		}
		a.Advance(a.Epoch, a.Head+1, batch.Digest{}, time.Now())
		if err := a.check(); err != nil && a.Head != 0 {
			t.Errorf("advanced: %v", err)
		}
	})
}

// TestWaitsAt: the words of a wait, with the time that is left, while it is one.
func TestWaitsAt(t *testing.T) {
	now := time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)
	soon, past := now.Add(90*time.Minute), now.Add(-time.Hour)
	for want, a := range map[string]Acks{
		"the window 11:30-12:00, in 1h30m": {Waits: &Wait{For: "the window 11:30-12:00", Until: &soon}},
		"an operator":                      {Waits: &Wait{For: "an operator"}},
		"":                                 {Waits: &Wait{For: "what should have come", Until: &past}},
	} {
		if got := a.WaitsAt(now); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	if a := (Acks{Error: "down", Waits: &Wait{For: "an operator"}}); a.WaitsAt(now) != "" {
		t.Errorf("a store that is down: %q", a.WaitsAt(now))
	}
}

// TestWordAt: what waits as the operator has set is where it should be, until the time has passed at which it should have gone.
func TestWordAt(t *testing.T) {
	now := time.Date(2026, 11, 23, 22, 0, 0, 0, time.UTC)
	at := func(d time.Duration) *time.Time { u := now.Add(d); return &u }
	for _, tt := range []struct {
		a    Acks
		want string
	}{
		{Acks{}, "ok"},
		{Acks{Waits: &Wait{From: 1}}, "waiting"},
		{Acks{Waits: &Wait{From: 1, Until: at(time.Hour)}}, "waiting"},
		{Acks{Waits: &Wait{From: 1, Until: at(-time.Minute)}}, "waiting"},
		{Acks{Waits: &Wait{From: 1, Until: at(-time.Hour)}}, "ok"},
		{Acks{Waits: &Wait{From: 1}, Error: "no answer"}, "down"},
	} {
		if got := tt.a.WordAt(now); got != tt.want {
			t.Errorf("%+v is %s, want %s", tt.a, got, tt.want)
		}
	}
}
