package fusefs

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"slipway/internal/journal"
)

const (
	// ownXattrs are answered by slipway itself: readable, never listed, never set.
	ownXattrs = "user.slipway."

	explainTimeout = 50 * time.Millisecond

	defaultACLXattr = "system.posix_acl_default"
	accessACLXattr  = "system.posix_acl_access"
	capabilityXattr = "security.capability"

	maxXattr = 64 << 10 // the kernel's limit for a value
)

// GetXAttr reads one extended attribute; ACLs are extended attributes.
func (f *filesystem) GetXAttr(_ <-chan struct{}, in *fuse.InHeader, name string, dest []byte) (uint32, fuse.Status) {
	n, err := f.nodes.get(in.NodeId)
	if err != nil {
		return 0, status(err)
	}
	if strings.HasPrefix(name, ownXattrs) {
		return f.ownXattr(n, name, dest)
	}
	acl := name == accessACLXattr || name == defaultACLXattr
	if n.plain.Load() && (acl || name == capabilityXattr) {
		return 0, fuse.ENODATA // the kernel asks for capabilities at the first write and at each chown
	}
	size, err := unix.Getxattr(procPath(n.fd), name, dest)
	if acl && errors.Is(err, unix.EOPNOTSUPP) {
		// The kernel asks as well, to check permissions, and would hand this error to whoever wants to open the file.
		err = unix.ENODATA
	}
	return uint32(max(size, 0)), status(err)
}

// ownXattr asks the spooler where the file stands, for a short time: the mount never depends on it.
func (f *filesystem) ownXattr(n *node, name string, dest []byte) (uint32, fuse.Status) {
	if f.opt.Explain == nil || n.foreign {
		return 0, fuse.ENODATA
	}
	ctx, cancel := context.WithTimeout(context.Background(), explainTimeout)
	defer cancel()
	said, err := f.opt.Explain(ctx, f.nodes.path(n))
	value := said[strings.TrimPrefix(name, ownXattrs)]
	if err != nil || value == "" {
		return 0, fuse.ENODATA
	}
	if len(dest) > 0 && len(dest) < len(value) {
		return 0, fuse.ERANGE
	}
	copy(dest, value)
	return uint32(len(value)), fuse.OK
}

// ListXAttr lists the names. trusted.* are for root's eyes, as below.
func (f *filesystem) ListXAttr(_ <-chan struct{}, in *fuse.InHeader, dest []byte) (uint32, fuse.Status) {
	n, err := f.nodes.get(in.NodeId)
	if err != nil {
		return 0, status(err)
	}
	names, err := listXattrs(n.fd)
	if err != nil {
		return 0, status(err)
	}
	var shown []byte
	for name := range bytes.SplitAfterSeq(names, []byte{0}) {
		if bytes.HasPrefix(name, []byte(ownXattrs)) || in.Uid != 0 && bytes.HasPrefix(name, []byte("trusted.")) {
			continue
		}
		shown = append(shown, name...)
	}
	if len(dest) == 0 {
		return uint32(len(shown)), fuse.OK
	}
	if len(shown) > len(dest) {
		return uint32(len(shown)), fuse.ERANGE
	}
	return uint32(copy(dest, shown)), fuse.OK
}

func listXattrs(fd int) ([]byte, error) {
	path := procPath(fd)
	for {
		size, err := unix.Listxattr(path, nil)
		if err != nil || size == 0 {
			return nil, err
		}
		buf := make([]byte, size)
		size, err = unix.Listxattr(path, buf)
		if err == unix.ERANGE {
			continue // it grew in between
		}
		return buf[:max(size, 0)], err
	}
}

// SetXAttr sets one. An ACL set by someone outside the file's group takes sgid away.
func (f *filesystem) SetXAttr(_ <-chan struct{}, in *fuse.SetXAttrIn, name string, value []byte) fuse.Status {
	n, err := f.nodes.get(in.NodeId)
	if err != nil {
		return status(err)
	}
	if strings.HasPrefix(name, ownXattrs) {
		return fuse.EPERM
	}
	value = value[:min(int(in.Size), len(value))]
	n.plain.Store(false)
	err = f.killing(n, in.SetXAttrFlags&fuse.SETXATTR_ACL_KILL_SGID != 0, in.Caller, func() error {
		return unix.Setxattr(procPath(n.fd), name, value, int(in.Flags))
	})
	if err != nil {
		return status(err)
	}
	f.xattrChanged(n, name)
	return fuse.OK
}

// RemoveXAttr removes one.
func (f *filesystem) RemoveXAttr(_ <-chan struct{}, in *fuse.InHeader, name string) fuse.Status {
	n, err := f.nodes.get(in.NodeId)
	if err != nil {
		return status(err)
	}
	if strings.HasPrefix(name, ownXattrs) {
		return fuse.EPERM
	}
	// Some file systems take sgid along with the ACL, and the kernel does not say who may keep it.
	err = f.killing(n, name == accessACLXattr && in.Uid != 0, in.Caller, func() error { return unix.Removexattr(procPath(n.fd), name) })
	if err != nil {
		return status(err)
	}
	f.xattrChanged(n, name)
	return fuse.OK
}

// xattrChanged journals how an extended attribute is now, and forgets what was known of a default ACL.
func (f *filesystem) xattrChanged(n *node, name string) {
	if name == defaultACLXattr {
		n.defaultACL.Store(aclUnknown)
	}
	st, err := statx(n.fd, "")
	if err != nil {
		f.gap("read the attributes of a file whose extended attributes changed: " + err.Error())
		return
	}
	f.record(xattrRecord(n, name, &st))
}

// xattrRecord reports an extended attribute as it is: what was set need not be what is kept. An ACL that says no more than the mode is the
// mode, and a capability is rewritten.
func xattrRecord(n *node, name string, st *unix.Statx_t) *journal.Record {
	r := nodeRecord(journal.OpRemoveXattr, n, st)
	if r == nil {
		return nil
	}
	r.XattrName = name
	if value, err := readXattr(n.fd, name); err == nil {
		r.Op, r.XattrValue = journal.OpSetXattr, value
	}
	return r
}

// hasXattr tells whether an object has an extended attribute.
func (n *node) hasXattr(name string) bool {
	if n.plain.Load() {
		return false
	}
	_, err := unix.Getxattr(procPath(n.fd), name, nil)
	return err == nil
}

func readXattr(fd int, name string) ([]byte, error) {
	buf := make([]byte, 256)
	size, err := unix.Getxattr(procPath(fd), name, buf)
	if err == unix.ERANGE {
		buf = make([]byte, maxXattr)
		size, err = unix.Getxattr(procPath(fd), name, buf)
	}
	return buf[:max(size, 0)], err
}
