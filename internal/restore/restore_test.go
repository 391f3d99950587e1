package restore_test

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"slipway/internal/batch"
	"slipway/internal/chunk"
	"slipway/internal/restore"
	"slipway/internal/restore/volumetest"
)

// acl encodes a POSIX ACL as the kernel keeps it: rw for the owner, a named user and the mask, r for the others.
func acl(user uint32) []byte {
	b := binary.LittleEndian.AppendUint32(nil, 2)
	for _, e := range []struct {
		tag, perm uint16
		id        uint32
	}{{1, 6, ^uint32(0)}, {2, 6, user}, {4, 4, ^uint32(0)}, {16, 6, ^uint32(0)}, {32, 4, ^uint32(0)}} {
		b = binary.LittleEndian.AppendUint16(b, e.tag)
		b = binary.LittleEndian.AppendUint16(b, e.perm)
		b = binary.LittleEndian.AppendUint32(b, e.id)
	}
	return b
}

// netAdmin is a file capability of version 2: cap_net_admin=ep.
func netAdmin() []byte {
	b := binary.LittleEndian.AppendUint32(nil, 0x02000001)
	b = binary.LittleEndian.AppendUint32(b, 1<<12)
	return append(b, make([]byte, 12)...)
}

// zoo writes a file of every kind.
func zoo(t testing.TB, v *volumetest.Volume) *writer {
	w := newWriter(t, v)
	deep, path := batch.FileID(1), ""
	for i := range 17 {
		name := strings.Repeat(string(rune('a'+i)), 250)
		deep = w.dir(deep, name)
		path += name + "/"
	}
	w.file(deep, "at the bottom", "deep")
	w.add(1, "empty", unix.S_IFDIR|0o1777, nil)
	acls := w.add(1, "acl", unix.S_IFDIR|0o2764, func(in *batch.Inode) {
		in.GID = 7
		in.Xattrs = map[string][]byte{"system.posix_acl_access": acl(12), "system.posix_acl_default": acl(13)}
	})
	w.file(acls, "plain", "no ACL though its directory has a default one")
	w.add(acls, "with", unix.S_IFREG|0o664, func(in *batch.Inode) {
		in.Content = v.Content("acl")
		in.Xattrs = map[string][]byte{"system.posix_acl_access": acl(14)}
	})
	w.add(1, "xattrs", unix.S_IFREG|0o444, func(in *batch.Inode) {
		in.Content = v.Content("x")
		in.Xattrs = map[string][]byte{"user.a": {0, 255, 10}, "user.empty": {}, "trusted.b": []byte("t"), "user.\xff": []byte("odd")}
	})
	w.add(1, "suid", unix.S_IFREG|0o6755, func(in *batch.Inode) { in.UID, in.GID, in.Content = 1234, 4321, v.Content("#!") })
	w.add(1, "capable", unix.S_IFREG|0o755, func(in *batch.Inode) {
		in.UID, in.Content = 5, v.Content("cap")
		in.Xattrs = map[string][]byte{"security.capability": netAdmin()}
	})
	w.add(1, "pipe", unix.S_IFIFO|0o620, nil)
	w.add(1, "socket", unix.S_IFSOCK|0o711, nil)
	w.add(1, "null", unix.S_IFCHR|0o666, func(in *batch.Inode) { in.Rdev = unix.Mkdev(1, 3) })
	w.add(1, "disk", unix.S_IFBLK|0o640, func(in *batch.Inode) { in.Rdev, in.GID = unix.Mkdev(7, 300), 6 })
	w.add(1, "dangling", unix.S_IFLNK|0o777, func(in *batch.Inode) { in.Target, in.UID, in.Mtime = "/no\xffwhere", 3, -5 })
	sub := w.dir(1, "sub")
	hard := w.file(1, "hard", "linked")
	w.link(sub, "hard again", hard)
	w.link(acls, "and again", hard)
	pipe := w.add(sub, "pipe one", unix.S_IFIFO|0o600, nil)
	w.link(sub, "pipe two", pipe)
	w.file(1, strings.Repeat("n", 255), "long name")
	w.file(sub, "new\nline\t'\"\\ \xff\xfe", "odd name")
	w.file(sub, "empty file", "")
	w.add(sub, "sparse", unix.S_IFREG|0o600, func(in *batch.Inode) {
		in.Content = v.Content("at the end")
		in.Content.Size = 1<<40 + 10
		in.Content.Holes = []batch.Hole{{Offset: 0, Len: 1 << 40}}
	})
	w.add(sub, "all hole", unix.S_IFREG|0o600, func(in *batch.Inode) {
		in.Content = &batch.Content{Size: 1 << 20, Holes: []batch.Hole{{Offset: 0, Len: 1 << 20}}, Clean: true}
	})
	big := strings.Repeat("0123456789abcdef", 700_000)
	w.add(sub, "big", unix.S_IFREG|0o600, func(in *batch.Inode) {
		in.Content = &batch.Content{Size: int64(len(big)), Pieces: v.Pieces([]byte(big), 1<<20+5), Clean: true}
	})
	w.file(1, "very old", "1931")
	w.body.Inodes[len(w.body.Inodes)-1].Mtime = -1_200_000_000_999_999_999
	return w
}

func TestEveryKind(t *testing.T) {
	v := volumetest.New(t, "vault1")
	zoo(t, v).seal()
	target := filepath.Join(t.TempDir(), "a", "b")
	tree := load(t, v.Source(), restore.At{})
	var last, total int64
	res := clean(t, tree, restore.Options{Target: target, Progress: func(d, n int64) { last, total = d, n }})
	if last != total || total != res.Bytes {
		t.Errorf("progress ended at %d of %d, %d bytes written", last, total, res.Bytes)
	}
	got := scan(t, target)

	// What the tree says, compared with what is there.
	links := make(map[batch.FileID]string)
	seen := 0
	err := tree.Walk("", func(r restore.Row) error {
		seen++
		d, ok := got[r.Path]
		if !ok {
			t.Errorf("%q is not there", r.Path)
			return nil
		}
		want := describe(r)
		if r.Links > 1 {
			if first, ok := links[r.ID]; ok {
				want += " link of " + first
			} else {
				links[r.ID] = r.Path
			}
		}
		if !strings.HasPrefix(d, want) {
			t.Errorf("%.60q is %s, wanted %s", r.Path, d, want)
		}
		return nil
	})
	if err != nil || seen != len(got) {
		t.Errorf("%d files in the tree, %d in the target, %v", seen, len(got), err)
	}
	for path, part := range map[string]string{
		"xattrs":                        ` "trusted.b"=74 "user.a"=00ff0a "user.empty"= "user.\xff"=6f6464`,
		"acl/with":                      ` "system.posix_acl_access"=02000000`,
		"capable":                       ` "security.capability"=01000002`,
		"acl":                           ` "system.posix_acl_access"=020000000100`,
		"dangling":                      ` -> "/no\xffwhere"`,
		"null":                          " dev 103",
		"sub/sparse":                    " 1099511627786 bytes 8 blocks",
		"sub/all hole":                  " 1048576 bytes 30e14955ebf1",
		"sub/pipe two":                  " link of sub/pipe one",
		"sub/big":                       " 11200000 bytes " + sum(strings.Repeat("0123456789abcdef", 700_000)),
		"hard":                          sum("linked"),
		"sub/hard again":                sum("linked"),
		"acl/plain":                     sum("no ACL though its directory has a default one"),
		"sub/new\nline\t'\"\\ \xff\xfe": sum("odd name"),
	} {
		if !strings.Contains(got[path], part) {
			t.Errorf("%q is %s, wanted %s", path, got[path], part)
		}
	}
	if strings.Contains(got["acl/plain"], "acl") {
		t.Errorf("an ACL was inherited: %s", got["acl/plain"])
	}

	again := clean(t, tree, restore.Options{Target: target})
	if again.Files != 0 || again.Bytes != 0 || again.Same != res.Files {
		t.Errorf("run again: %+v, first: %+v", again, res)
	}
	same(t, got, scan(t, target))
}

func TestNoSpecialNoSUID(t *testing.T) {
	v := volumetest.New(t, "vault1")
	zoo(t, v).seal()
	target := t.TempDir()
	res := clean(t, load(t, v.Source(), restore.At{}), restore.Options{Target: target, NoSpecial: true, NoSUID: true})
	got := scan(t, target)
	for _, p := range []string{"pipe", "socket", "null", "disk", "sub/pipe one"} {
		if d, ok := got[p]; ok {
			t.Errorf("%s is there: %s", p, d)
		}
	}
	if res.Skipped != 6 {
		t.Errorf("%d skipped", res.Skipped)
	}
	if !strings.HasPrefix(got["suid"], "100755 1234:4321 ") || strings.Contains(got["capable"], "security") {
		t.Errorf("suid: %s, capable: %s", got["suid"], got["capable"])
	}
}

func TestPaths(t *testing.T) {
	v := volumetest.New(t, "vault1")
	w := newWriter(t, v)
	a := w.dir(1, "a")
	b := w.dir(a, "b")
	w.file(b, "one", "1")
	w.file(b, "two", "2")
	w.file(a, "three", "3")
	w.file(1, "four", "4")
	w.seal()
	tree := load(t, v.Source(), restore.At{})
	for _, c := range []struct{ paths, want string }{
		{"a/b", " a a/b a/b/one a/b/two"},
		{"a/b/two /a/b/one/ a/b/two", " a a/b a/b/one a/b/two"},
		{"four a/three", " a a/three four"},
		{"a a/b/one", " a a/b a/b/one a/b/two a/three"},
		{"/", " a a/b a/b/one a/b/two a/three four"},
	} {
		target := t.TempDir()
		clean(t, tree, restore.Options{Target: target, Paths: strings.Fields(c.paths)})
		got := scan(t, target)
		if list := strings.Join(paths(got), " "); list != c.want {
			t.Errorf("%s: %s", c.paths, list)
		}
		if d := got["a"]; d != "" && !strings.HasPrefix(d, "40755 0:0 1767225600123456791") {
			t.Errorf("%s: the directory on the way is %s", c.paths, d)
		}
	}
	for path, want := range map[string]error{"a/../four": restore.ErrPath, "none": restore.ErrNotFound, "four/x": restore.ErrNotFound} {
		if _, err := tree.Restore(context.Background(), restore.Options{Target: t.TempDir(), Paths: []string{path}}); !errors.Is(err, want) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// A path restored into a live directory leaves what is around it alone.
func TestExistingDirectoryOnTheWayKeepsItsAttributes(t *testing.T) {
	v := volumetest.New(t, "vault1")
	w := newWriter(t, v)
	a := w.dir(1, "a")
	w.file(a, "f", "1")
	w.seal()
	target := t.TempDir()
	if err := errors.Join(os.Mkdir(filepath.Join(target, "a"), 0o700), os.WriteFile(filepath.Join(target, "a", "mine"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	clean(t, load(t, v.Source(), restore.At{}), restore.Options{Target: target, Paths: []string{"a/f"}})
	got := scan(t, target)
	if !strings.HasPrefix(got["a"], "40700 ") || got["a/mine"] == "" || got["a/f"] == "" {
		t.Errorf("%v", got)
	}
}

func TestKeptAndOverwrite(t *testing.T) {
	v := volumetest.New(t, "vault1")
	w := newWriter(t, v)
	w.file(1, "equal", "equal")
	w.file(1, "other", "from the volume")
	hard := w.file(1, "link one", "linked")
	w.link(1, "link two", hard)
	w.link(1, "link three", hard)
	sub := w.dir(1, "sub")
	w.file(sub, "below", "below")
	w.add(1, "link", unix.S_IFLNK|0o777, func(in *batch.Inode) { in.Target = "volume" })
	w.file(1, "directory", "a file")
	w.seal()
	tree := load(t, v.Source(), restore.At{})
	target := t.TempDir()
	clean(t, tree, restore.Options{Target: target})
	in := func(name string) string { return filepath.Join(target, name) }
	mess := errors.Join(
		os.WriteFile(in("other"), []byte("mine"), 0o600),
		os.Remove(in("link one")), os.WriteFile(in("link one"), []byte("mine"), 0o600),
		os.Remove(in("link three")),
		os.RemoveAll(in("sub")), os.WriteFile(in("sub"), []byte("mine"), 0o600),
		os.Remove(in("link")), os.Symlink("mine", in("link")),
		os.Remove(in("directory")), os.Mkdir(in("directory"), 0o700), os.WriteFile(in("directory/mine"), nil, 0o600))
	if mess != nil {
		t.Fatal(mess)
	}
	res, err := tree.Restore(context.Background(), restore.Options{Target: target})
	if err != nil {
		t.Fatal(err)
	}
	same(t, []string{"directory", "link", "link one", "other", "sub"}, res.Kept)
	if res.Same != 2 || res.Files != 1 || len(res.Failed) != 2 || !res.Partial() {
		t.Errorf("%+v", res)
	}
	for _, name := range []string{"other", "link one", "sub"} {
		if data, err := os.ReadFile(in(name)); err != nil || string(data) != "mine" {
			t.Errorf("%s: %q, %v", name, data, err)
		}
	}

	res, err = tree.Restore(context.Background(), restore.Options{Target: target, Overwrite: true})
	if err != nil {
		t.Fatal(err)
	}
	if len(res.Kept) != 0 || len(res.Failed) != 1 || res.Failed[0].Path != "directory" {
		t.Errorf("%+v", res)
	}
	if err := os.Remove(in("directory/mine")); err != nil { // an empty one gives way
		t.Fatal(err)
	}
	clean(t, tree, restore.Options{Target: target, Overwrite: true})
	whole := t.TempDir()
	clean(t, tree, restore.Options{Target: whole})
	same(t, scan(t, whole), scan(t, target))
}

func TestDryRunChangesNothing(t *testing.T) {
	v := volumetest.New(t, "vault1")
	w := newWriter(t, v)
	sub := w.dir(1, "sub")
	w.file(sub, "f", "abc")
	w.file(1, "g", "defg")
	w.seal()
	tree := load(t, v.Source(), restore.At{})
	target := filepath.Join(t.TempDir(), "target")
	res := clean(t, tree, restore.Options{Target: target, DryRun: true})
	if _, err := os.Lstat(target); !errors.Is(err, os.ErrNotExist) || res.Files != 2 || res.Bytes != 7 {
		t.Errorf("%+v, %v", res, err)
	}
	clean(t, tree, restore.Options{Target: target, Paths: []string{"sub"}})
	if err := os.WriteFile(filepath.Join(target, "g"), []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	before := scan(t, target)
	res, err := tree.Restore(context.Background(), restore.Options{Target: target, DryRun: true})
	if err != nil || res.Same != 1 || res.Files != 0 || len(res.Kept) != 1 {
		t.Errorf("%+v, %v", res, err)
	}
	same(t, before, scan(t, target))
}

func TestUncleanContent(t *testing.T) {
	v := volumetest.New(t, "vault1")
	w := newWriter(t, v)
	w.add(1, "moving", unix.S_IFREG|0o600, func(in *batch.Inode) {
		in.Content = v.Content("torn")
		in.Content.Clean = false
	})
	w.add(1, "has clean", unix.S_IFREG|0o600, func(in *batch.Inode) {
		in.Content = v.Content("torn too")
		in.Content.Clean, in.Content.Before = false, v.Content("clean")
	})
	w.add(1, "pending", unix.S_IFREG|0o600, nil)
	w.seal()
	target := t.TempDir()
	res, err := load(t, v.Source(), restore.At{}).Restore(context.Background(), restore.Options{Target: target})
	if err != nil {
		t.Fatal(err)
	}
	same(t, []string{"moving"}, res.Unclean)
	same(t, []string{"has clean"}, res.Earlier)
	if len(res.Failed) != 1 || res.Failed[0].Path != "pending" || !errors.Is(res.Failed[0].Err, restore.ErrPending) {
		t.Errorf("%+v", res.Failed)
	}
	if data, err := os.ReadFile(filepath.Join(target, "has clean")); err != nil || string(data) != "clean" {
		t.Errorf("%q, %v", data, err)
	}
}

// A file of so many pieces that their list lies in chunks of its own.
func TestLists(t *testing.T) {
	v := volumetest.New(t, "vault1")
	data := make([]byte, 3_000_000)
	for i := range data {
		data[i] = byte(i * i >> 7)
	}
	pieces := v.Pieces(data, 7000)
	v.Flush()
	content := &batch.Content{Size: int64(len(data)) + 50, Holes: []batch.Hole{{Offset: 100, Len: 50}}, Clean: true}
	lists := batch.CutLists(pieces)
	keep := make([][]batch.Piece, len(lists))
	for i, l := range lists {
		keep[i] = v.Pieces(l, chunk.Max)
	}
	v.Flush() // only now do the pieces know their places
	for _, k := range keep {
		content.Lists = append(content.Lists, k...)
	}
	w := newWriter(t, v)
	w.add(1, "huge", unix.S_IFREG|0o600, func(in *batch.Inode) { in.Content = content })
	w.seal()
	target := t.TempDir()
	tree := load(t, v.Source(), restore.At{})
	clean(t, tree, restore.Options{Target: target})
	want := string(data[:100]) + strings.Repeat("\x00", 50) + string(data[100:])
	if got, err := os.ReadFile(filepath.Join(target, "huge")); err != nil || string(got) != want {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	var b strings.Builder
	if err := tree.Cat(context.Background(), "huge", &b); err != nil || b.String() != want {
		t.Errorf("cat: %d bytes, %v", b.Len(), err)
	}
}
