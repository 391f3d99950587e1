package verify_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"
	"golang.org/x/sys/unix"

	"slipway/internal/batch"
	"slipway/internal/chunk"
	"slipway/internal/restore/chain"
	"slipway/internal/restore/verify"
	"slipway/internal/restore/volumetest"
	"slipway/internal/shard"
	"slipway/internal/store"
)

// volume has three batches, each with a file in a shard of its own.
func volume(t *testing.T, stores ...string) (*volumetest.Volume, []*batch.Sealed) {
	t.Helper()
	v := volumetest.New(t, stores...)
	var sealed []*batch.Sealed
	for i := range batch.FileID(3) {
		c := v.Content(strings.Repeat(fmt.Sprint("content of file ", i), 1000))
		sealed = append(sealed, v.Seal(&batch.Body{
			Inodes:  []batch.Inode{{ID: i + 2, Mode: unix.S_IFREG, Content: c}},
			Entries: []batch.Entry{{Parent: 1, Name: fmt.Sprint(i), ID: i + 2}},
		}, nil))
	}
	return v, sealed
}

func check(t *testing.T, src chain.Source, opt verify.Options) *verify.Report {
	t.Helper()
	r, err := verify.Verify(context.Background(), src, opt)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func write(t *testing.T, path string, change func([]byte) []byte) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, change(data), 0o600); err != nil {
		t.Fatal(err)
	}
}

func flip(data []byte) []byte {
	data[len(data)-1] ^= 4
	return data
}

func TestSound(t *testing.T) {
	v, _ := volume(t, "vault1", "vault2")
	for _, c := range []struct {
		src  chain.Source
		opt  verify.Options
		read bool
	}{
		{v.Source(), verify.Options{}, false},
		{v.Source(), verify.Options{ReadData: true}, true},
		{chain.Source{Stores: v.Stores, Owners: []string{v.Owner.Key}}, verify.Options{ReadData: true}, true},
		{chain.Source{Stores: v.Stores}, verify.Options{}, false},
	} {
		var last, total int64
		c.opt.Progress = func(d, n int64) { last, total = d, n }
		r := check(t, c.src, c.opt)
		if len(r.Findings) > 0 || r.Batches != 6 || r.Shards != 6 || (r.Bytes > 0) != c.read || last != total {
			t.Errorf("%+v", r)
		}
		if (r.Owner != "") != (len(c.src.Owners) == 0) {
			t.Errorf("owner %q", r.Owner)
		}
	}
}

// Every kind of damage is found, in the right store and object, and nothing else is.
func TestDamage(t *testing.T) {
	shardOf := func(s *batch.Sealed) string { return s.Envelope.Introduces[0].Digest.Path() }
	pathOf := func(s *batch.Sealed) string { return batch.Path(s.Envelope.Epoch, s.Envelope.First, s.Envelope.Last) }
	for name, c := range map[string]struct {
		damage func(t *testing.T, dir string, s []*batch.Sealed) string
		data   bool // found only by reading
		err    error
	}{
		"shard absent": {func(t *testing.T, dir string, s []*batch.Sealed) string {
			if err := os.Remove(filepath.Join(dir, shardOf(s[1]))); err != nil {
				t.Fatal(err)
			}
			return shardOf(s[1])
		}, false, store.ErrNotExist},
		"shard cut": {func(t *testing.T, dir string, s []*batch.Sealed) string {
			write(t, filepath.Join(dir, shardOf(s[1])), func(b []byte) []byte { return b[:len(b)-1] })
			return shardOf(s[1])
		}, false, shard.ErrCorrupt},
		"shard flipped": {func(t *testing.T, dir string, s []*batch.Sealed) string {
			write(t, filepath.Join(dir, shardOf(s[2])), flip)
			return shardOf(s[2])
		}, true, shard.ErrCorrupt},
		"batch absent": {func(t *testing.T, dir string, s []*batch.Sealed) string {
			if err := os.Remove(filepath.Join(dir, pathOf(s[1]))); err != nil {
				t.Fatal(err)
			}
			return "batches 2 to 2"
		}, false, chain.ErrMissing},
		"first batch absent": {func(t *testing.T, dir string, s []*batch.Sealed) string {
			if err := os.Remove(filepath.Join(dir, pathOf(s[0]))); err != nil {
				t.Fatal(err)
			}
			return "batches 1 to 1"
		}, false, chain.ErrMissing},
		"batch flipped": {func(t *testing.T, dir string, s []*batch.Sealed) string {
			write(t, filepath.Join(dir, pathOf(s[2])), flip)
			return pathOf(s[2])
		}, false, batch.ErrCorrupt},
		"batch at another's place": {func(t *testing.T, dir string, s []*batch.Sealed) string {
			write(t, filepath.Join(dir, pathOf(s[2])), func([]byte) []byte { return s[0].File })
			return pathOf(s[2])
		}, false, batch.ErrCorrupt},
		"everything absent": {func(t *testing.T, dir string, _ []*batch.Sealed) string {
			if err := errors.Join(os.RemoveAll(filepath.Join(dir, "batches")), os.RemoveAll(filepath.Join(dir, "shards"))); err != nil {
				t.Fatal(err)
			}
			return "batches"
		}, false, verify.ErrNothing},
	} {
		t.Run(name, func(t *testing.T) {
			v, sealed := volume(t, "vault1", "vault2")
			object := c.damage(t, v.Dirs[1], sealed)
			for _, data := range []bool{false, true} {
				r := check(t, v.Source(), verify.Options{ReadData: data})
				if c.data && !data {
					if len(r.Findings) > 0 {
						t.Errorf("found without reading: %v", r.Findings)
					}
					continue
				}
				ok := false
				for _, f := range r.Findings {
					ok = ok || f.Object == object && errors.Is(f.Err, c.err)
					if f.Store != "vault2" {
						t.Errorf("found in %s: %s: %v", f.Store, f.Object, f.Err)
					}
				}
				if !ok {
					t.Errorf("data %v: %s not found: %v", data, object, r.Findings)
				}
			}
		})
	}
}

func TestNothing(t *testing.T) {
	v := volumetest.New(t, "vault1")
	for _, src := range []chain.Source{v.Source(), {Stores: v.Stores}} {
		r := check(t, src, verify.Options{})
		if len(r.Findings) != 1 || !errors.Is(r.Findings[0].Err, verify.ErrNothing) {
			t.Errorf("%+v", r)
		}
	}
}

func TestStranger(t *testing.T) {
	v, _ := volume(t, "vault1")
	src := v.Source()
	src.Owners = []string{volumetest.NewOwner(t, "bravo").Key}
	r := check(t, src, verify.Options{})
	if len(r.Findings) != 1 || !errors.Is(r.Findings[0].Err, chain.ErrOwner) {
		t.Errorf("%+v", r)
	}
}

func TestEvicted(t *testing.T) {
	v, sealed := volume(t, "cache1", "vault1")
	if err := os.RemoveAll(filepath.Join(v.Dirs[0], "shards")); err != nil {
		t.Fatal(err)
	}
	r := check(t, v.Source(), verify.Options{ReadData: true, MayEvict: map[string]bool{"cache1": true}})
	if len(r.Findings) != 0 || r.Evicted != int64(len(sealed)) {
		t.Errorf("%+v", r)
	}
	if r = check(t, v.Source(), verify.Options{}); len(r.Findings) != len(sealed) {
		t.Errorf("%+v", r)
	}
}

func TestWrongIdentity(t *testing.T) {
	v, _ := volume(t, "vault1")
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	src := v.Source()
	src.IDs = []age.Identity{id}
	r := check(t, src, verify.Options{ReadData: true})
	if len(r.Findings) == 0 {
		t.Error("nothing found")
	}
}

// A shard with the right digest whose chunks are not what their ids say: only an identity finds it.
func TestWrongChunkID(t *testing.T) {
	v := volumetest.New(t, "vault1")
	c := v.Content("content")
	v.Flush()
	c.Pieces[0].Chunk = chunk.ID{1}
	v.Seal(&batch.Body{Inodes: []batch.Inode{{ID: 2, Mode: unix.S_IFREG, Content: c}}}, nil)
	if r := check(t, chain.Source{Stores: v.Stores, Owners: []string{v.Owner.Key}}, verify.Options{ReadData: true}); len(r.Findings) > 0 {
		t.Errorf("found without an identity: %v", r.Findings)
	}
	r := check(t, v.Source(), verify.Options{ReadData: true})
	if len(r.Findings) != 1 || !errors.Is(r.Findings[0].Err, shard.ErrCorrupt) {
		t.Errorf("%+v", r)
	}
}

// Chunks of a file whose list of pieces lies in chunks of its own are checked like others.
func TestWrongChunkIDInAList(t *testing.T) {
	v := volumetest.New(t, "vault1")
	pieces := v.Pieces([]byte(strings.Repeat("x", 3000)), 10)
	v.Flush()
	pieces[7].Chunk = chunk.ID{1}
	lists := batch.CutLists(pieces)
	c := &batch.Content{Size: 3000, Clean: true}
	var parts [][]batch.Piece
	for _, l := range lists {
		parts = append(parts, v.Pieces(l, chunk.Max))
	}
	v.Flush()
	for _, p := range parts {
		c.Lists = append(c.Lists, p...)
	}
	v.Seal(&batch.Body{Inodes: []batch.Inode{{ID: 2, Mode: unix.S_IFREG, Content: c}}}, nil)
	r := check(t, v.Source(), verify.Options{ReadData: true})
	if len(r.Findings) != 1 || !errors.Is(r.Findings[0].Err, shard.ErrCorrupt) {
		t.Errorf("%+v", r)
	}
}
