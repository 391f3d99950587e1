package fusefs

import (
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"slipway/internal/journal"
)

// nodeKey finds the node of an object. The node's descriptor pins the object, so its key cannot come to mean another one.
type nodeKey struct{ dev, ino uint64 }

func keyOf(st *unix.Statx_t) nodeKey {
	return nodeKey{dev: unix.Mkdev(st.Dev_major, st.Dev_minor), ino: st.Ino}
}

// ioMode says who reads and writes an open file. The kernel wants the same answer for every open of one inode at a time
// (EIO otherwise), so it is decided at the first open and kept until the last release.
type ioMode uint8

const (
	ioNone        ioMode = iota // not open
	ioPassthrough               // the kernel
	ioServed                    // this process
)

// node is an object of the source that the kernel knows, or that a handle or the settling loop still needs.
type node struct {
	id      uint64
	fd      int // O_PATH
	key     nodeKey
	ident   journal.Ident
	kind    uint32 // the type bits of st_mode
	foreign bool   // on another file system mounted below the source: passed through, not journaled

	// A writer may change the times unseen: attributes must not be cached. Set under mu, read without.
	unsettled atomic.Bool
	// A new object that nobody has given an extended attribute.
	plain atomic.Bool
	// Whether the directory has a default ACL: aclUnknown, aclNone, aclSet.
	defaultACL atomic.Int32

	// guarded by nodeTable.mu
	lookups uint64 // entries the kernel was given and has not forgotten
	refs    int    // handles and waiting probes
	parent  *node  // with name: one of its names, for user.slipway.*, for `durability:` and for pruning only
	name    string
	unsure  bool // that name was taken away: there may be others that nobody here has seen

	// guarded by mu
	mu      sync.Mutex
	io      ioMode
	opens   int
	writers int
	backing int32 // the kernel's id of the file below while io is ioPassthrough
	late    lateBits
}

// nodeTable holds every node, by the number the kernel knows it by and by what it is.
type nodeTable struct {
	root   *node
	mntID  uint64 // of the source; anything on another mount is foreign
	grown  func(n int)
	mu     sync.RWMutex
	nextID uint64
	byID   map[uint64]*node
	byKey  map[nodeKey]*node
}

func newNodeTable(root *node, mntID uint64) *nodeTable {
	return &nodeTable{
		root:   root,
		mntID:  mntID,
		nextID: root.id,
		byID:   map[uint64]*node{root.id: root},
		byKey:  map[nodeKey]*node{root.key: root},
	}
}

// get returns the node of a request. The kernel names only nodes it has not forgotten.
func (t *nodeTable) get(id uint64) (*node, error) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if n := t.byID[id]; n != nil {
		return n, nil
	}
	return nil, unix.ESTALE
}

// enter counts one lookup of the object that fresh describes and returns its node: an older one if there is one, in which
// case fresh and its descriptor are the caller's to drop.
func (t *nodeTable) enter(fresh, parent *node, name string) (n *node, old bool) {
	t.mu.Lock()
	n, old = t.byKey[fresh.key], true
	if n == nil {
		n, old = fresh, false
		t.nextID++
		n.id = t.nextID
		t.byID[n.id] = n
		t.byKey[n.key] = n
	}
	n.lookups++
	if name != "" && n != t.root {
		n.parent, n.name, n.unsure = parent, name, false
	}
	size := len(t.byID)
	t.mu.Unlock()
	if !old {
		t.grown(size)
	}
	return n, old
}

// hold keeps a node alive, whatever the kernel forgets.
func (t *nodeTable) hold(n *node) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n.refs++
}

// drop ends a hold.
func (t *nodeTable) drop(n *node) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n.refs--
	t.reapLocked(n)
}

// forget takes back lookups that enter counted.
func (t *nodeTable) forget(id, lookups uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.byID[id]
	if n == nil {
		return
	}
	n.lookups -= min(lookups, n.lookups)
	t.reapLocked(n)
}

// reapLocked removes a node that nobody needs. Closing an O_PATH descriptor waits for nothing.
func (t *nodeTable) reapLocked(n *node) {
	if n.lookups > 0 || n.refs > 0 || n == t.root {
		return
	}
	delete(t.byID, n.id)
	delete(t.byKey, n.key)
	_ = unix.Close(n.fd)
	n.fd = -1
	n.parent = nil
}

// rename notes that the object now goes by another name.
func (t *nodeTable) rename(key nodeKey, parent *node, name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n := t.byKey[key]; n != nil && n != t.root {
		n.parent, n.name, n.unsure = parent, name, false
	}
}

// unlink notes that a name does not lead to the object any more.
func (t *nodeTable) unlink(key nodeKey, parent *node, name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n := t.byKey[key]; n != nil && n.parent == parent && n.name == name {
		n.unsure = true
	}
}

// isUnsure tells whether path may be of a name that is gone.
func (t *nodeTable) isUnsure(n *node) bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return n.unsure
}

// path returns a path of the node relative to the volume, "." for the volume itself.
func (t *nodeTable) path(n *node) string {
	t.mu.RLock()
	defer t.mu.RUnlock()
	var parts []string
	for ; n != nil && n != t.root; n = n.parent {
		parts = append(parts, n.name)
	}
	if len(parts) == 0 {
		return "."
	}
	var b strings.Builder
	for i := len(parts) - 1; i >= 0; i-- {
		b.WriteString(parts[i])
		if i > 0 {
			b.WriteByte('/')
		}
	}
	return b.String()
}

// size returns how many nodes there are.
func (t *nodeTable) size() int {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return len(t.byID)
}

// drain empties the table.
func (t *nodeTable) drain() []*node {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make([]*node, 0, len(t.byID))
	for _, n := range t.byID {
		all = append(all, n)
	}
	clear(t.byID)
	clear(t.byKey)
	return all
}
