package sshd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// serve starts a server and returns it with a function that ends it and waits.
func serve(t *testing.T, s *Server) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	}
	t.Cleanup(stop)
	return stop
}

// sftp runs the OpenSSH client with the given batch and returns what it printed.
func sftp(t *testing.T, s *Server, keyFile, batch string) (string, error) {
	t.Helper()
	host, port, err := net.SplitHostPort(s.Addr)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sftp", "-F", "none", "-b", "-", "-i", keyFile, "-P", port,
		"-o", "IdentitiesOnly=yes", "-o", `UserKnownHostsFile="`+s.KnownHosts+`"`, "-o", "StrictHostKeyChecking=yes",
		"-o", "GlobalKnownHostsFile=none", s.User+"@"+host)
	cmd.Stdin = strings.NewReader(batch)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func start(t *testing.T, opt Options) *Server {
	t.Helper()
	s, err := Start(filepath.Join(t.TempDir(), "with blank"), opt)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestServesSFTP(t *testing.T) {
	for name, opt := range map[string]Options{"per connection": {}, "whole": {Whole: true}} {
		t.Run(name, func(t *testing.T) {
			s := start(t, opt)
			stop := serve(t, s)
			awaitAnswer(t, s)
			local := filepath.Join(t.TempDir(), "local")
			if err := os.WriteFile(local, []byte("content"), 0o600); err != nil {
				t.Fatal(err)
			}
			remote := filepath.Join(t.TempDir(), "remote")
			if out, err := sftp(t, s, s.KeyFile, "put "+local+" "+remote+"\n"); err != nil {
				t.Fatalf("put: %v\n%s", err, out)
			}
			if data, err := os.ReadFile(remote); err != nil || string(data) != "content" {
				t.Fatalf("remote file: %q, %v", data, err)
			}
			if out, err := sftp(t, s, s.KeyFile, "rm "+remote+"\n"); err == nil {
				t.Fatalf("the account may remove files:\n%s", out)
			}
			stop()
			if left := s.Sessions(); len(left) != 0 {
				t.Fatalf("left after Serve: %v", left)
			}
		})
	}
}

// awaitAnswer waits until the server greets: a whole sshd takes a moment to listen.
func awaitAnswer(t *testing.T, s *Server) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(time.Minute)
	for {
		conn, err := net.Dial("tcp", s.Addr)
		if err == nil {
			_ = conn.Close()
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("no answer on %s: %v", s.Addr, err)
		}
	}
}

func TestRefusesOtherKeysAndShells(t *testing.T) {
	s := start(t, Options{})
	serve(t, s)
	other := filepath.Join(t.TempDir(), "other")
	pub, err := publicKey(other)
	if err != nil {
		t.Fatal(err)
	}
	if out, err := sftp(t, s, other, "pwd\n"); err == nil || !strings.Contains(out, "Permission denied") {
		t.Fatalf("foreign key: %v\n%s", err, out)
	}
	if err := s.Allow(string(pub)); err != nil {
		t.Fatal(err)
	}
	if out, err := sftp(t, s, other, "pwd\n"); err != nil {
		t.Fatalf("allowed key: %v\n%s", err, out)
	}
	host, port, _ := net.SplitHostPort(s.Addr)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	shell := exec.CommandContext(ctx, "ssh", "-F", "none", "-i", s.KeyFile, "-p", port, "-o", `UserKnownHostsFile="`+s.KnownHosts+`"`,
		s.User+"@"+host, "echo reached a shell")
	if out, err := shell.Output(); bytes.Contains(out, []byte("reached")) {
		t.Fatalf("a command ran: %q, %v", out, err)
	}
}

func TestReadOnlyAndDeny(t *testing.T) {
	s := start(t, Options{ReadOnly: true, Deny: []string{"readdir"}})
	serve(t, s)
	dir := t.TempDir()
	if out, err := sftp(t, s, s.KeyFile, "pwd\n"); err != nil {
		t.Fatalf("log in: %v\n%s", err, out)
	}
	if out, err := sftp(t, s, s.KeyFile, "mkdir "+dir+"/x\n"); err == nil {
		t.Fatalf("mkdir on a read-only account:\n%s", out)
	}
	if out, err := sftp(t, s, s.KeyFile, "ls "+dir+"\n"); err == nil {
		t.Fatalf("a denied request was served:\n%s", out)
	}
}

func TestSessionsEndWithServe(t *testing.T) {
	s := start(t, Options{})
	stop := serve(t, s)
	conn, err := net.Dial("tcp", s.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	banner := make([]byte, 8)
	if _, err := conn.Read(banner); err != nil || !bytes.HasPrefix(banner, []byte("SSH-2.0")) {
		t.Fatalf("banner %q: %v", banner, err)
	}
	pids := s.Sessions()
	if len(pids) == 0 {
		t.Fatal("no session listed for a live connection")
	}
	stop()
	for _, pid := range pids {
		if err := syscall.Kill(pid, 0); err == nil && !zombie(pid) {
			t.Errorf("process %d lives on", pid)
		}
	}
	if _, err := net.Dial("tcp", s.Addr); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Fatalf("dial after Serve: %v", err)
	}
	serve(t, s) // back under the same address
	awaitAnswer(t, s)
	if out, err := sftp(t, s, s.KeyFile, "pwd\n"); err != nil {
		t.Fatalf("after coming back: %v\n%s", err, out)
	}
}

func zombie(pid int) bool {
	_, _, ok := readStat(fmt.Sprintf("/proc/%d/stat", pid))
	return !ok
}

func TestStartAgainKeepsKeys(t *testing.T) {
	dir := t.TempDir()
	var hostKeys [2]string
	for i := range hostKeys {
		s, err := Start(dir, Options{})
		if err != nil {
			t.Fatal(err)
		}
		line, err := os.ReadFile(s.KnownHosts)
		if err != nil {
			t.Fatal(err)
		}
		hostKeys[i] = strings.Join(strings.Fields(string(line))[1:], " ")
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if hostKeys[0] != hostKeys[1] {
		t.Fatalf("host key changed:\n%s\n%s", hostKeys[0], hostKeys[1])
	}
}

func TestTraffic(t *testing.T) {
	s := start(t, Options{})
	stop := serve(t, s)
	local := filepath.Join(t.TempDir(), "local")
	const size = 3 << 20
	if err := os.WriteFile(local, bytes.Repeat([]byte("0123456789abcdef"), size/16), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if out, err := sftp(t, s, s.KeyFile, "put "+local+" "+filepath.Join(t.TempDir(), "remote")+"\n"); err != nil {
			t.Fatalf("put: %v\n%s", err, out)
		}
	}
	idle, err := net.Dial("tcp", s.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = idle.Close() }()
	if _, err := idle.Read(make([]byte, 8)); err != nil {
		t.Fatal(err)
	}
	if s.Sessions("192.0.2.1") != nil || len(s.Sessions("127.0.0.1")) == 0 {
		t.Errorf("sessions of a stranger %v, of this host %v", s.Sessions("192.0.2.1"), s.Sessions("127.0.0.1"))
	}
	live := s.Traffic("127.0.0.1")
	if live.Connections != 3 || live.In < 2*size || live.In > 2*size+size/4 || live.Out <= 0 || live.Out > size/4 {
		t.Errorf("two files of %d bytes in and a third connection: %+v", size, live)
	}
	stop()
	if after := s.Traffic("127.0.0.1"); after.Connections != 3 || after.In < live.In {
		t.Errorf("before the end %+v, after it %+v", live, after)
	}
	if stranger := s.Traffic("192.0.2.1"); stranger != (Traffic{}) {
		t.Errorf("a stranger: %+v", stranger)
	}
}
