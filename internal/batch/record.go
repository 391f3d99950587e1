package batch

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"slipway/internal/chunk"
	"slipway/internal/shard"
)

// Piece says which bytes of which object are a chunk of a file.
type Piece struct {
	Shard shard.Digest
	shard.Slot
}

// Hole is a range of a file that is not stored.
type Hole struct {
	Offset int64 `json:"offset"`
	Len    int64 `json:"len"`
}

// Content is what a regular file holds. The pieces, in order, fill the file's data outside the holes.
type Content struct {
	Size   int64
	Pieces []Piece // at most MaxPieces; none when Lists is set
	Lists  []Piece // list chunks, in order: each decodes (DecodeList) to pieces
	Holes  []Hole
	Clean  bool     // read without a writer; otherwise the file was moving while it was read
	Before *Content // not clean: the last clean content, if there is one
}

// Same tells whether two contents are the same bytes, wherever they are stored. nil is the same as nil only.
func (c *Content) Same(d *Content) bool {
	if c == nil || d == nil {
		return c == d
	}
	same := func(a, b Piece) bool { return a.Chunk == b.Chunk && a.Len == b.Len }
	return c.Size == d.Size && slices.Equal(c.Holes, d.Holes) && slices.EqualFunc(c.Pieces, d.Pieces, same) && slices.EqualFunc(c.Lists, d.Lists, same)
}

// MaxPieces is how many pieces a file may have before its list is itself cut into list chunks.
const MaxPieces = 256

// MaxHoles is how many holes a file may have. Whoever reads a file with more takes some of them for data, which is zeros and
// compresses to nothing.
const MaxHoles = 32768

// Inode is a file's attributes and content: a state.
type Inode struct {
	ID      FileID
	Mode    uint32 // st_mode
	UID     uint32
	GID     uint32
	Rdev    uint64            // devices only
	Mtime   int64             // nanoseconds since 1970
	Target  string            // of a symbolic link
	Xattrs  map[string][]byte // nil: none
	Content *Content          // regular files; nil there: no content yet ("content": "pending")
}

// Entry is a name in a directory: (Parent, Name) → ID, or gone.
type Entry struct {
	Parent FileID
	Name   string
	ID     FileID // 0: the entry is gone
}

// Body is what a batch changes. There is one record of an inode, and one of a name in a directory.
type Body struct {
	Inodes  []Inode
	Entries []Entry
	Secret  *chunk.Secret // in full batches, and in the first batch of an epoch
}

// Limits of the kernel's; what is beyond did not come from a file system.
const (
	maxName       = 1024 // NAME_MAX is 255, of characters where names are UTF-16
	maxTarget     = 4096
	maxXattrName  = 255
	maxXattrValue = 64 << 10
)

var errRecord = errors.New("record is not valid")

func wrong(format string, args ...any) error {
	return fmt.Errorf("%w: %s", errRecord, fmt.Sprintf(format, args...))
}

// check tells what is wrong with an entry. Names that would lead out of their directory end here, whoever wrote them.
func (e *Entry) check() error {
	switch {
	case e.Parent < 1 || e.Parent > MaxID || e.ID > MaxID:
		return wrong("entry of directory %d names inode %d", e.Parent, e.ID)
	case e.Name == "" || len(e.Name) > maxName || e.Name == "." || e.Name == ".." || strings.ContainsAny(e.Name, "/\x00"):
		return wrong("entry of directory %d has the name %.300q", e.Parent, e.Name)
	}
	return nil
}

func (i *Inode) kind() uint32  { return i.Mode & unix.S_IFMT }
func (i *Inode) regular() bool { return i.kind() == unix.S_IFREG }
func (i *Inode) symlink() bool { return i.kind() == unix.S_IFLNK }
func (i *Inode) device() bool  { return i.kind() == unix.S_IFCHR || i.kind() == unix.S_IFBLK }

// check tells what is wrong with an inode.
func (i *Inode) check() error {
	if i.ID < 1 || i.ID > MaxID {
		return wrong("inode %d", i.ID)
	}
	switch i.kind() {
	case unix.S_IFREG, unix.S_IFDIR, unix.S_IFLNK, unix.S_IFCHR, unix.S_IFBLK, unix.S_IFIFO, unix.S_IFSOCK:
	default:
		return wrong("inode %d has mode %o", i.ID, i.Mode)
	}
	if i.Mode>>16 != 0 {
		return wrong("inode %d has mode %o", i.ID, i.Mode)
	}
	if i.symlink() != (i.Target != "") || len(i.Target) > maxTarget || strings.ContainsRune(i.Target, 0) {
		return wrong("inode %d of mode %o has the target %.300q", i.ID, i.Mode, i.Target)
	}
	for name, value := range i.Xattrs {
		if name == "" || len(name) > maxXattrName || strings.ContainsRune(name, 0) || len(value) > maxXattrValue {
			return wrong("inode %d has an attribute %.300q of %d bytes", i.ID, name, len(value))
		}
	}
	if i.Content == nil {
		return nil
	}
	if !i.regular() {
		return wrong("inode %d of mode %o has content", i.ID, i.Mode)
	}
	if err := i.Content.check(true); err != nil {
		return fmt.Errorf("inode %d: %w", i.ID, err)
	}
	return nil
}

// check tells what is wrong with content: its pieces and holes have to make up exactly its size.
func (c *Content) check(outer bool) error {
	if c.Before != nil && (!outer || c.Clean || !c.Before.Clean) {
		return wrong("clean content stands beside moving content, and only there")
	}
	if c.Size < 0 || len(c.Pieces) > MaxPieces || len(c.Pieces) > 0 && len(c.Lists) > 0 {
		return wrong("content of %d bytes with %d pieces and %d lists", c.Size, len(c.Pieces), len(c.Lists))
	}
	data, err := c.dataSize()
	if err != nil {
		return err
	}
	var sum int64
	for _, list := range [][]Piece{c.Pieces, c.Lists} {
		for i := range list {
			if err := list[i].Check(); err != nil {
				return wrong("%v", err)
			}
			sum += list[i].Len // no overflow: a line bounds the number, a slot the length
		}
	}
	if len(c.Lists) == 0 && sum != data {
		return wrong("content of %d bytes, %d of them data, has pieces of %d bytes", c.Size, data, sum)
	}
	if c.Before != nil {
		return c.Before.check(false)
	}
	return nil
}

// dataSize is the size without the holes, which have to be in order and inside.
func (c *Content) dataSize() (int64, error) {
	if len(c.Holes) > MaxHoles {
		return 0, wrong("%d holes, at most %d", len(c.Holes), MaxHoles)
	}
	data, end := c.Size, int64(0)
	for _, h := range c.Holes {
		if h.Offset < end || h.Len < 1 || h.Len > c.Size || h.Offset > c.Size-h.Len {
			return 0, wrong("hole of %d bytes at %d in content of %d", h.Len, h.Offset, c.Size)
		}
		end = h.Offset + h.Len
		data -= h.Len
	}
	return data, nil
}
