package catalog

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"slipway/internal/batch"
	"slipway/internal/chunk"
	"slipway/internal/journal"
	"slipway/internal/shard"
)

func openTemp(t *testing.T) *Catalog {
	t.Helper()
	c, err := Open(filepath.Join(t.TempDir(), "catalog"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func update(t *testing.T, c *Catalog, fn func(*Tx) error) {
	t.Helper()
	if err := c.Update(fn); err != nil {
		t.Fatal(err)
	}
}

func view(t *testing.T, c *Catalog, fn func(*Tx) error) {
	t.Helper()
	if err := c.View(fn); err != nil {
		t.Fatal(err)
	}
}

func testInode(id batch.FileID) *Inode {
	return &Inode{
		Inode: batch.Inode{ID: id, Mode: 0o100644, UID: 1, GID: 2, Mtime: int64(id), Content: &batch.Content{
			Size: 100, Clean: true, Pieces: []batch.Piece{{Shard: shard.Digest{1}, Slot: shard.Slot{Chunk: chunk.ID{byte(id)}, Len: 100}}},
		}},
		Ident: journal.Ident{FS: 7, Ino: uint64(id) * 977 % 1000003, Birth: -5},
		Size:  100, Seq: 3,
	}
}

// An adoption commits everything it found at once.
func TestAdoptionIsFast(t *testing.T) {
	c := openTemp(t)
	start := time.Now()
	update(t, c, func(tx *Tx) error {
		var locs []Location
		for i := range batch.FileID(15000) {
			in := testInode(i + 2)
			if err := tx.PutInode(in); err != nil {
				return err
			}
			if err := tx.PutEntry(1+i/20*7919%1000, fmt.Sprintf("file-%d", rand.Uint64()), in.ID); err != nil {
				return err
			}
			if err := tx.PutPending(in.ID, Pending{Reason: "new"}); err != nil {
				return err
			}
			var id chunk.ID
			for j := range id {
				id[j] = byte(rand.Uint32())
			}
			locs = append(locs, Location{Shard: shard.Digest{byte(i)}, Slot: shard.Slot{Chunk: id, Len: 5}})
		}
		return tx.PutChunks(locs)
	})
	took := time.Since(start)
	t.Logf("15,000 inodes in %v", took)
	if took > 30*time.Second { // less than one on an idle machine
		t.Errorf("15,000 inodes in one transaction took %v", took)
	}
	view(t, c, func(tx *Tx) error {
		if n, err := tx.Files(); err != nil || n != 15000 {
			t.Errorf("Files() = %d, %v", n, err)
		}
		return nil
	})
}

func TestRoundTrip(t *testing.T) {
	path := filepath.Join(t.TempDir(), "catalog")
	c, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Unix(1767225600, 123456789).UTC()
	meta := Meta{
		VolumeID: batch.VolumeID{1, 2}, Epoch: 3, Head: 44, HeadDigest: batch.Digest{9}, Base: 2, SealedAt: now, LastWhole: 40, Complete: true,
		Position: journal.Position{Serial: 5, Instance: 1 << 63, Offset: 77}, NextFile: 1001, HeadTemp: ".tmp-1", Excluded: "abc",
	}
	piece := func(s, c byte, off int64) batch.Piece {
		return batch.Piece{Shard: shard.Digest{s}, Slot: shard.Slot{Chunk: chunk.ID{c}, Offset: off, Stored: 10, In: 20, Len: 30}}
	}
	full := &Inode{
		Inode: batch.Inode{
			ID: 9, Mode: 0o100755, UID: 4294967295, GID: 3, Rdev: 1 << 40, Mtime: -1, Target: "\xff\xfe/\x00?",
			Xattrs: map[string][]byte{"user.a": {0, 255}, "user.\xc3\x28": {}},
			Content: &batch.Content{
				Size: 1 << 50, Pieces: []batch.Piece{piece(1, 1, 0), piece(1, 2, 99), piece(2, 3, 5)}, Lists: []batch.Piece{piece(3, 4, 1)},
				Holes:  []batch.Hole{{Offset: 4096, Len: 1 << 40}},
				Before: &batch.Content{Size: 1, Clean: true, Pieces: []batch.Piece{piece(1, 9, 0)}},
			},
		},
		Ident: journal.Ident{FS: 1 << 63, Ino: 2, Birth: -3}, Size: 8, Ctime: -9, Seq: 44,
		Attr: journal.Attr{Mode: 1, UID: 2, GID: 3, Nlink: 4, Rdev: 5, Size: 6, Mtime: -7, Ctime: -8},
	}
	names := []string{"plain", "\xff\xfe", "with\nnewline", "'\"\\"}
	pend := Pending{Since: now, Position: meta.Position, Reason: "open", Writers: 2, Bytes: 12}
	info := BatchInfo{Epoch: 3, Seq: 44, SealedAt: now, Digest: batch.Digest{5}, Files: 1, Bytes: 2, Removals: 3, Shards: 4, Stored: 5, Complete: true}
	update(t, c, func(tx *Tx) error {
		for _, name := range names {
			if err := tx.PutEntry(1, name, 9); err != nil {
				return err
			}
		}
		return errors.Join(tx.SetMeta(meta), tx.PutInode(full), tx.PutPending(9, pend), tx.PutBatch(info), tx.PutUnchecked(1),
			tx.PutShard(shard.Digest{1}, ShardInfo{Size: 8 << 20, Seq: 44, Evicted: true}),
			tx.PutChunks([]Location{{Shard: shard.Digest{1}, Slot: piece(1, 2, 99).Slot}}))
	})
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	read := func(tx *Tx) error {
		same(t, meta)(tx.Meta())
		in, ok, err := tx.Inode(9)
		same(t, *full)(in, err)
		id, found, err := tx.ByIdent(full.Ident)
		if !ok || !found || id != 9 || err != nil {
			t.Errorf("ByIdent = %d, %v, %v", id, found, err)
		}
		var got []string
		if err := tx.Entries(1, func(name string, id batch.FileID) error { got = append(got, name); return nil }); err != nil {
			return err
		}
		same(t, []string{"'\"\\", "plain", "with\nnewline", "\xff\xfe"})(got, nil)
		n := 0
		if err := tx.Names(9, func(parent batch.FileID, name string) error { n++; return nil }); err != nil || n != len(names) {
			t.Errorf("%d names, %v", n, err)
		}
		l, ok, err := tx.Chunk(chunk.ID{2})
		if !ok {
			t.Error("no chunk")
		}
		same(t, Location{Shard: shard.Digest{1}, Slot: piece(1, 2, 99).Slot})(l, err)
		si, _, err := tx.Shard(shard.Digest{1})
		same(t, ShardInfo{Size: 8 << 20, Seq: 44, Evicted: true})(si, err)
		p, _, err := tx.Pending(9)
		same(t, pend)(p, err)
		b, _, err := tx.Batch(44)
		same(t, info)(b, err)
		return tx.EachUnchecked(func(id batch.FileID) error {
			if id != 1 {
				t.Errorf("unchecked %d", id)
			}
			return nil
		})
	}
	r := reader(t, path)
	if err := r.View(read); err != nil {
		t.Error(err)
	}
	if err := r.View(func(tx *Tx) error { return tx.SetMeta(meta) }); err == nil {
		t.Error("a catalog opened for reading can be written")
	}
	if c, err = Open(path); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }() // only read
	view(t, c, read)
}

func same[T any](t *testing.T, want T) func(T, error) {
	t.Helper()
	return func(got T, err error) {
		t.Helper()
		if err != nil {
			t.Error(err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("wanted, got:\n%s", d)
		}
	}
}

func TestLeavesNothingBeside(t *testing.T) {
	c := openTemp(t)
	list, err := os.ReadDir(filepath.Dir(c.path))
	if err != nil || len(list) != 1 {
		t.Errorf("%v, %v", list, err)
	}
}
