package warm

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"slipway/internal/batch"
	"slipway/internal/restore/object"
)

// sameObject tells whether two records differ in nothing but attributes, so that one object can become the other.
func sameObject(a, b *batch.Inode) bool {
	if a.Mode&unix.S_IFMT != b.Mode&unix.S_IFMT || a.Target != b.Target || a.Rdev != b.Rdev {
		return false
	}
	if !isReg(a) {
		return true
	}
	x, _, _ := object.Content(a)
	y, _, _ := object.Content(b)
	return x != nil && x.Same(y)
}

func sameAttributes(a, b *batch.Inode) bool {
	return a.Mode == b.Mode && a.UID == b.UID && a.GID == b.GID && a.Mtime == b.Mtime && maps.EqualFunc(a.Xattrs, b.Xattrs, bytes.Equal)
}

// goneXattrs lists the attributes that an object loses.
func goneXattrs(old, in *batch.Inode) (gone []string) {
	for name := range old.Xattrs {
		if _, stays := in.Xattrs[name]; !stays {
			gone = append(gone, name)
		}
	}
	return gone
}

func contentStart(in *batch.Inode) *batch.Piece {
	c, _, _ := object.Content(in)
	switch {
	case c == nil:
	case len(c.Pieces) > 0:
		return &c.Pieces[0]
	case len(c.Lists) > 0:
		return &c.Lists[0]
	}
	return nil
}

// keptName is where an object waits in the staging directory for its new name.
func keptName(id batch.FileID) string { return "k" + strconv.FormatUint(uint64(id), 10) }

// newName is where a new object waits. It says which record it was made from, so that what a step that was cut off left can
// be taken for what it is.
func newName(in *batch.Inode) string {
	prefix := "n" + strconv.FormatUint(uint64(in.ID), 10)
	if isDir(in) {
		return prefix
	}
	h := sha256.New()
	say := func(format string, args ...any) { _, _ = fmt.Fprintf(h, format, args...) } // a hash takes everything
	say("%o %d %d %d %d %q", in.Mode, in.UID, in.GID, in.Rdev, in.Mtime, in.Target)
	for _, name := range slices.Sorted(maps.Keys(in.Xattrs)) {
		say("%q=%x", name, in.Xattrs[name])
	}
	if c, _, _ := object.Content(in); c != nil {
		say("%d %v", c.Size, c.Holes)
		for _, list := range [][]batch.Piece{c.Pieces, c.Lists} {
			for i := range list {
				say(" %x %d", list[i].Chunk[:], list[i].Len)
			}
		}
	}
	return prefix + "." + hex.EncodeToString(h.Sum(nil)[:8])
}
