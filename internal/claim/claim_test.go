package claim

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"slipway/internal/batch"
	"slipway/internal/sshd"
	"slipway/internal/store"
)

var volume = batch.VolumeID{0x5e, 1}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func testStore(t *testing.T) (store.Store, string) {
	t.Helper()
	dir := t.TempDir()
	s, err := store.Open(dir, store.Options{})
	must(t, err)
	return s, dir
}

func example() Claim {
	return Claim{
		Format: Format, VolumeID: volume, Epoch: 2, Term: 3, Node: "bravo", By: "charlie", Nonce: "000102030405060708090a0b0c0d0e0f",
		Reason: "alpha is silent", Prefer: "bravo", Avoid: []string{"alpha"}, At: time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC),
	}
}

// golden is what the file holds, byte by byte: other versions read it.
const golden = `{
 "format": 1,
 "volume_id": "5e010000000000000000000000000000",
 "epoch": 2,
 "term": 3,
 "node": "bravo",
 "by": "charlie",
 "nonce": "000102030405060708090a0b0c0d0e0f",
 "reason": "alpha is silent",
 "prefer": "bravo",
 "avoid": [
  "alpha"
 ],
 "at": "2026-11-23T10:00:00Z"
}
`

func TestGolden(t *testing.T) {
	s, dir := testStore(t)
	must(t, Create(t.Context(), s, example()))
	data, err := os.ReadFile(filepath.Join(dir, "claims", "2-3"))
	must(t, err)
	if string(data) != golden {
		t.Errorf("wrote %s", data)
	}
	c, err := Read(t.Context(), s, 2, 3)
	if err != nil || c.Node != "bravo" || c.Nonce != example().Nonce || len(c.Avoid) != 1 {
		t.Errorf("read %+v, %v", c, err)
	}
}

func TestNames(t *testing.T) {
	for name, want := range map[string][2]uint64{
		"claims/1-0": {1, 0}, "claims/2-17": {2, 17}, "claims/99999999-4294967295": {uint64(batch.MaxEpoch), math.MaxUint32},
	} {
		e, term, err := ParsePath(name)
		if err != nil || uint64(e) != want[0] || uint64(term) != want[1] || Path(e, term) != name {
			t.Errorf("%s: %d-%d, %v", name, e, term, err)
		}
	}
	for _, name := range []string{
		"", "claims/", "claims/1", "claims/1-", "claims/-1", "claims/0-1", "claims/01-1", "claims/1-01", "claims/1-+1", "claims/1--1", "claims/1-1-1",
		"claims/100000000-1", "claims/1-4294967296", "claims/1-1 ", "claims/1-1.json", "1-1", "claims/claims/1-1", "claims/1_0-1", "claims/0x1-1",
	} {
		if e, term, err := ParsePath(name); !errors.Is(err, ErrFormat) {
			t.Errorf("%q: %d-%d, %v", name, e, term, err)
		}
	}
}

// TestUntrue: what no honest node claims is neither made nor read.
func TestUntrue(t *testing.T) {
	for name, change := range map[string]func(c *Claim){
		"newer": func(c *Claim) { c.Format = 2 }, "no node": func(c *Claim) { c.Node = "" }, "node is a path": func(c *Claim) { c.Node = "../alpha" },
		"nobody made it": func(c *Claim) { c.By = "" }, "prefers no node": func(c *Claim) { c.Prefer = "a b" },
		"avoids no node": func(c *Claim) { c.Avoid = []string{"alpha", "-"} },
		"avoids all":     func(c *Claim) { c.Avoid = strings.Split(strings.Repeat("alpha ", maxAvoid)+"alpha", " ") },
		"no epoch":       func(c *Claim) { c.Epoch = 0 }, "epoch beyond all": func(c *Claim) { c.Epoch = batch.MaxEpoch + 1 },
		"no nonce": func(c *Claim) { c.Nonce = "" }, "endless nonce": func(c *Claim) { c.Nonce = strings.Repeat("0", 33) },
		"endless reason": func(c *Claim) { c.Reason = strings.Repeat("x", maxText+1) },
	} {
		t.Run(name, func(t *testing.T) {
			s, dir := testStore(t)
			c := example()
			change(&c)
			if err := Create(t.Context(), s, c); !errors.Is(err, ErrFormat) {
				t.Errorf("create: %v", err)
			}
			if list, err := os.ReadDir(dir); err != nil || len(list) != 0 {
				t.Errorf("something was written: %v, %v", list, err)
			}
			data, err := json.Marshal(c)
			must(t, err)
			if _, err := Decode(data); !errors.Is(err, ErrFormat) {
				t.Errorf("decode: %v", err)
			}
		})
	}
	for name, data := range map[string][]byte{
		"empty": {}, "no object": []byte("[]"), "no format": []byte("{}"), "two": []byte(golden + golden), "half": []byte(golden[:80]),
		"term beyond 32 bits": []byte(strings.Replace(golden, `"term": 3`, `"term": 4294967296`, 1)),
		"huge":                append([]byte(golden), bytes.Repeat([]byte(" "), MaxSize)...),
	} {
		if c, err := Decode(data); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %+v, %v", name, c, err)
		}
	}
}

// TestNewFits: whatever the reason, what New makes can be created and read; and no two are taken for one another.
func TestNewFits(t *testing.T) {
	s, _ := testStore(t)
	nonces := map[string]bool{}
	for i, reason := range []string{"", strings.Repeat("ü", 2000), strings.Repeat("\xff", 1000), strings.Repeat("\x01", 5000), strings.Repeat("x", maxText-1) + "ü"} {
		c := New(volume, 1, batch.Term(i+1), "alpha", "alpha", reason, time.Now())
		for range maxAvoid {
			c.Avoid = append(c.Avoid, strings.Repeat("n", 63))
		}
		must(t, Create(t.Context(), s, c))
		got, err := Read(t.Context(), s, 1, c.Term)
		if err != nil || got.Nonce != c.Nonce || nonces[c.Nonce] {
			t.Errorf("reason %d: %v, nonce %s", i, err, c.Nonce)
		}
		nonces[c.Nonce] = true
	}
}

// openSSH returns two connections to one store behind a real server.
func openSSH(t *testing.T) (a, b store.Store) {
	t.Helper()
	server, err := sshd.Start(t.TempDir(), sshd.Options{})
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	var g errgroup.Group
	g.Go(func() error { return server.Serve(ctx) })
	t.Cleanup(func() { cancel(); must(t, g.Wait()) })
	url := server.URL(t.TempDir())
	var list [2]store.Store
	for i := range list {
		list[i], err = store.Open(url, store.Options{KeyFile: server.KeyFile, KnownHosts: []string{server.KnownHosts}, Connections: 1})
		must(t, err)
		t.Cleanup(func() { _ = list[i].Close() })
	}
	return list[0], list[1]
}

// TestRace: of two nodes that claim one term at the same moment exactly one gets it, and both see which.
func TestRace(t *testing.T) {
	for _, kind := range []string{"directory", "sshd"} {
		t.Run(kind, func(t *testing.T) {
			s, _ := testStore(t)
			stores := [2]store.Store{s, s}
			rounds := batch.Term(30)
			if kind == "sshd" {
				stores[0], stores[1] = openSSH(t)
				rounds = 10
			}
			for term := batch.Term(1); term <= rounds; term++ {
				var errs [2]error
				var claims [2]Claim
				var g errgroup.Group
				for i, node := range []string{"bravo", "charlie"} {
					claims[i] = New(volume, 1, term, node, node, "alpha is silent", time.Now())
					g.Go(func() error { errs[i] = Create(t.Context(), stores[i], claims[i]); return nil })
				}
				must(t, g.Wait())
				winner := 0
				if errs[0] != nil {
					winner = 1
				}
				if errs[winner] != nil || !errors.Is(errs[1-winner], ErrTaken) {
					t.Fatalf("term %d: %v", term, errs)
				}
				for i, s := range stores {
					c, found, err := Newest(t.Context(), s, volume, 1)
					if err != nil || !found || c.Nonce != claims[winner].Nonce || c.Term != term {
						t.Fatalf("term %d, node %d sees %+v, %v, %v", term, i, c, found, err)
					}
				}
				must(t, Create(t.Context(), stores[winner], claims[winner])) // asked again, it is still its own
				if err := Create(t.Context(), stores[1-winner], claims[1-winner]); !errors.Is(err, ErrTaken) {
					t.Fatalf("again: %v", err)
				}
			}
		})
	}
}

// deaf loses replies: what is asked for is done, or not, and the caller hears nothing.
type deaf struct {
	store.Store
	do       bool
	deafRead bool
	deafTo   string // one name
}

func (d *deaf) CreateExclusive(ctx context.Context, name string, data []byte) error {
	if d.do {
		if err := d.Store.CreateExclusive(ctx, name, data); err != nil {
			return err
		}
	}
	return store.ErrTemporary
}

func (d *deaf) Read(ctx context.Context, name string, most int64) ([]byte, error) {
	if d.deafRead || name == d.deafTo {
		return nil, store.ErrTemporary
	}
	return d.Store.Read(ctx, name, most)
}

func TestLostReply(t *testing.T) {
	s, _ := testStore(t)
	ctx := t.Context()
	c, other := example(), example()
	other.Nonce = strings.Repeat("f", 32)
	if err := Create(ctx, &deaf{Store: s}, c); !errors.Is(err, store.ErrTemporary) || errors.Is(err, ErrTaken) {
		t.Errorf("not done, not heard: %v", err)
	}
	if err := Create(ctx, &deaf{Store: s, do: true, deafRead: true}, c); !errors.Is(err, store.ErrTemporary) || errors.Is(err, ErrTaken) {
		t.Errorf("done, and nothing heard of it: %v", err)
	}
	must(t, Create(ctx, s, c)) // the next call finds its own
	if err := Create(ctx, &deaf{Store: s}, other); !errors.Is(err, ErrTaken) {
		t.Errorf("another's is there: %v", err)
	}
	c.Term, other.Term = 4, 4
	must(t, Create(ctx, &deaf{Store: s, do: true}, c))
	if err := Create(ctx, s, other); !errors.Is(err, ErrTaken) {
		t.Errorf("another's is there: %v", err)
	}
}

// TestNewest passes over whatever is no claim of this volume and epoch, and says so.
func TestNewest(t *testing.T) {
	s, dir := testStore(t)
	ctx := t.Context()
	newest := func(want batch.Term, faulty bool) {
		t.Helper()
		c, found, err := Newest(ctx, s, volume, 1)
		if found != (want > 0) || c.Term != want || (err != nil) != faulty {
			t.Fatalf("newest is %d, found %v, %v; want %d", c.Term, found, err, want)
		}
	}
	newest(0, false)
	put := func(name string, data []byte) {
		t.Helper()
		must(t, os.WriteFile(filepath.Join(dir, "claims", name), data, 0o640))
	}
	make := func(term batch.Term, edit func(*Claim)) []byte {
		c := New(volume, 1, term, "bravo", "bravo", "", time.Now())
		if edit != nil {
			edit(&c)
		}
		data, err := json.Marshal(c)
		must(t, err)
		return data
	}
	must(t, Create(ctx, s, New(volume, 1, 2, "bravo", "bravo", "", time.Now())))
	must(t, Create(ctx, s, New(volume, 2, 9, "bravo", "bravo", "", time.Now()))) // of another epoch
	newest(2, false)
	put("1-10", make(10, nil))
	put("01-11", make(11, nil)) // no claim's names
	put("1-12.json", make(12, nil))
	must(t, os.Mkdir(filepath.Join(dir, "claims", "1-13"), 0o750))
	must(t, os.Symlink("1-10", filepath.Join(dir, "claims", "1-14")))
	must(t, unix.Mkfifo(filepath.Join(dir, "claims", "1-15"), 0o640))
	newest(10, false)
	put("1-20", []byte("{"))
	put("1-21", make(22, nil)) // inside it is another
	put("1-23", make(23, func(c *Claim) { c.VolumeID[0]++ }))
	put("1-24", make(24, func(c *Claim) { c.Epoch = 2 }))
	put("1-25", make(25, func(c *Claim) { c.Format = 2 }))
	put("1-26", nil)
	must(t, os.Truncate(filepath.Join(dir, "claims", "1-26"), 1<<40))
	put("1-4294967295", make(math.MaxUint32, nil)) // not reached by takeovers
	put("1-2000000", make(2000000, nil))
	newest(10, true)
	if _, _, err := Newest(ctx, s, volume, 1); !errors.Is(err, ErrFormat) {
		t.Errorf("the others: %v", err)
	}
	put("1-1000000", make(1000000, nil)) // could be, so it is
	newest(1000000, true)
}

// TestNewestUnheard: a store that does not answer is not one without claims.
func TestNewestUnheard(t *testing.T) {
	s, _ := testStore(t)
	must(t, Create(t.Context(), s, New(volume, 1, 1, "bravo", "bravo", "", time.Now())))
	must(t, Create(t.Context(), s, New(volume, 1, 2, "bravo", "bravo", "", time.Now())))
	if c, found, err := Newest(t.Context(), &deaf{Store: s, deafRead: true}, volume, 1); found || !errors.Is(err, store.ErrTemporary) {
		t.Errorf("%+v, %v, %v", c, found, err)
	}
	if c, found, err := Newest(t.Context(), &deaf{Store: s, deafTo: Path(1, 2)}, volume, 1); found || !errors.Is(err, store.ErrTemporary) {
		t.Errorf("the older one is taken for the newest: %+v, %v, %v", c, found, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if c, found, err := Newest(ctx, s, volume, 1); found || !errors.Is(err, context.Canceled) {
		t.Errorf("%+v, %v, %v", c, found, err)
	}
}

// TestAfter: a number is taken by whatever has its name, readable or not.
func TestAfter(t *testing.T) {
	s, dir := testStore(t)
	ctx := t.Context()
	after := func(e batch.Epoch, of, want batch.Term) {
		t.Helper()
		if got, err := After(ctx, s, e, of); err != nil || got != want {
			t.Errorf("after %d-%d: %d, %v; want %d", e, of, got, err, want)
		}
	}
	after(1, 0, 1)
	must(t, os.Mkdir(filepath.Join(dir, "claims"), 0o750))
	for _, name := range []string{"1-1", "1-2", "1-5", "1-4294967294"} {
		must(t, os.WriteFile(filepath.Join(dir, "claims", name), []byte("damaged"), 0o640))
	}
	after(1, 0, 3)
	after(1, 3, 4)
	after(1, 4, 6)
	after(2, 0, 1)
	after(1, math.MaxUint32-2, math.MaxUint32)
	if term, err := After(ctx, s, 1, math.MaxUint32); !errors.Is(err, ErrTaken) {
		t.Errorf("after the last: %d, %v", term, err)
	}
}

// TestAfterCreates: also a directory or a pipe under a claim's name is in the way of the next.
func TestAfterCreates(t *testing.T) {
	s, dir := testStore(t)
	must(t, os.MkdirAll(filepath.Join(dir, "claims", "1-1"), 0o750))
	must(t, unix.Mkfifo(filepath.Join(dir, "claims", "1-2"), 0o640))
	must(t, os.Symlink("/nowhere", filepath.Join(dir, "claims", "1-3")))
	term, err := After(t.Context(), s, 1, 0)
	must(t, err)
	if err := Create(t.Context(), s, New(volume, 1, term, "bravo", "bravo", "", time.Now())); err != nil {
		t.Errorf("the term after, %d: %v", term, err)
	}
}

func TestHighest(t *testing.T) {
	s, _ := testStore(t)
	if e, err := Highest(t.Context(), s); err != nil || e != 0 {
		t.Errorf("of none: %d, %v", e, err)
	}
	for _, e := range []batch.Epoch{3, 12, 5} {
		must(t, Create(t.Context(), s, New(volume, e, 0, "bravo", "bravo", "", time.Now())))
	}
	if e, err := Highest(t.Context(), s); err != nil || e != 12 {
		t.Errorf("%d, %v", e, err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(golden))
	f.Add([]byte(`{"format":1,"epoch":1,"node":"a","by":"a","nonce":"00000000000000000000000000000000","avoid":["b"]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Decode(data)
		if err != nil {
			return
		}
		if !batch.ValidName(c.Node) || len(c.Avoid) > maxAvoid || len(c.Reason) > maxText {
			t.Fatalf("taken: %+v", c)
		}
		if y := c.At.UTC().Year(); y < 0 || y > 9999 {
			return // JSON has no such time
		}
		again, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		if d, err := Decode(again); err != nil || d.Nonce != c.Nonce || d.Term != c.Term {
			t.Fatalf("again: %+v, %v", d, err)
		}
	})
}

// FuzzParsePath: a name has one spelling.
func FuzzParsePath(f *testing.F) {
	f.Add("claims/1-0")
	f.Add("claims/01-1")
	f.Fuzz(func(t *testing.T, name string) {
		if e, term, err := ParsePath(name); err == nil && (Path(e, term) != name || e == 0) {
			t.Fatalf("%q is %d-%d", name, e, term)
		}
	})
}
