package progress

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

	"golang.org/x/sys/unix"

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

func example() Progress {
	return Progress{
		Format: Format, VolumeID: batch.VolumeID{0x5e, 1}, Volume: "projects", Node: "alpha", Run: "0123456789abcdef", Number: 7, Epoch: 2, Term: 3,
		Head: 42, Delivered: 40, Batch: 41, Shards: 1, Of: 4, Bytes: 5 << 20, Rate: 1.5, State: Failing, Error: "no room", Reason: "bravo is silent",
		At: time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC),
	}
}

// golden is what the file holds, byte by byte: other versions read it.
const golden = `{
 "format": 1,
 "volume_id": "5e010000000000000000000000000000",
 "volume": "projects",
 "node": "alpha",
 "run": "0123456789abcdef",
 "number": 7,
 "epoch": 2,
 "term": 3,
 "head": 42,
 "delivered": 40,
 "batch": 41,
 "shards": 1,
 "of": 4,
 "bytes": 5242880,
 "rate": 1.5,
 "state": "error",
 "error": "no room",
 "reason": "bravo is silent",
 "at": "2026-11-23T10:00:00Z"
}
`

func TestGolden(t *testing.T) {
	s, dir := testStore(t)
	must(t, Write(t.Context(), s, example()))
	data, err := os.ReadFile(filepath.Join(dir, "progress", "alpha.json"))
	must(t, err)
	if string(data) != golden {
		t.Errorf("wrote %s", data)
	}
	p, err := Decode([]byte(golden))
	if err != nil || p != example() {
		t.Errorf("read %+v, %v", p, err)
	}
}

func TestWriteRead(t *testing.T) {
	s, dir := testStore(t)
	ctx := t.Context()
	if _, err := Read(ctx, s, "alpha"); !errors.Is(err, store.ErrNotExist) {
		t.Errorf("there is none: %v", err)
	}
	if all, err := ReadAll(ctx, s); err != nil || len(all) != 0 {
		t.Errorf("of nothing: %v, %v", all, err)
	}
	p := example()
	p.Format, p.Error, p.Reason = 0, strings.Repeat("ü\xff", 2000), strings.Repeat("<", 3000)
	must(t, Write(ctx, s, p))
	got, err := Read(ctx, s, "alpha")
	if err != nil || len(got.Error) > maxText || len(got.Reason) > maxText || !strings.HasSuffix(got.Error, "...") {
		t.Errorf("a long error: %d and %d bytes, %v", len(got.Error), len(got.Reason), err)
	}
	p.Number++
	must(t, Write(ctx, s, p)) // replaced
	if got, err = Read(ctx, s, "alpha"); err != nil || got.Number != p.Number {
		t.Errorf("replaced: number %d, %v", got.Number, err)
	}
	if list, err := os.ReadDir(filepath.Join(dir, "progress")); err != nil || len(list) != 1 {
		t.Errorf("left over: %v, %v", list, err)
	}
}

// TestUntrue: what no honest sender tells is neither written nor read.
func TestUntrue(t *testing.T) {
	for name, change := range map[string]func(p *Progress){
		"no node": func(p *Progress) { p.Node = "" }, "node is a path": func(p *Progress) { p.Node = "../alpha" },
		"no run": func(p *Progress) { p.Run = "" }, "endless run": func(p *Progress) { p.Run = strings.Repeat("x", 65) },
		"no number": func(p *Progress) { p.Number = 0 }, "volume is no name": func(p *Progress) { p.Volume = "a/b" },
		"unheard-of state": func(p *Progress) { p.State = "asleep" },
		"negative shards":  func(p *Progress) { p.Shards = -1 }, "more shards than there are": func(p *Progress) { p.Shards = 5 },
		"negative bytes": func(p *Progress) { p.Bytes = -1 }, "negative rate": func(p *Progress) { p.Rate = -1 },
		"rate is no number": func(p *Progress) { p.Rate = math.NaN() }, "endless rate": func(p *Progress) { p.Rate = math.Inf(1) },
		"epoch": func(p *Progress) { p.Epoch = batch.MaxEpoch + 1 }, "head": func(p *Progress) { p.Head = batch.MaxSeq + 1 },
		"delivered": func(p *Progress) { p.Delivered = batch.MaxSeq + 1 }, "batch": func(p *Progress) { p.Batch = batch.MaxSeq + 1 },
	} {
		t.Run(name, func(t *testing.T) {
			s, dir := testStore(t)
			p := example()
			change(&p)
			if err := Write(t.Context(), s, p); !errors.Is(err, ErrFormat) {
				t.Errorf("write: %v", err)
			}
			if list, err := os.ReadDir(dir); err != nil || len(list) != 0 {
				t.Errorf("something was written: %v, %v", list, err)
			}
			data, err := json.Marshal(p)
			if err != nil {
				return // JSON has no such number
			}
			if _, err := Decode(data); !errors.Is(err, ErrFormat) {
				t.Errorf("decode: %v", err)
			}
		})
	}
}

func TestDecodeHostile(t *testing.T) {
	edit := func(old, new string) []byte { return []byte(strings.Replace(golden, old, new, 1)) }
	for name, data := range map[string][]byte{
		"empty": {}, "no object": []byte("[]"), "no format": []byte("{}"), "two objects": []byte(golden + golden),
		"newer": edit(`"format": 1`, `"format": 2`), "wrong type": edit(`"number": 7`, `"number": "7"`),
		"number beyond 64 bits": edit(`"number": 7`, `"number": 18446744073709551616`), "negative": edit(`"head": 42`, `"head": -1`),
		"term beyond 32 bits": edit(`"term": 3`, `"term": 4294967296`), "rate beyond all": edit(`1.5`, `1e999`), "rate is NaN": edit(`1.5`, `NaN`),
		"endless error": edit("no room", strings.Repeat("x", maxText+1)), "endless reason": edit("bravo is", strings.Repeat("x", maxText)),
		"short id": edit("5e01", "01"), "time": edit("2026-11-23T10", "yesterday"),
		"huge": append([]byte(golden), bytes.Repeat([]byte(" "), MaxSize)...),
	} {
		t.Run(name, func(t *testing.T) {
			if p, err := Decode(data); !errors.Is(err, ErrFormat) {
				t.Errorf("%+v, %v", p, err)
			}
		})
	}
	if _, err := Decode(append([]byte(golden), bytes.Repeat([]byte(" "), MaxSize-len(golden))...)); err != nil {
		t.Errorf("as large as it may be: %v", err)
	}
}

// TestHostileFiles: whatever lies under a node's name, reading it ends, and the files of others are read all the same.
func TestHostileFiles(t *testing.T) {
	good := []byte(golden)
	for name, put := range map[string]func(t *testing.T, path string){
		"another node's": func(t *testing.T, path string) {
			must(t, os.WriteFile(path, bytes.Replace(good, []byte(`"alpha"`), []byte(`"charlie"`), 1), 0o640))
		},
		"damaged": func(t *testing.T, path string) { must(t, os.WriteFile(path, good[:100], 0o640)) },
		"huge": func(t *testing.T, path string) {
			must(t, os.WriteFile(path, good, 0o640))
			must(t, os.Truncate(path, 1<<40))
		},
		"symlink": func(t *testing.T, path string) {
			must(t, os.WriteFile(path+".txt", bytes.Replace(good, []byte(`"alpha"`), []byte(`"bravo"`), 1), 0o640))
			must(t, os.Symlink(path+".txt", path))
		},
		"fifo":      func(t *testing.T, path string) { must(t, unix.Mkfifo(path, 0o640)) },
		"directory": func(t *testing.T, path string) { must(t, os.Mkdir(path, 0o750)) },
	} {
		t.Run(name, func(t *testing.T) {
			s, dir := testStore(t)
			must(t, Write(t.Context(), s, example()))
			put(t, filepath.Join(dir, Path("bravo")))
			must(t, os.WriteFile(filepath.Join(dir, "progress", "no name.json"), good, 0o640))
			ctx, done := context.WithTimeout(t.Context(), time.Minute)
			defer done()
			if p, err := Read(ctx, s, "bravo"); err == nil || errors.Is(err, store.ErrNotExist) {
				t.Errorf("read %+v, %v", p, err)
			}
			all, err := ReadAll(ctx, s)
			listed := name != "symlink" && name != "fifo" && name != "directory" // a store lists only what may be an object
			if len(all) != 1 || all[0].Node != "alpha" || (err != nil) != listed {
				t.Errorf("all: %+v, %v", all, err)
			}
		})
	}
	s, _ := testStore(t)
	if _, err := Read(t.Context(), s, "../../etc/passwd"); err == nil || errors.Is(err, store.ErrNotExist) {
		t.Errorf("a path as a node: %v", err)
	}
}

func TestFresher(t *testing.T) {
	p := example()
	later := p
	later.Number, later.At = 8, p.At.Add(-time.Hour) // the clock was set back
	if !later.Fresher(p) || p.Fresher(later) || p.Fresher(p) {
		t.Error("in one run the number counts, and a replayed file is not fresher")
	}
	restarted := p
	restarted.Run, restarted.Number, restarted.At = "next", 1, p.At.Add(time.Second)
	if !restarted.Fresher(p) || p.Fresher(restarted) {
		t.Error("between two runs the clock counts")
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(golden))
	f.Add([]byte(`{"format":1,"volume":"v","node":"a","run":"r","number":1,"state":"idle","at":"9999-12-31T23:59:59-23:59"}`))
	s, err := store.Open(f.TempDir(), store.Options{})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := Decode(data)
		if err != nil {
			return
		}
		if len(p.Error) > maxText || p.Shards > p.Of || !batch.ValidName(p.Node) {
			t.Fatalf("taken: %+v", p)
		}
		j := Judge{StaleAfter: time.Second, StallAfter: time.Second}
		now := time.Now()
		j.Begin(p.Node, p.Epoch, p.Term, now)
		j.Expect(now, 2, 1)
		j.Observe("own", p, now)
		if v, _, _ := j.Verdict(now); (v == Failed) != (p.State == Failing) {
			t.Fatalf("%s: %s", p.State, v)
		}
		if y := p.At.UTC().Year(); y < 0 || y > 9999 {
			return // JSON has no such time
		}
		if err := Write(t.Context(), s, p); err != nil {
			t.Fatalf("what was read is not written: %v", err)
		}
		if again, err := Read(t.Context(), s, p.Node); err != nil || again.Number != p.Number || again.Bytes != p.Bytes {
			t.Fatalf("read again: %+v, %v", again, err)
		}
	})
}
