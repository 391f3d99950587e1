package warm_test

import (
	"encoding/binary"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"slipway/internal/batch"
	"slipway/internal/restore/volumetest"
)

type key struct {
	parent batch.FileID
	name   string
}

// model is a volume that changes, and the batch that says how.
type model struct {
	t       testing.TB
	v       *volumetest.Volume
	rng     *rand.Rand
	next    batch.FileID
	mtime   int64
	inodes  map[batch.FileID]*batch.Inode
	entries map[key]batch.FileID
	body    map[key]bool          // entries that changed
	changed map[batch.FileID]bool // inodes that changed
	whole   batch.Seq
}

func newModel(t testing.TB, seed uint64) *model {
	m := &model{
		t: t, v: volumetest.New(t, "vault1"), rng: rand.New(rand.NewPCG(seed, 1)), next: 2, mtime: 1767225600_000000000,
		inodes: make(map[batch.FileID]*batch.Inode), entries: make(map[key]batch.FileID),
		body: make(map[key]bool), changed: make(map[batch.FileID]bool),
	}
	m.put(batch.Inode{ID: batch.Root, Mode: unix.S_IFDIR | 0o750})
	return m
}

func (m *model) put(in batch.Inode) batch.FileID {
	if in.ID == 0 {
		in.ID = m.next
		m.next++
	}
	m.mtime += 1_000_000_123
	in.Mtime = m.mtime
	m.inodes[in.ID] = &in
	m.changed[in.ID] = true
	return in.ID
}

// change gives a file a new record.
func (m *model) change(id batch.FileID, fn func(*batch.Inode)) {
	in := *m.inodes[id]
	in.Xattrs = maps.Clone(in.Xattrs)
	fn(&in)
	m.put(in)
}

func (m *model) isDir(id batch.FileID) bool {
	return m.inodes[id] != nil && m.inodes[id].Mode&unix.S_IFMT == unix.S_IFDIR
}

// touch moves a directory's time, as its file system would.
func (m *model) touch(id batch.FileID) { m.change(id, func(*batch.Inode) {}) }

func (m *model) link(parent batch.FileID, name string, id batch.FileID) {
	m.drop(parent, name)
	m.entries[key{parent, name}] = id
	m.body[key{parent, name}] = true
	m.touch(parent)
}

// drop removes a name, and what it leads to if that was its last one.
func (m *model) drop(parent batch.FileID, name string) {
	k := key{parent, name}
	id, ok := m.entries[k]
	if !ok {
		return
	}
	delete(m.entries, k)
	m.body[k] = true
	m.touch(parent)
	if m.named(id) {
		return
	}
	silent := m.rng.IntN(2) == 0 // what lies below a directory that goes need not be named
	for _, c := range m.children(id) {
		m.drop(c.parent, c.name)
		if silent {
			delete(m.body, c)
		}
	}
	delete(m.inodes, id)
	delete(m.changed, id)
}

func (m *model) named(id batch.FileID) bool {
	for _, have := range m.entries {
		if have == id {
			return true
		}
	}
	return false
}

func (m *model) children(id batch.FileID) (list []key) {
	for k := range m.entries {
		if k.parent == id {
			list = append(list, k)
		}
	}
	sortKeys(list)
	return list
}

func sortKeys(list []key) {
	slices.SortFunc(list, func(a, b key) int {
		if a.parent != b.parent {
			return int(int64(a.parent) - int64(b.parent))
		}
		return strings.Compare(a.name, b.name)
	})
}

// move renames over whatever is there.
func (m *model) move(from, to key) {
	id := m.entries[from]
	if from == to || m.entries[to] == id || m.below(to.parent, id) || m.below(from.parent, m.entries[to]) {
		return
	}
	m.drop(to.parent, to.name)
	delete(m.entries, from)
	m.body[from] = true
	m.entries[to] = id
	m.body[to] = true
	m.touch(from.parent)
	m.touch(to.parent)
}

// swap exchanges two names.
func (m *model) swap(a, b key) {
	x, y := m.entries[a], m.entries[b]
	if x == y || m.below(b.parent, x) || m.below(a.parent, y) {
		return
	}
	m.entries[a], m.entries[b] = y, x
	m.body[a], m.body[b] = true, true
	m.touch(a.parent)
	m.touch(b.parent)
}

// below tells whether a directory is, or lies below, another.
func (m *model) below(dir, top batch.FileID) bool {
	for dir != batch.Root {
		if dir == top {
			return true
		}
		up := batch.FileID(0)
		for k, id := range m.entries {
			if id == dir {
				up = k.parent
			}
		}
		if up == 0 {
			return true
		}
		dir = up
	}
	return top == batch.Root
}

// seal makes the batch.
func (m *model) seal(complete bool, change func(*batch.Envelope)) *batch.Sealed {
	b := &batch.Body{}
	for _, id := range slices.Sorted(maps.Keys(m.changed)) {
		b.Inodes = append(b.Inodes, *m.inodes[id])
	}
	keys := slices.Collect(maps.Keys(m.body))
	sortKeys(keys)
	for _, k := range keys {
		b.Entries = append(b.Entries, batch.Entry{Parent: k.parent, Name: k.name, ID: m.entries[k]})
	}
	return m.sealBody(b, complete, change)
}

// sealFull makes a batch of the whole tree.
func (m *model) sealFull(change func(*batch.Envelope)) *batch.Sealed {
	b := &batch.Body{Secret: &m.v.Secret}
	for _, id := range slices.Sorted(maps.Keys(m.inodes)) {
		b.Inodes = append(b.Inodes, *m.inodes[id])
	}
	for k, id := range m.entries {
		b.Entries = append(b.Entries, batch.Entry{Parent: k.parent, Name: k.name, ID: id})
	}
	return m.sealBody(b, true, func(e *batch.Envelope) {
		e.Full = true
		if change != nil {
			change(e)
		}
	})
}

func (m *model) sealBody(b *batch.Body, complete bool, change func(*batch.Envelope)) *batch.Sealed {
	m.t.Helper()
	m.v.Flush()
	for i := range b.Inodes { // pieces have their places now
		b.Inodes[i].Content = m.inodes[b.Inodes[i].ID].Content
	}
	s := m.v.Seal(b, func(e *batch.Envelope) {
		if !complete {
			e.Complete, e.Why, e.LastWhole = false, "gap", m.whole
		}
		if change != nil {
			change(e)
		}
	})
	if complete {
		m.whole = s.Envelope.Last
	}
	clear(m.body)
	clear(m.changed)
	return s
}

func (m *model) file(parent batch.FileID, name, data string) batch.FileID {
	id := m.put(batch.Inode{Mode: unix.S_IFREG | 0o644, Content: m.v.Content(data)})
	m.link(parent, name, id)
	return id
}

func (m *model) dir(parent batch.FileID, name string) batch.FileID {
	id := m.put(batch.Inode{Mode: unix.S_IFDIR | 0o755})
	m.link(parent, name, id)
	return id
}

// acl encodes a POSIX ACL: rw for the owner, a named user and the mask, r for the others.
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

func (m *model) data() string {
	return strings.Repeat(fmt.Sprintf("%x ", m.rng.Uint32()), m.rng.IntN(200))
}

func (m *model) content() *batch.Content {
	c := m.v.Content(m.data())
	if m.rng.IntN(4) == 0 {
		c.Holes = []batch.Hole{{Offset: c.Size, Len: 1 << 20}}
		c.Size += 1 << 20
	}
	switch m.rng.IntN(12) {
	case 0:
		c.Clean = false
	case 1:
		c.Clean, c.Before = false, m.v.Content(m.data())
	}
	return c
}

// some returns a random entry, and whether there is one.
func (m *model) some() (key, bool) {
	if len(m.entries) == 0 {
		return key{}, false
	}
	all := slices.Collect(maps.Keys(m.entries))
	sortKeys(all)
	return all[m.rng.IntN(len(all))], true
}

func (m *model) someDir() batch.FileID {
	var all []batch.FileID
	for _, id := range slices.Sorted(maps.Keys(m.inodes)) {
		if m.isDir(id) {
			all = append(all, id)
		}
	}
	return all[m.rng.IntN(len(all))]
}

func (m *model) someName() string {
	names := []string{"a", "b", "c", "d", "e\xff", "f\n", strings.Repeat("n", 255), ".slipway-warm"}
	return names[m.rng.IntN(len(names))]
}

// act does something.
func (m *model) act() {
	at := key{m.someDir(), m.someName()}
	if m.isDir(m.entries[at]) && m.rng.IntN(8) > 0 { // or little would ever be left
		at.name += "+"
		at.name = at.name[:min(len(at.name), 255)]
	}
	k, ok := m.some()
	id := m.entries[k]
	switch n := m.rng.IntN(24) - 4; {
	case n < 5 || !ok:
		m.make(at)
	case n < 8:
		m.link(at.parent, at.name, m.put(batch.Inode{Mode: unix.S_IFDIR | 0o700 | uint32(m.rng.IntN(0o100))}))
	case n < 11:
		m.move(k, at)
	case n < 13:
		if other, _ := m.some(); other != k {
			m.swap(k, other)
		}
	case n < 14:
		if there := m.entries[at]; !m.isDir(id) && there != id && !m.isDir(there) {
			m.link(at.parent, at.name, id)
		}
	case n < 15:
		if !m.isDir(id) || m.rng.IntN(4) == 0 {
			m.drop(k.parent, k.name)
		}
	case n < 18:
		if m.inodes[id].Mode&unix.S_IFMT == unix.S_IFREG {
			c := m.content()
			m.change(id, func(in *batch.Inode) { in.Content = c })
		}
	default:
		m.attributes(id)
	}
}

func (m *model) make(at key) {
	in := batch.Inode{UID: uint32(m.rng.IntN(3)), GID: uint32(m.rng.IntN(3))}
	switch m.rng.IntN(10) {
	case 0:
		in.Mode, in.Target = unix.S_IFLNK|0o777, "../to/"+m.someName()
	case 1:
		in.Mode = unix.S_IFIFO | 0o640
	case 2:
		in.Mode, in.Rdev = unix.S_IFCHR|0o600, unix.Mkdev(1, uint32(3+m.rng.IntN(4)))
	case 3:
		in.Mode = unix.S_IFREG | 0o600 // not sealed yet
	default:
		in.Mode, in.Content = unix.S_IFREG|0o600, m.content()
	}
	m.link(at.parent, at.name, m.put(in))
}

func (m *model) attributes(id batch.FileID) {
	m.change(id, func(in *batch.Inode) {
		kind := in.Mode & unix.S_IFMT
		if kind != unix.S_IFLNK {
			in.Mode = kind | 0o600 | uint32(m.rng.IntN(0o7777))
		}
		in.UID = uint32(m.rng.IntN(3))
		in.Xattrs = nil
		if kind != unix.S_IFREG && kind != unix.S_IFDIR {
			return
		}
		in.Xattrs = make(map[string][]byte)
		for _, n := range []string{"user.a", "user.b", "trusted.c"} {
			if m.rng.IntN(2) == 0 {
				in.Xattrs[n] = []byte(m.someName())
			}
		}
		if m.rng.IntN(3) == 0 {
			in.Mode = kind | 0o664
			in.Xattrs["system.posix_acl_access"] = acl(uint32(m.rng.IntN(9)))
			if kind == unix.S_IFDIR {
				in.Xattrs["system.posix_acl_default"] = acl(uint32(m.rng.IntN(9)))
			}
		}
	})
}
