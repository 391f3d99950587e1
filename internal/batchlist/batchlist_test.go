package batchlist

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"slipway/internal/batch"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// rig is a volume's directory with the files of batches, whatever is in them, and how often one was read.
type rig struct {
	t     *testing.T
	path  string
	dir   string
	loads int
}

func newRig(t *testing.T, batches int) *rig {
	r := &rig{t: t, path: filepath.Join(t.TempDir(), "projects.rows"), dir: t.TempDir()}
	for seq := batch.Seq(1); seq <= batch.Seq(batches); seq++ {
		r.put(1, seq, "a batch")
	}
	return r
}

func (r *rig) put(e batch.Epoch, seq batch.Seq, text string) {
	r.t.Helper()
	file := filepath.Join(r.dir, batch.Path(e, seq, seq))
	must(r.t, os.MkdirAll(filepath.Dir(file), 0o755))
	must(r.t, os.WriteFile(file, []byte(text), 0o644))
}

var sealed = time.Date(2026, 11, 23, 10, 0, 0, 7, time.UTC)

// list reads all rows of an epoch and returns how many batches were read for it.
func (r *rig) list(e batch.Epoch, first, last batch.Seq) int {
	r.t.Helper()
	r.loads = 0
	l := Open(r.path, r.dir, first, last)
	defer l.Close()
	for seq := first; seq <= last; seq++ {
		env := &batch.Envelope{Epoch: e, First: seq, Last: seq, SealedAt: sealed, Counts: batch.Counts{Files: int64(seq), Bytes: -int64(seq)}, Introduces: make([]batch.Object, seq)}
		row, err := l.Row(e, seq, func() (*batch.Envelope, error) { r.loads++; return env, nil })
		must(r.t, err)
		if row != RowOf(env) {
			r.t.Fatalf("row %+v, want %+v", row, RowOf(env))
		}
	}
	return r.loads
}

func (r *rig) want(what string, got, want int) {
	r.t.Helper()
	if got != want {
		r.t.Errorf("%s: %d batches were read, want %d", what, got, want)
	}
}

func TestRemembers(t *testing.T) {
	r := newRig(t, 10)
	r.want("nothing is remembered", r.list(1, 1, 4), 4)
	r.want("some are", r.list(1, 1, 10), 6)
	r.want("all are", r.list(1, 1, 10), 0)
	r.want("from the middle", r.list(1, 7, 9), 0)
	r.put(1, 3, "another batch")
	r.want("a file was replaced", r.list(1, 1, 10), 1)
	r.put(2, 5, "a batch")
	r.want("another epoch", r.list(2, 5, 5), 1)
	r.want("an empty range", r.list(1, 5, 4), 0)
}

// TestDamage: each byte that is not what was written costs reading a batch, and nothing more.
func TestDamage(t *testing.T) {
	r := newRig(t, 3)
	r.list(1, 1, 3)
	whole, err := os.ReadFile(r.path)
	must(t, err)
	for i := rowSize; i < len(whole); i++ {
		torn := append([]byte(nil), whole...)
		torn[i] ^= 1
		must(t, os.WriteFile(r.path, torn, 0o600))
		r.want("a bit flipped", r.list(1, 1, 3), 1)
	}
	must(t, os.Truncate(r.path, 2*rowSize+5))
	r.want("cut off", r.list(1, 1, 3), 2)
}

// TestCannotWrite: rows are told where nothing can be remembered, and an error of the batch is handed on.
func TestCannotWrite(t *testing.T) {
	r := newRig(t, 2)
	r.path = filepath.Join(r.dir, "none", "projects.rows")
	r.want("no directory", r.list(1, 1, 2), 2)
	r.want("no directory", r.list(1, 1, 2), 2)
	damaged := errors.New("damaged")
	if _, err := Open(r.path, r.dir, 1, 2).Row(1, 1, func() (*batch.Envelope, error) { return nil, damaged }); !errors.Is(err, damaged) {
		t.Error(err)
	}
}
