package fusefs

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"slipway/internal/loopdisk"
)

// The differential test does the same in a mount and in a plain directory on the same file system, and compares every result and all that
// can be seen afterwards. What the journal says by itself is compared with the source (pending_test.go).

var (
	operations = flag.Int("operations", 100_000, "how many operations the differential test does")
	seedFlag   = flag.Uint64("seed", 0, "what the random ones begin with; 0: the clock")
)

// A round has a mount, and with it a journal, of its own.
const roundOperations = 100_000

// world is one of the two places.
type world struct {
	root  int // directory
	fds   [6]int
	maps  [3][]byte
	times map[string]stamp // what was seen last, by path
	ticks bool             // the file system's clock ticks so slowly that times tell nothing
}

// stamp says which state of which object was seen.
type stamp struct {
	ino          uint64
	mtime, ctime unix.Timespec
}

func newWorld(t *testing.T, dir string) *world {
	t.Helper()
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	must(t, err)
	w := &world{root: fd, times: map[string]stamp{}}
	for i := range w.fds {
		w.fds[i] = -1
	}
	return w
}

// closeAll ends every handle and mapping.
func (w *world) closeAll() {
	for i, fd := range w.fds {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
		w.fds[i] = -1
	}
	for i, m := range w.maps {
		if m != nil {
			_ = unix.Munmap(m)
		}
		w.maps[i] = nil
	}
}

// action is one operation with all that it depends on; run says what came of it.
type action struct {
	name     string
	who      *user // nil: root
	byHandle bool  // the opener of the handles does it
	run      func(w *world) string
}

// look is what stat(2) shows of an object. Times are compared by whether they moved since the last look.
type look struct {
	errno             error
	mode, uid, gid    uint32
	nlink             uint64
	rdev              uint64
	size              int64
	newMtime, newCtim bool
}

func (w *world) look(path string) look {
	var st unix.Stat_t
	if err := unix.Fstatat(w.root, path, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		delete(w.times, path)
		return look{errno: err}
	}
	l := look{mode: st.Mode, uid: st.Uid, gid: st.Gid, nlink: st.Nlink, rdev: st.Rdev}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		l.size = st.Size // a directory's depends on what it once held
	}
	if last, ok := w.times[path]; ok && last.ino == st.Ino && !w.ticks {
		l.newMtime, l.newCtim = last.mtime != st.Mtim, last.ctime != st.Ctim
	}
	w.times[path] = stamp{st.Ino, st.Mtim, st.Ctim}
	return l
}

// content is what a regular file holds, a link points to and a directory lists, with extended attributes. Where the holes are is told by
// withHoles; in preallocated space that depends on what happens to be cached.
func (w *world) content(path string, withHoles bool) string {
	var st unix.Stat_t
	if err := unix.Fstatat(w.root, path, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err.Error()
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		fd, err := unix.Openat(w.root, path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err.Error()
		}
		defer closingFd(fd)
		text := readAll(fd) + xattrs(fd)
		if withHoles {
			text += extents(fd)
		}
		return text
	case unix.S_IFLNK:
		buf := make([]byte, 300)
		n, err := unix.Readlinkat(w.root, path, buf)
		return fmt.Sprint(string(buf[:max(n, 0)]), err)
	case unix.S_IFDIR:
		fd, err := unix.Openat(w.root, path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err.Error()
		}
		defer closingFd(fd)
		return entries(fd) + xattrs(fd)
	}
	return ""
}

func readAll(fd int) string {
	var all strings.Builder
	buf := make([]byte, 64<<10)
	for at := int64(0); ; {
		n, err := unix.Pread(fd, buf, at)
		if err != nil {
			return err.Error()
		}
		if n == 0 {
			return all.String()
		}
		all.Write(buf[:n])
		at += int64(n)
	}
}

// extents lists where the data begin and end, as SEEK_DATA and SEEK_HOLE say.
func extents(fd int) string {
	var out strings.Builder
	at := int64(0)
	for range 100 {
		data, err := unix.Seek(fd, at, unix.SEEK_DATA)
		if err != nil {
			break
		}
		hole, err := unix.Seek(fd, data, unix.SEEK_HOLE)
		if err != nil {
			break
		}
		fmt.Fprintf(&out, " [%d %d)", data, hole)
		at = hole
	}
	return out.String()
}

func entries(fd int) string {
	var names []string
	buf := make([]byte, 4096)
	for {
		n, err := unix.Getdents(fd, buf)
		if err != nil {
			return err.Error()
		}
		if n == 0 {
			slices.Sort(names)
			return strings.Join(names, " ")
		}
		for rest := buf[:n]; len(rest) > 0; {
			size := int(rest[16]) | int(rest[17])<<8
			name, _, _ := strings.Cut(string(rest[19:size]), "\x00")
			names = append(names, fmt.Sprintf("%s(%d)", name, rest[18]))
			rest = rest[size:]
		}
	}
}

func xattrs(fd int) string {
	buf := make([]byte, 4096)
	n, err := unix.Flistxattr(fd, buf)
	if err != nil {
		return err.Error()
	}
	names := strings.Split(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00")
	slices.Sort(names)
	var out strings.Builder
	for _, name := range names {
		if name == "" {
			continue
		}
		n, err := unix.Fgetxattr(fd, name, buf)
		fmt.Fprintf(&out, " %s=%x %v", name, buf[:max(n, 0)], err)
	}
	return out.String()
}

// pair runs both worlds side by side.
type pair struct {
	t             *testing.T
	f             *fixture
	native, mount *world
	journal       *follower
	done          int
	trail         []string // what was done since the last beginning
	leaveOut      string   // operations that have this in their name
	users         *users
}

func newPair(t *testing.T, disk string, change func(*childOptions)) *pair {
	t.Cleanup(func() { // after the unmount
		for _, dir := range []string{"source", "native", "mnt"} {
			must(t, os.RemoveAll(filepath.Join(disk, dir)))
		}
	})
	f := mounted(t, change, func(o *childOptions) { o.Source, o.Mount = filepath.Join(disk, "source"), filepath.Join(disk, "mnt") })
	dir := filepath.Join(disk, "native")
	must(t, os.Mkdir(dir, 0o755))
	p := &pair{t: t, f: f, native: newWorld(t, dir), mount: newWorld(t, f.mnt), journal: newFollower(f), users: newUsers(t)}
	tops := [2]int{p.native.root, p.mount.root}
	t.Cleanup(func() { // before the fixture's own: the mount is in use
		for i, w := range []*world{p.native, p.mount} {
			w.closeAll()
			if w.root != tops[i] {
				_ = unix.Close(w.root)
			}
			_ = unix.Close(tops[i])
		}
		p.users.stop()
		p.journal.close()
	})
	return p
}

// do runs one action in both worlds.
func (p *pair) do(a action) {
	p.t.Helper()
	p.done++
	var got [2]string
	for i, w := range []*world{p.native, p.mount} {
		p.users.as(a.who, func() { got[i] = a.run(w) })
	}
	p.trail = append(p.trail, fmt.Sprintf("%s: %.60q", a.name, got[0]))
	if got[0] != got[1] {
		p.differ("result", got[0], got[1])
	}
}

// compare looks at paths in both worlds.
func (p *pair) compare(paths []string) {
	p.t.Helper()
	for _, path := range paths {
		if native, mount := p.native.look(path), p.mount.look(path); native != mount {
			p.differ("stat of "+path, fmt.Sprintf("%+v", native), fmt.Sprintf("%+v", mount))
		}
	}
}

// compareContent reads paths in both worlds.
func (p *pair) compareContent(paths []string, withHoles bool) {
	p.t.Helper()
	for _, path := range paths {
		if native, mount := p.native.content(path, withHoles), p.mount.content(path, withHoles); native != mount {
			p.differ("content of "+path, native, mount)
		}
	}
}

func (p *pair) differ(what, native, mount string) {
	p.t.Helper()
	same := 0
	for same < min(len(native), len(mount)) && native[same] == mount[same] {
		same++
	}
	short := func(s string) string { return s[max(0, same-200):min(len(s), same+400)] } // around the first difference
	p.t.Fatalf("%s differs after\n  %s\nnatively          %q\nthrough the mount %q", what,
		strings.Join(p.trail[max(0, len(p.trail)-25):], "\n  "), short(native), short(mount))
}

// begin makes a directory in both worlds, and sequences happen inside it.
func (p *pair) begin(name string) (end func()) {
	p.trail = p.trail[:0]
	outer := [2]int{p.native.root, p.mount.root}
	for _, w := range []*world{p.native, p.mount} {
		must(p.t, unix.Mkdirat(w.root, name, 0o755))
		fd, err := unix.Openat(w.root, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		must(p.t, err)
		w.root = fd
		clear(w.times)
	}
	return func() {
		for i, w := range []*world{p.native, p.mount} {
			w.closeAll()
			must(p.t, unix.Close(w.root))
			w.root = outer[i]
		}
	}
}

// sequences does every sequence of up to three of the few actions of everyAction, beginning with the same small tree, and ends early when it
// has done enough. Which comes first is random.
func (p *pair) sequences(rng *rand.Rand, enough int) int {
	var all [][]action
	alphabet := everyAction()
	for _, a := range alphabet {
		all = append(all, []action{a})
		for _, b := range alphabet {
			all = append(all, []action{a, b})
			for _, c := range alphabet {
				all = append(all, []action{a, b, c})
			}
		}
	}
	rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	paths := []string{".", "a", "b", "d", "d/a"}
	for i, seq := range all {
		if p.done >= enough {
			return i
		}
		name := fmt.Sprintf("s%d", i)
		end := p.begin(name)
		for _, w := range []*world{p.native, p.mount} {
			must(p.t, plant(w))
		}
		p.compare(paths)
		for _, a := range seq {
			p.do(a)
			p.compare(paths)
		}
		p.compareContent(paths, true)
		end()
		p.journal.check(name)
		p.journal.forget() // what a directory holds stays, and is not looked at again
	}
	return len(all)
}

// plant makes the tree that a sequence begins with.
func plant(w *world) error {
	if err := unix.Mkdirat(w.root, "d", 0o755); err != nil {
		return err
	}
	fd, err := unix.Openat(w.root, "a", unix.O_CREAT|unix.O_WRONLY|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return err
	}
	if _, err := unix.Write(fd, []byte("0123456789")); err != nil {
		return err
	}
	return unix.Close(fd)
}

// random does actions of all kinds until there were enough.
func (p *pair) random(rng *rand.Rand, enough int) {
	const lookAtAll, readAll = 8, 300
	for round := 0; p.done < enough; round++ {
		name := fmt.Sprintf("r%d", round)
		end := p.begin(name)
		g := &generator{rng: rng, opener: pick(rng, nil, nil, somebody)}
		for range min(2000, enough-p.done) {
			a, touched := g.next()
			if p.leaveOut != "" && strings.Contains(a.name, p.leaveOut) {
				continue
			}
			p.do(a)
			p.compare(touched)
			switch {
			case rng.IntN(readAll) == 0:
				p.compareContent(allPaths, false)
				p.journal.check(name)
			case rng.IntN(lookAtAll) == 0:
				p.compare(allPaths)
			}
		}
		p.compare(allPaths)
		p.compareContent(allPaths, false)
		end()
		p.journal.check(name)
		p.journal.forget() // what a directory holds stays, and is not looked at again
	}
}

// TestDifferential: nothing that is done through the mount comes out differently from the bare file system below, and the journal alone tells
// what there is and which files' content has to be looked at.
func TestDifferential(t *testing.T) {
	seed := *seedFlag
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d, %d operations", seed, *operations)
	began := time.Now()
	// With data=writeback, a commit for somebody else's sake writes no pages of these files, which would make the next store into a
	// mapping move the times in one of the worlds.
	disk := loopdisk.New(t, "ext4", 2<<30, "data=writeback,commit=600")
	must(t, os.Chmod(disk, 0o755))
	modes := []struct {
		name   string
		change func(*childOptions)
	}{{"passthrough", func(*childOptions) {}}, {"served", served}}
	for round := 0; round*roundOperations < *operations; round++ {
		size := min(roundOperations, *operations-round*roundOperations) / len(modes)
		for i, mode := range modes {
			ok := t.Run(fmt.Sprintf("%d-%s", round, mode.name), func(t *testing.T) {
				p := newPair(t, disk, mode.change)
				short := 0
				if round == i { // each mode once
					short = p.sequences(rand.New(rand.NewPCG(seed, 0)), size)
				}
				p.random(rand.New(rand.NewPCG(seed, uint64(2*round+i+1))), size)
				t.Logf("%d sequences, %d operations in all, %d journal records", short, p.done, p.journal.read)
			})
			if !ok {
				t.Fatalf("seed %d", seed)
			}
		}
	}
	t.Logf("%d operations in %.1f s", *operations, time.Since(began).Seconds())
}
