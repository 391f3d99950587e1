package store_test

import (
	"errors"
	"io"
	"net"
	"sync"
	"testing"

	"golang.org/x/sync/errgroup"
)

// proxy stands between a store and its server and cuts, or holds back, what goes through.
type proxy struct {
	addr   string
	target string

	mu    sync.Mutex
	rule  rule
	conns []net.Conn
	up    int64         // bytes from the client, of the connection made last
	down  int64         // bytes from the server
	held  chan struct{} // closed to let held requests go on
}

// rule says what happens to a connection made from now on.
type rule struct {
	cutUp   int64 // after so many bytes from the client both ends are closed, and the server still gets those
	cutDown int64 // after so many bytes from the server both ends are closed
	holdUp  int64 // what comes from the client after so many bytes goes on only after release
	stop    bool  // nothing passes at all
}

func startProxy(t *testing.T, target string) *proxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{addr: listener.Addr().String(), target: target, held: make(chan struct{})}
	var group errgroup.Group
	group.Go(func() error {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return nil
			}
			group.Go(func() error { p.serve(&group, conn); return nil })
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		p.release()
		p.cut()
		_ = group.Wait()
	})
	return p
}

func (p *proxy) set(r rule) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rule = r
}

// cut closes all connections.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		_ = c.Close()
	}
	p.conns = nil
}

func (p *proxy) release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.held)
	p.held = make(chan struct{})
}

func (p *proxy) passed() (up, down int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.up, p.down
}

func (p *proxy) serve(group *errgroup.Group, client net.Conn) {
	server, err := net.Dial("tcp", p.target)
	if err != nil {
		_ = client.Close()
		return
	}
	p.mu.Lock()
	r, held := p.rule, p.held
	p.conns = append(p.conns, client, server)
	p.up, p.down = 0, 0
	p.mu.Unlock()
	if r.stop {
		return
	}
	group.Go(func() error {
		p.pass(server, client, r.cutUp, r.holdUp, held, &p.up)
		_ = client.Close()
		_ = server.(*net.TCPConn).CloseWrite() // let it finish what it was sent
		return nil
	})
	p.pass(client, server, r.cutDown, 0, nil, &p.down)
	_ = client.Close()
	if r.cutDown == 0 {
		_, _ = io.Copy(io.Discard, server) // until it has finished
	}
	_ = server.Close()
}

var errCut = errors.New("cut here")

// pass copies until an end or the cut.
func (p *proxy) pass(to io.Writer, from io.Reader, cut, hold int64, held chan struct{}, count *int64) {
	var total int64
	var late []byte
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		part := buf[:n]
		if cut > 0 && total+int64(n) >= cut {
			part, err = buf[:cut-total], errCut
		}
		total += int64(len(part))
		p.mu.Lock()
		*count = total
		p.mu.Unlock()
		if hold > 0 && total > hold {
			keep := min(int64(len(part)), total-hold)
			late = append(late, part[int64(len(part))-keep:]...)
			part = part[:int64(len(part))-keep]
		}
		if len(part) > 0 {
			if _, err := to.Write(part); err != nil {
				return
			}
		}
		if err != nil {
			break
		}
	}
	if late != nil {
		<-held
		_, _ = to.Write(late) // the server may be gone
	}
}
