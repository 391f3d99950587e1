package netns

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

// pair is two nodes; bravo sends back what alpha sends.
func pair(t *testing.T) (*Network, net.Conn) {
	t.Helper()
	n, err := New("alpha", "bravo")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { check(t, n.Close()) })
	n.serve(t, "bravo", 7, func(conn net.Conn) error {
		_, err := io.Copy(conn, conn)
		return err
	})
	return n, open(t, n, 7)
}

// serve answers connections to a node, one function call each.
func (n *Network) serve(t *testing.T, node string, port int, answer func(net.Conn) error) {
	t.Helper()
	var listener net.Listener
	check(t, n.Node(node).Do(func() (err error) {
		listener, err = net.Listen("tcp", fmt.Sprintf("%s:%d", n.Node(node).Addr, port))
		return err
	}))
	var all errgroup.Group
	all.Go(func() error {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return nil // closed below
			}
			all.Go(func() error {
				_ = conn.SetDeadline(time.Now().Add(time.Minute)) // a failed test may leave the client unable to say good-bye
				_ = answer(conn)                                  // the client says what is wrong
				return conn.Close()
			})
		}
	})
	t.Cleanup(func() { check(t, errors.Join(listener.Close(), all.Wait())) })
}

// open connects alpha to bravo.
func open(t *testing.T, n *Network, port int) net.Conn {
	t.Helper()
	conn, err := dial(n, port, time.Minute)
	check(t, err)
	t.Cleanup(func() { check(t, conn.Close()) })
	return conn
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func dial(n *Network, port int, within time.Duration) (conn net.Conn, err error) {
	err = n.Node("alpha").Do(func() (err error) {
		// An address, not a name: several addresses would be tried by goroutines of the dialer's own, on other threads.
		dialer := net.Dialer{Timeout: within}
		conn, err = dialer.DialContext(context.Background(), "tcp4", fmt.Sprintf("%s:%d", n.Node("bravo").Addr, port))
		return err
	})
	return conn, err
}

// echo sends a word and waits for it to come back.
func echo(t *testing.T, conn net.Conn, within time.Duration) error {
	t.Helper()
	check(t, conn.SetDeadline(time.Now().Add(within)))
	if _, err := conn.Write([]byte("word")); err != nil {
		return err
	}
	return hear(conn)
}

// silence fails the test if a new connection from alpha to bravo gets any answer.
func silence(t *testing.T, n *Network) {
	t.Helper()
	var timeout net.Error
	if _, err := dial(n, 7, 300*time.Millisecond); !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Fatalf("a new connection: %v; want silence", err)
	}
}

func hear(conn net.Conn) error {
	_, err := io.ReadFull(conn, make([]byte, 4))
	return err
}

// TestOneWay drops one direction, and the connection lives through it.
func TestOneWay(t *testing.T) {
	for _, way := range [][2]string{{"alpha", "bravo"}, {"bravo", "alpha"}} {
		t.Run(way[0], func(t *testing.T) {
			n, conn := pair(t)
			check(t, echo(t, conn, time.Minute))
			check(t, n.Drop(way[0], way[1]))
			if err := echo(t, conn, 300*time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatalf("through a one-way hole: %v", err)
			}
			silence(t, n)
			check(t, n.Pass(way[0], way[1]))
			check(t, conn.SetDeadline(time.Now().Add(time.Minute)))
			check(t, hear(conn)) // the word of before
			check(t, echo(t, conn, time.Minute))
		})
	}
}

func TestCable(t *testing.T) {
	n, conn := pair(t)
	check(t, echo(t, conn, time.Minute))
	check(t, n.Down("bravo"))
	silence(t, n) // first of all: the router's answers, if it gave any, would soon be limited
	if err := echo(t, conn, 300*time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("without a cable: %v", err)
	}
	check(t, n.Up("bravo"))
	check(t, conn.SetDeadline(time.Now().Add(time.Minute)))
	check(t, hear(conn))
}

// TestLimit sends from alpha to bravo, with alpha's sending limited, then bravo's receiving.
func TestLimit(t *testing.T) {
	const size, rate = 256 << 10, 512 << 10
	n, _ := pair(t)
	n.serve(t, "bravo", 9, func(conn net.Conn) error {
		for {
			if _, err := io.CopyN(io.Discard, conn, size); err != nil {
				return err
			}
			if _, err := conn.Write([]byte("done")); err != nil {
				return err
			}
		}
	})
	conn := open(t, n, 9)
	there := func() time.Duration {
		began := time.Now()
		check(t, conn.SetDeadline(began.Add(time.Minute)))
		_, err := conn.Write(make([]byte, size))
		check(t, errors.Join(err, hear(conn)))
		return time.Since(began)
	}
	for _, node := range []string{"alpha", "bravo"} {
		check(t, n.Limit(node, rate))
		if took := there(); took < time.Second*(size-2*burst)/rate {
			t.Errorf("%s: %d bytes at %d a second took %v", node, size, rate, took)
		}
		check(t, n.Limit(node, 0))
		quickest := there()
		for range 9 { // on a busy machine some take long without a limit; with one none would be quick
			quickest = min(quickest, there())
		}
		if quickest > 200*time.Millisecond {
			t.Errorf("%s: %d bytes without a limit took %v", node, size, quickest)
		}
	}
}

// TestIsolation: the thread comes back, processes stay where they were started, and nothing is left when they have ended.
func TestIsolation(t *testing.T) {
	here, err := os.Readlink(ownThread)
	check(t, err)
	n, err := New("alpha")
	check(t, err)
	if inside := n.Inside(); len(inside) != 0 {
		t.Errorf("in the new namespaces: %v", inside)
	}
	cmd := exec.Command("cat")
	in, err := cmd.StdinPipe()
	check(t, err)
	check(t, n.Node("alpha").Do(func() error {
		if inside := n.Inside(); !slices.Equal(inside, []int{os.Getpid()}) {
			t.Errorf("in the namespaces while in one: %v", inside)
		}
		return cmd.Start()
	}))
	if got, err := os.Readlink(ownThread); err != nil || got != here {
		t.Errorf("afterwards in %s (%v), was in %s", got, err, here)
	}
	check(t, n.Close())
	if inside := n.Inside(); !slices.Equal(inside, []int{cmd.Process.Pid}) {
		t.Errorf("in the namespaces: %v, want the process %d", inside, cmd.Process.Pid)
	}
	check(t, errors.Join(in.Close(), cmd.Wait()))
	if inside := n.Inside(); len(inside) != 0 {
		t.Errorf("left in the namespaces: %v", inside)
	}
	if n, err := New("alpha", "a name no interface can have"); err == nil {
		check(t, n.Close())
		t.Error("a node of an impossible name")
	} else if !strings.Contains(err.Error(), "link add") {
		t.Error(err)
	}
}
