package control

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// longest is how long a unix socket's address may be.
const longest = 107

// SocketPath is the daemon's socket below its state directory.
func SocketPath(state string) string { return filepath.Join(state, "control.sock") }

// StatusPath is the daemon's last answer below its state directory.
func StatusPath(state string) string { return filepath.Join(state, "status.json") }

// address returns an address for the socket of state that fits into a sockaddr_un: a long path is reached through a
// descriptor of its directory. done frees that descriptor.
func address(state string) (addr string, done func(), err error) {
	if addr = SocketPath(state); len(addr) <= longest {
		return addr, func() {}, nil
	}
	fd, err := unix.Open(state, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", nil, &fs.PathError{Op: "open", Path: state, Err: err}
	}
	return "/proc/self/fd/" + strconv.Itoa(fd) + "/control.sock", func() { _ = unix.Close(fd) }, nil
}

// listen binds the socket, 0660, in place of a stale one. A live one is an error: two daemons on one state.
func listen(state string) (net.Listener, func(), error) {
	addr, done, err := address(state)
	if err != nil {
		return nil, nil, fmt.Errorf("listen on control socket: %w", err)
	}
	if conn, err := net.DialTimeout("unix", addr, answerWithin); err == nil {
		_ = conn.Close()
		done()
		return nil, nil, fmt.Errorf("listen on control socket %s: another daemon answers there", SocketPath(state))
	}
	if st, err := os.Lstat(addr); err == nil && st.Mode().Type() == fs.ModeSocket {
		if err := os.Remove(addr); err != nil {
			done()
			return nil, nil, fmt.Errorf("replace stale control socket: %w", err)
		}
	}
	l, err := net.Listen("unix", addr)
	if err == nil {
		if err = os.Chmod(addr, 0o660); err != nil {
			_ = l.Close()
		}
	}
	if err != nil {
		done()
		return nil, nil, fmt.Errorf("listen on control socket: %w", err)
	}
	return l, done, nil
}

// connect returns a connection to the daemon of state, or ErrNoDaemon, or ErrSilent.
func connect(state string, within time.Duration) (net.Conn, error) {
	addr, done, err := address(state)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", state, ErrNoDaemon)
	}
	if err != nil {
		return nil, err
	}
	defer done()
	conn, err := net.DialTimeout("unix", addr, within)
	switch {
	case errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ECONNREFUSED):
		return nil, fmt.Errorf("%s: %w", SocketPath(state), ErrNoDaemon)
	case errors.Is(err, unix.EAGAIN) || errors.Is(err, os.ErrDeadlineExceeded): // its queue of connections is full
		return nil, fmt.Errorf("%s: %w", SocketPath(state), ErrSilent)
	}
	if err == nil && isStopped(conn) {
		_ = conn.Close()
		return nil, fmt.Errorf("%s: its process is stopped: %w", SocketPath(state), ErrSilent)
	}
	return conn, err
}

// isStopped tells whether the process that listens at the other end is stopped, so that its answer need not be waited for.
func isStopped(conn net.Conn) bool {
	c, ok := conn.(*net.UnixConn)
	if !ok {
		return false
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	pid := 0
	err = raw.Control(func(fd uintptr) {
		if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			pid = int(cred.Pid)
		}
	})
	if err != nil || pid == 0 { // of another process namespace
		return false
	}
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	_, state, found := bytes.Cut(stat[bytes.LastIndexByte(stat, ')')+1:], []byte(" "))
	return err == nil && found && (state[0] == 'T' || state[0] == 't')
}
