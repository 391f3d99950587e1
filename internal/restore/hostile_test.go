package restore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"slipway/internal/batch"
	"slipway/internal/chunk"
	"slipway/internal/restore/volumetest"
)

// hostile loads a sound tree whose records a test then changes as the holder of a valid key could, past what the batch's
// decoder refuses. Inodes: 2 a directory "d", 3 a file "d/f", 4 a file "g", 5 a symbolic link "l" to outside.
func hostile(t *testing.T, outside string) *Tree {
	t.Helper()
	v := volumetest.New(t, "vault1")
	dir := func(id batch.FileID) batch.Inode { return batch.Inode{ID: id, Mode: unix.S_IFDIR | 0o755} }
	file := func(id batch.FileID, data string) batch.Inode {
		return batch.Inode{ID: id, Mode: unix.S_IFREG | 0o644, Mtime: 5e18, Content: v.Content(data)}
	}
	v.Seal(&batch.Body{
		Inodes: []batch.Inode{dir(1), dir(2), file(3, "written by the restore"), file(4, "this too"),
			{ID: 5, Mode: unix.S_IFLNK | 0o777, Target: outside}},
		Entries: []batch.Entry{{Parent: 1, Name: "d", ID: 2}, {Parent: 2, Name: "f", ID: 3}, {Parent: 1, Name: "g", ID: 4}, {Parent: 1, Name: "l", ID: 5}},
	}, nil)
	tree, err := Load(context.Background(), v.Source(), At{})
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

// outsideOf makes a directory beside the target with a file in it, and fails the test if anything there changes.
func outsideOf(t *testing.T) (outside, target string) {
	t.Helper()
	top := t.TempDir()
	outside, target = filepath.Join(top, "outside"), filepath.Join(top, "target")
	if err := errors.Join(os.Mkdir(outside, 0o701), os.Mkdir(target, 0o700), os.WriteFile(filepath.Join(outside, "secret"), []byte("secret"), 0o601)); err != nil {
		t.Fatal(err)
	}
	look := func() string {
		var d string
		err := filepath.WalkDir(top, func(path string, _ os.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if path == target {
				return filepath.SkipDir
			}
			if path == top { // its own times change as entries come and go in a test
				return nil
			}
			var st unix.Stat_t
			if err := unix.Lstat(path, &st); err != nil {
				return err
			}
			d += fmt.Sprintln(path, st.Ino, st.Mode, st.Uid, st.Gid, st.Size, st.Mtim, st.Nlink)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	before := look()
	t.Cleanup(func() {
		if after := look(); after != before {
			t.Errorf("ESCAPE: outside was\n%s\nand is\n%s", before, after)
		}
		if entries, err := os.ReadDir(top); err != nil || len(entries) != 2 {
			t.Errorf("ESCAPE: beside the target lie %v, %v", entries, err)
		}
	})
	return outside, target
}

func TestHostileNames(t *testing.T) {
	names := []string{"", ".", "..", "../outside/planted", "/", "/tmp/planted", "a/b", "d/", "nul\x00", strings.Repeat("../", 1300) + "tmp/x"}
	outside, target := outsideOf(t)
	tree := hostile(t, outside)
	for _, n := range names {
		tree.children[batch.Root] = append(tree.children[batch.Root], child{n, 4}, child{n, 2})
	}
	tree.children[batch.Root] = append(tree.children[batch.Root], child{strings.Repeat("n", 4096), 4})
	res, err := tree.Restore(context.Background(), Options{Target: target, Overwrite: true})
	if err != nil {
		t.Fatal(err)
	}
	refused := 0
	for _, f := range res.Failed {
		if errors.Is(f.Err, ErrName) {
			refused++
		} else if !errors.Is(f.Err, unix.ENAMETOOLONG) {
			t.Errorf("%q: %v", f.Path, f.Err)
		}
	}
	if refused != 2*len(names) || len(res.Failed) != refused+1 {
		t.Errorf("%d of %d names refused", refused, 2*len(names))
	}
	entries, err := os.ReadDir(target)
	if err != nil || len(entries) != 3 {
		t.Errorf("%v, %v", entries, err)
	}
	if rows, err := tree.List(""); err != nil || rows[len(rows)-2].Err == nil {
		t.Errorf("a listing shows a hostile name as a good one: %v", err)
	}
}

// A link first, then a file through it: as records, and as what lies in the target before.
func TestThroughALink(t *testing.T) {
	for _, overwrite := range []bool{false, true} {
		outside, target := outsideOf(t)
		tree := hostile(t, outside)
		tree.children[5] = []child{{"planted", 4}}
		if err := os.Symlink(outside, filepath.Join(target, "d")); err != nil {
			t.Fatal(err)
		}
		res, err := tree.Restore(context.Background(), Options{Target: target, Overwrite: overwrite})
		if err != nil {
			t.Fatal(err)
		}
		if overwrite == (len(res.Kept) > 0) {
			t.Errorf("overwrite %v: %+v", overwrite, res)
		}
		st, err := os.Lstat(filepath.Join(target, "d"))
		if err != nil || st.IsDir() != overwrite {
			t.Errorf("overwrite %v: %v, %v", overwrite, st, err)
		}
	}
}

// Files of the target that are links to, or other names of, files outside are replaced, never written through.
func TestOverLinksToOutside(t *testing.T) {
	outside, target := outsideOf(t)
	tree := hostile(t, outside)
	secret := filepath.Join(outside, "secret")
	if err := errors.Join(os.Symlink(secret, filepath.Join(target, "g")), os.Mkdir(filepath.Join(target, "d"), 0o700)); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(secret, filepath.Join(target, "d", "f")); err != nil {
		t.Fatal(err)
	}
	res, err := tree.Restore(context.Background(), Options{Target: target, Overwrite: true})
	if err != nil || len(res.Failed) > 0 {
		t.Fatalf("%+v, %v", res, err)
	}
	for path, want := range map[string]string{"g": "this too", "d/f": "written by the restore"} {
		st, err := os.Lstat(filepath.Join(target, path))
		data, rerr := os.ReadFile(filepath.Join(target, path))
		if err != nil || rerr != nil || !st.Mode().IsRegular() || string(data) != want {
			t.Errorf("%s: %v, %q, %v", path, st, data, errors.Join(err, rerr))
		}
	}
}

func TestTreeThatLeadsIntoItself(t *testing.T) {
	outside, target := outsideOf(t)
	tree := hostile(t, outside)
	tree.children[2] = append(tree.children[2], child{"self", 2}, child{"up", batch.Root}, child{"nothing", 99})
	tree.children[1] = append(tree.children[1], child{"second name", 2})
	res, err := tree.Restore(context.Background(), Options{Target: target})
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]error)
	for _, f := range res.Failed {
		got[f.Path] = f.Err
	}
	for path, want := range map[string]error{"d/self": ErrLoop, "d/up": ErrLoop, "d/nothing": ErrRecord, "second name": ErrLoop} {
		if !errors.Is(got[path], want) {
			t.Errorf("%s: %v, want %v", path, got[path], want)
		}
	}
	rows := 0
	if err := tree.Walk("", func(Row) error { rows++; return nil }); err != nil || rows != 9 {
		t.Errorf("%d rows, %v", rows, err)
	}
}

func TestNestedTooDeep(t *testing.T) {
	outside, target := outsideOf(t)
	tree := hostile(t, outside)
	const levels = maxDepth + 1000
	last := batch.FileID(2)
	for i := range batch.FileID(levels) {
		id := 1000 + i
		tree.inodes[id] = &batch.Inode{ID: id, Mode: unix.S_IFDIR | 0o755}
		tree.children[last] = append(tree.children[last], child{"e", id})
		last = id
	}
	p, err := tree.plan(nil)
	if err != nil || len(p.dirs) != maxDepth+1 || len(p.failed) != 1 || !errors.Is(p.failed[0].Err, ErrDepth) {
		t.Errorf("%d directories, %v, %v", len(p.dirs), p.failed, err)
	}
	_ = target
}

// Records that cannot be: each ends in a failure of that path alone.
func TestHostileContent(t *testing.T) {
	good := func(tree *Tree) batch.Piece { return tree.inodes[3].Content.Pieces[0] }
	for name, change := range map[string]func(tree *Tree, c *batch.Content){
		"size beyond every disk": func(_ *Tree, c *batch.Content) {
			c.Size, c.Holes = 1<<63-1, []batch.Hole{{Offset: 22, Len: 1<<63 - 23}}
		},
		"holes that overlap": func(_ *Tree, c *batch.Content) {
			c.Size, c.Holes = 100, []batch.Hole{{Offset: 10, Len: 50}, {Offset: 20, Len: 28}}
		},
		"hole that overflows": func(_ *Tree, c *batch.Content) {
			c.Holes = []batch.Hole{{Offset: 10, Len: 1<<63 - 1}}
		},
		"negative hole":          func(_ *Tree, c *batch.Content) { c.Holes = []batch.Hole{{Offset: -10, Len: 5}} },
		"negative size":          func(_ *Tree, c *batch.Content) { c.Size = -1 },
		"pieces longer":          func(_ *Tree, c *batch.Content) { c.Size = 3 },
		"pieces shorter":         func(_ *Tree, c *batch.Content) { c.Size = 1 << 40 },
		"negative length":        func(_ *Tree, c *batch.Content) { c.Pieces[0].Len = -5 },
		"length of 10^15":        func(_ *Tree, c *batch.Content) { c.Pieces[0].Len, c.Size = 1e15, 1e15 },
		"offset before":          func(_ *Tree, c *batch.Content) { c.Pieces[0].Offset = -1 },
		"offset behind":          func(_ *Tree, c *batch.Content) { c.Pieces[0].Offset = 1 << 62 },
		"stored overflows":       func(_ *Tree, c *batch.Content) { c.Pieces[0].Stored = 1<<63 - 1 },
		"another chunk":          func(_ *Tree, c *batch.Content) { c.Pieces[0].Chunk = chunk.ID{1} },
		"a shard that is not":    func(_ *Tree, c *batch.Content) { c.Pieces[0].Shard[0] ^= 1 },
		"a list that is content": func(tree *Tree, c *batch.Content) { c.Lists, c.Pieces = []batch.Piece{good(tree)}, nil },
	} {
		t.Run(name, func(t *testing.T) {
			outside, target := outsideOf(t)
			tree := hostile(t, outside)
			c := *tree.inodes[3].Content
			c.Pieces = append([]batch.Piece{}, c.Pieces...)
			change(tree, &c)
			tree.inodes[3].Content = &c
			res, err := tree.Restore(context.Background(), Options{Target: target})
			if err != nil || res.Files != 2 || len(res.Failed) != 1 || res.Failed[0].Path != "d/f" {
				t.Fatalf("%+v, %v", res, err)
			}
			entries, err := os.ReadDir(filepath.Join(target, "d"))
			if err != nil || len(entries) != 0 {
				t.Errorf("left %v, %v", entries, err)
			}
		})
	}
}

func TestHostileAttributes(t *testing.T) {
	outside, target := outsideOf(t)
	tree := hostile(t, outside)
	tree.inodes[3].Xattrs = map[string][]byte{"system.sockprotoname": []byte("x")}
	tree.inodes[4].Xattrs = map[string][]byte{"user.big": make([]byte, 1<<16+1)}
	tree.inodes[5].Target = strings.Repeat("x", 5000)
	res, err := tree.Restore(context.Background(), Options{Target: target})
	if err != nil || len(res.Failed) != 3 || res.Files != 0 {
		t.Errorf("%+v, %v", res, err)
	}
}

// While the restore runs, its directories are exchanged with links to outside, over and over.
func TestDirectoryReplacedByLinkDuringRestore(t *testing.T) {
	outside, target := outsideOf(t)
	tree := hostile(t, outside)
	for i := range batch.FileID(200) {
		own := *tree.inodes[3]
		own.ID = 100 + i
		tree.inodes[own.ID] = &own
		tree.children[2] = append(tree.children[2], child{fmt.Sprintf("f%d", i), own.ID})
	}
	d, swap := filepath.Join(target, "d"), filepath.Join(target, "swap")
	if err := errors.Join(os.Mkdir(d, 0o755), os.Symlink(outside, swap)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var g errgroup.Group
	swaps := 0
	g.Go(func() error {
		for ; ctx.Err() == nil; swaps++ {
			if err := unix.Renameat2(unix.AT_FDCWD, d, unix.AT_FDCWD, swap, unix.RENAME_EXCHANGE); err != nil && !errors.Is(err, unix.ENOENT) {
				return err
			}
		}
		return nil
	})
	failed := 0
	for range 12 {
		res, err := tree.Restore(ctx, Options{Target: target, Overwrite: true})
		if err != nil {
			t.Errorf("%v", err)
			break
		}
		failed += len(res.Failed)
		// Overwrite may have put a directory in the link's place; the next round begins with both again.
		if st, err := os.Lstat(swap); err != nil || st.Mode()&os.ModeSymlink == 0 {
			if err := errors.Join(os.RemoveAll(swap), os.Symlink(outside, swap)); err != nil && !errors.Is(err, os.ErrExist) {
				t.Log(err)
			}
		}
	}
	cancel()
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
	t.Logf("%d exchanges, %d paths refused", swaps, failed)
	if swaps == 0 {
		t.Error("nothing was exchanged")
	}
}
