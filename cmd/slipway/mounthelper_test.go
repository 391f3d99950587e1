package main

import (
	"errors"
	"net"
	"os"
	"testing"
	"time"
)

// TestReadyIsTheDaemons: the word that the daemon is up counts only from the daemon.
func TestReadyIsTheDaemons(t *testing.T) {
	conn, name, err := readySocket()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	say := func() {
		t.Helper()
		c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: name, Net: "unixgram"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write([]byte("READY=1")); err != nil {
			t.Fatal(err)
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	say()
	if err := awaitReady(conn, os.Getpid()); err != nil {
		t.Error(err)
	}
	say()
	if err := conn.SetReadDeadline(time.Now().Add(200 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if err := awaitReady(conn, os.Getpid()+1); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("somebody else's word counts: %v", err)
	}
}
