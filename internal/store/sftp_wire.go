package store

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// wire is the TCP connection below SSH. It remembers why it ended; the first reason is the true one, later errors follow
// from it. Closing it is the only way to end a request that waits: the library above has no deadlines.
type wire struct {
	net.Conn

	mu    sync.Mutex
	cause error // nil while it is good
}

func (w *wire) Read(b []byte) (int, error) {
	n, err := w.Conn.Read(b)
	if err != nil {
		w.fail(err)
	}
	return n, err
}

func (w *wire) Write(b []byte) (int, error) {
	n, err := w.Conn.Write(b)
	if err != nil {
		w.fail(err)
	}
	return n, err
}

// fail closes the connection for a reason.
func (w *wire) fail(cause error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cause == nil {
		w.cause = cause
		_ = w.Close() // nothing that mattered is still in it
	}
}

// ended returns why the connection ended, nil while it is good.
func (w *wire) ended() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if errors.Is(w.cause, io.EOF) {
		return errors.New("the server closed the connection")
	}
	return w.cause
}

// acked returns how many bytes the server's kernel has confirmed.
func (w *wire) acked() uint64 {
	if info := w.info(); info != nil {
		return info.Bytes_acked
	}
	return 0
}

// roundTrip is the shortest one seen on this connection; a long one where the kernel does not tell.
func (w *wire) roundTrip() time.Duration {
	if info := w.info(); info != nil {
		return time.Duration(info.Min_rtt) * time.Microsecond
	}
	return time.Second
}

// info is the kernel's account of the connection, nil when it is closed or no TCP.
func (w *wire) info() *unix.TCPInfo {
	tcp, ok := w.Conn.(*net.TCPConn)
	if !ok {
		return nil
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return nil
	}
	var info *unix.TCPInfo
	_ = raw.Control(func(fd uintptr) { // an error means that it is closed
		if got, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			info = got
		}
	})
	return info
}

const (
	acksAlone = 12 // so many stall times, acknowledgements by the server's kernel count though no answer comes
	drip      = 60 // so many stall times one request may take altogether, however its answer drips in
)

// watch notices that the server has stopped answering. Progress is a byte of an answer on SFTP's own stream (SSH's
// keepalives go on while sftp-server hangs on its disk) or, for a while, bytes that went out and were confirmed: on a slow
// line the answer to a large packet takes long.
type watch struct {
	stall   time.Duration
	acked   func() uint64
	expired func(cause error)

	mu        sync.Mutex
	waiting   int           // requests that have no answer yet
	patience  time.Duration // of the most patient of them
	timer     *time.Timer
	began     time.Time // when waiting last rose from 0
	answered  time.Time // last byte of an answer, or began
	confirmed time.Time // last time that ackedBefore moved, or began
	ackedUpTo uint64
}

// begin starts waiting for an answer that may take factor times as long as usual.
func (w *watch) begin(factor int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.waiting++
	w.patience = max(w.patience, time.Duration(factor)*w.stall)
	if w.waiting > 1 {
		return
	}
	w.began = time.Now()
	w.answered, w.confirmed = w.began, w.began
	if w.timer == nil {
		w.timer = time.AfterFunc(w.stall/4, w.check)
	} else {
		w.timer.Reset(w.stall / 4)
	}
}

func (w *watch) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.waiting--; w.waiting == 0 {
		w.patience = 0
		w.timer.Stop()
	}
}

func (w *watch) progress() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.answered = time.Now()
}

// check runs on the timer.
func (w *watch) check() {
	acked := w.acked()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.waiting == 0 {
		return
	}
	now := time.Now()
	if acked != w.ackedUpTo {
		w.ackedUpTo, w.confirmed = acked, now
	}
	silent := now.Sub(w.answered)
	switch {
	case silent >= w.patience && now.Sub(w.confirmed) >= w.patience, silent >= max(w.patience, acksAlone*w.stall):
		w.expired(fmt.Errorf("no answer for %v", silent.Round(time.Millisecond)))
	case now.Sub(w.began) >= drip*w.stall:
		w.expired(fmt.Errorf("no complete answer for %v", now.Sub(w.began).Round(time.Millisecond)))
	default:
		w.timer.Reset(w.stall / 4)
	}
}

// answers is SFTP's stream from the server.
type answers struct {
	r     io.Reader
	w     *watch
	fail  func(cause error)
	acked atomic.Uint64 // what the server's kernel had acknowledged at the last answer

	mu   sync.Mutex
	left int64 // bytes that may still come, when bounded
	on   bool
}

var errEndless = errors.New("the answer does not end")

func (a *answers) Read(b []byte) (int, error) {
	n, err := a.r.Read(b)
	if n > 0 {
		a.w.progress()
		a.acked.Store(a.w.acked())
	}
	if err != nil {
		a.fail(err) // sftp-server has ended, though SSH may live on
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.left -= int64(n); a.on && a.left < 0 {
		a.fail(errEndless)
		return 0, errEndless
	}
	return n, err
}

// bound lets at most n more bytes come until the function that it returns is called.
func (a *answers) bound(n int64) (done func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.left, a.on = n, true
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.on = false
	}
}
