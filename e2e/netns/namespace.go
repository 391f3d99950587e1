// Package netns makes several nodes of one machine, for tests: each node is a network namespace with an address of its own,
// a router between them is one more, and links can be cut, made slow or made to lose packets. No packet leaves them. It needs
// root and Debian's iproute2.
//
// The namespaces have no names: each lives as long as a descriptor of this process or a process in it. After a crash of this
// process, namespaces, interfaces and rules go with the last process that was started in them; nothing has to be swept.
package netns

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

const ownThread = "/proc/thread-self/ns/net"

// namespace is a network namespace held open.
type namespace struct {
	file *os.File
	name string // what the kernel calls it: "net:[4026532000]"
}

// newNamespace makes one; the calling goroutine stays where it is.
func newNamespace() (namespace, error) {
	var made namespace
	err := away(func() error { return unix.Unshare(unix.CLONE_NEWNET) }, func() (err error) {
		if made.name, err = os.Readlink(ownThread); err == nil {
			made.file, err = os.Open(ownThread)
		}
		return err
	})
	if err != nil {
		return namespace{}, fmt.Errorf("make a network namespace: %w", err)
	}
	return made, nil
}

// path leads other processes here, while this one lives.
func (n namespace) path() string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), n.file.Fd()) }

// do runs fn in the namespace: sockets that it makes and processes that it starts belong there for good.
func (n namespace) do(fn func() error) error {
	return away(func() error { return unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET) }, fn)
}

// away runs fn after the calling thread has gone elsewhere, and brings the thread back. Nobody else is let onto a thread that
// cannot come back: it stays locked, and ends with its goroutine.
func away(leave, fn func() error) (err error) {
	runtime.LockOSThread()
	home, err := os.Open(ownThread)
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer func() {
		back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET)
		err = errors.Join(err, back, home.Close())
		if back == nil {
			runtime.UnlockOSThread()
		}
	}()
	if err := leave(); err != nil {
		return err
	}
	return fn()
}
