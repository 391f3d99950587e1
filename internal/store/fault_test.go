package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"slipway/internal/durable"
	"slipway/internal/loopdisk"
	"slipway/internal/sshd"
	"slipway/internal/store"
)

const object = "batches/00000001/00000000/000000000042-000000000042.batch"

func content(seed byte, n int) []byte {
	data := make([]byte, n)
	chacha := rand.NewChaCha8([32]byte{seed})
	_, _ = chacha.Read(data)
	return data
}

func mustBe(t *testing.T, err, class error) {
	t.Helper()
	if !errors.Is(err, class) {
		t.Fatalf("got %v, want: %v", err, class)
	}
}

func mustHold(t *testing.T, s store.Store, name string, want []byte) {
	t.Helper()
	var got []byte
	if err := patiently(func() (err error) { got, err = s.Read(t.Context(), name, 64<<20); return err }); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("%s holds %d bytes that differ from the %d published", name, len(got), len(want))
	}
}

// behind opens a store whose connections go through a proxy.
func behind(t *testing.T, server *sshd.Server, dir string, change func(*store.Options)) (store.Store, *proxy) {
	t.Helper()
	p := startProxy(t, server.Addr)
	known, err := os.ReadFile(server.KnownHosts)
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(p.addr)
	_, serverPort, _ := net.SplitHostPort(server.Addr)
	file := filepath.Join(t.TempDir(), "known_hosts")
	if err := os.WriteFile(file, bytes.ReplaceAll(known, []byte(":"+serverPort), []byte(":"+port)), 0o600); err != nil {
		t.Fatal(err)
	}
	opt := store.Options{KeyFile: server.KeyFile, KnownHosts: []string{file}, Connections: 1}
	if change != nil {
		change(&opt)
	}
	return open(t, "sftp://"+server.User+"@"+p.addr+dir, opt), p
}

// impatient makes a stall cost little time; a busy machine may then look like one. Its directories are in memory: no disk can look like one.
func impatient(o *store.Options) { o.StallAfter = 300 * time.Millisecond }

// Connections are cut after any number of bytes in either direction, so before, in and after each request and its answer.
// What is seen of the object is nothing or all, and the same call again succeeds.
func TestCutAnywhere(t *testing.T) {
	t.Parallel()
	server := serve(t, sshd.Options{})
	data := content(1, 300_000)
	verbs := map[string]func(s store.Store) error{
		"publish": func(s store.Store) error { return s.Publish(t.Context(), object, data) },
		"replace": func(s store.Store) error { return s.Replace(t.Context(), object, data) },
		"create": func(s store.Store) error {
			err := s.CreateExclusive(t.Context(), object, data)
			if errors.Is(err, store.ErrExist) {
				return nil // of the first attempt
			}
			return err
		},
	}
	for verb, do := range verbs {
		up, down := measure(t, server, do)
		var rules []rule
		for range 6 {
			rules = append(rules, rule{cutUp: 1 + rand.Int64N(up)}, rule{cutDown: 1 + rand.Int64N(down)})
		}
		for back := range int64(6) { // the last requests and answers: fsync, rename, fsync of the directory
			rules = append(rules, rule{cutUp: up - back*100}, rule{cutDown: down - back*60})
		}
		for i, r := range rules { // numbered: a name used twice gets a '#', which TempDir keeps and a URL may not hold
			t.Run(fmt.Sprintf("%s %d up=%d down=%d", verb, i, r.cutUp, r.cutDown), func(t *testing.T) {
				testCut(t, server, do, data, r)
			})
		}
	}
}

// measure tells how many bytes a call takes in each direction, handshake included.
func measure(t *testing.T, server *sshd.Server, do func(s store.Store) error) (up, down int64) {
	t.Helper()
	s, p := behind(t, server, t.TempDir(), nil)
	if err := errors.Join(do(s), s.Close()); err != nil {
		t.Fatal(err)
	}
	return p.passed()
}

func testCut(t *testing.T, server *sshd.Server, do func(s store.Store) error, data []byte, r rule) {
	dir := t.TempDir()
	s, p := behind(t, server, dir, nil)
	p.set(r)
	first := do(s)
	if first != nil {
		mustBe(t, first, store.ErrTemporary)
	}
	found, err := os.ReadFile(filepath.Join(dir, object))
	if err == nil && !bytes.Equal(found, data) {
		t.Fatalf("half visible: %d bytes", len(found))
	}
	p.set(rule{})
	p.cut()
	err = do(s)
	if first == nil && errors.Is(err, store.ErrTemporary) {
		err = do(s) // the connection was good until just now
	}
	if err != nil {
		t.Fatalf("again: %v", err)
	}
	mustHold(t, s, object, data)
}

// A server holds requests back, the client gives up and goes on over another connection, and only then the requests are
// carried out: an old content must not come back.
func TestLateRequests(t *testing.T) {
	t.Parallel()
	memory := loopdisk.New(t, "tmpfs", 0, "")
	server := serve(t, sshd.Options{})
	old, fresh := []byte("old"), []byte("fresh")
	replace := func(s store.Store) error { return s.Replace(t.Context(), "progress/alpha.json", old) }
	up, _ := measure(t, server, replace)
	hit := 0
	for hold := up - 900; hold < up; hold += 70 {
		dir := filepath.Join(memory, fmt.Sprint(hold))
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		s, p := behind(t, server, dir, impatient)
		p.set(rule{holdUp: hold})
		err := replace(s)
		if err == nil { // all of it had passed; the order of packets varies
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			continue
		}
		hit++
		mustBe(t, err, store.ErrTemporary)
		p.set(rule{})
		for err != nil {
			if err = s.Replace(t.Context(), "progress/alpha.json", fresh); err != nil {
				mustBe(t, err, store.ErrTemporary) // a busy machine looks like a stalled server at this setting
			}
		}
		p.release()
		awaitSessions(t, server, 1) // the late ones are carried out and the session over
		mustHold(t, s, "progress/alpha.json", fresh)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		awaitSessions(t, server, 0)
	}
	if hit < 5 {
		t.Fatalf("only %d held back", hit)
	}
}

// awaitSessions waits until at most n connections are served.
func awaitSessions(t *testing.T, server *sshd.Server, n int) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(time.Minute)
	for server.Connections() > n {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%d connections are still served", server.Connections())
		}
	}
}

func awaitListener(t *testing.T, server *sshd.Server) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(time.Minute)
	for {
		conn, err := net.Dial("tcp", server.Addr)
		if err == nil {
			_ = conn.Close()
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal(err)
		}
	}
}

func TestStalledServer(t *testing.T) {
	memory := loopdisk.New(t, "tmpfs", 0, "")
	server := serve(t, sshd.Options{})
	opt := options(server)
	opt.StallAfter = 400 * time.Millisecond
	s := open(t, server.URL(memory), opt)
	if err := patiently(func() error { return s.Publish(t.Context(), object, nil) }); err != nil {
		t.Fatal(err)
	}
	for name, call := range map[string]func() error{
		"publish":     func() error { return s.Publish(t.Context(), "small", nil) },
		"publish big": func() error { return s.Publish(t.Context(), "shards/3f/3f.shard", content(2, 1<<20)) },
		"read":        func() error { _, err := s.Read(t.Context(), object, 100); return err },
		"list":        func() error { _, err := s.List(t.Context(), ""); return err },
	} {
		if err := patiently(call); err != nil { // so that there is a connection
			t.Fatal(err)
		}
		stopped := server.Sessions()
		for _, pid := range stopped {
			if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
		}
		began := time.Now()
		err := call()
		mustBe(t, err, store.ErrTemporary)
		if took := time.Since(began); took > 60*opt.StallAfter || !strings.Contains(err.Error(), "no answer") {
			t.Errorf("%s: %v after %v", name, err, took)
		}
		for _, pid := range stopped {
			_ = syscall.Kill(pid, syscall.SIGCONT)
		}
		if err := patiently(call); err != nil {
			t.Errorf("%s, again: %v", name, err)
		}
	}
}

// patiently repeats a call to a good server that is busy, for a minute: at a setting of parts of a second that looks like one that has stalled.
func patiently(call func() error) (err error) {
	for began := time.Now(); time.Since(began) < time.Minute; {
		if err = call(); !errors.Is(err, store.ErrTemporary) {
			return err
		}
	}
	return err
}

// Nobody answers at all: not TCP, not SSH, not with sense.
func TestNoServer(t *testing.T) {
	t.Parallel()
	server := serve(t, sshd.Options{})
	s, p := behind(t, server, "/nowhere", impatient)
	p.set(rule{stop: true})
	_, err := s.List(t.Context(), "")
	mustBe(t, err, store.ErrTemporary)
	if !strings.Contains(err.Error(), p.addr) {
		t.Errorf("does not say where: %v", err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := listener.Addr().String()
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, "sftp://projects@"+addr+"/data", options(server))
	_, err = s.List(t.Context(), "")
	mustBe(t, err, store.ErrTemporary)
	mustBe(t, err, syscall.ECONNREFUSED)
}

func TestCancelledUnderWay(t *testing.T) {
	server := serve(t, sshd.Options{})
	s, p := behind(t, server, t.TempDir(), func(o *store.Options) { o.StallAfter = time.Minute })
	p.set(rule{stop: true})
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	began := time.Now()
	mustBe(t, s.Publish(ctx, object, nil), context.DeadlineExceeded)
	p.set(rule{holdUp: 6000})
	ctx, cancel = context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	mustBe(t, s.Publish(ctx, object, content(3, 1<<20)), context.DeadlineExceeded)
	if took := time.Since(began); took > 30*time.Second {
		t.Fatalf("took %v", took)
	}
	p.set(rule{})
	if err := s.Publish(t.Context(), object, content(3, 1<<20)); err != nil {
		t.Fatal(err)
	}
}

func TestCloseUnderWay(t *testing.T) {
	server := serve(t, sshd.Options{})
	s, p := behind(t, server, t.TempDir(), func(o *store.Options) { o.StallAfter = time.Minute })
	p.set(rule{holdUp: 6000})
	done := make(chan error, 1)
	go func() { done <- s.Publish(context.Background(), object, content(3, 1<<20)) }()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for up := int64(0); up < 6000; up, _ = p.passed() {
		<-tick.C
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	mustBe(t, <-done, os.ErrClosed)
}

// Sessions are killed, and the whole server; a store that was used before goes on by itself.
func TestServerComesAndGoes(t *testing.T) {
	server, err := sshd.Start(t.TempDir(), sshd.Options{})
	if err != nil {
		t.Fatal(err)
	}
	stop := run(t, server)
	s := open(t, server.URL(t.TempDir()), options(server))
	if err := s.Publish(t.Context(), "a", nil); err != nil {
		t.Fatal(err)
	}
	for _, pid := range server.Sessions() {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	awaitSessions(t, server, 0)
	if err := s.Publish(t.Context(), "b", nil); err != nil && !errors.Is(err, store.ErrTemporary) {
		t.Fatal(err)
	}
	if err := s.Publish(t.Context(), "b", nil); err != nil {
		t.Fatalf("after the sessions were killed: %v", err)
	}
	stop()
	mustBe(t, s.Publish(t.Context(), "c", nil), store.ErrTemporary)
	run(t, server)
	awaitListener(t, server)
	if err := s.Publish(t.Context(), "c", nil); err != nil {
		t.Fatalf("after the server came back: %v", err)
	}
}

// The server's SFTP part dies or talks nonsense while SSH lives on: that connection is of no use any more.
func TestOnlySFTPDies(t *testing.T) {
	server := serve(t, sshd.Options{Trace: true}) // has it as a process of its own
	s := open(t, server.URL(t.TempDir()), options(server))
	if err := s.Publish(t.Context(), "a", nil); err != nil {
		t.Fatal(err)
	}
	killed := 0
	for _, pid := range server.Sessions() {
		if name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)); err == nil && string(name) == "sftp-server\n" {
			killed++
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}
	}
	if killed != 1 {
		t.Fatalf("%d killed", killed)
	}
	if err := s.Publish(t.Context(), "b", nil); err != nil {
		mustBe(t, err, store.ErrTemporary)
	}
	if err := s.Publish(t.Context(), "b", nil); err != nil {
		t.Fatal(err)
	}
}

// temps returns the temporary files below dir with their sizes.
func temps(t *testing.T, dir string) (sizes []int64) {
	t.Helper()
	err := filepath.Walk(dir, func(_ string, st os.FileInfo, err error) error {
		if err == nil && durable.IsTemp(st.Name()) {
			sizes = append(sizes, st.Size())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return sizes
}

// Accounts cannot remove what an attempt leaves; it must not take space for ever.
func TestLeftoversTakeNoSpace(t *testing.T) {
	memory := loopdisk.New(t, "tmpfs", 0, "")
	server := serve(t, sshd.Options{})
	for i := range 3 {
		dir := filepath.Join(memory, fmt.Sprint(i))
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		s, p := behind(t, server, dir, impatient)
		p.set(rule{holdUp: 500_000})
		left := false
		for range 10 { // on a busy machine an attempt may be given up before its first bytes were written
			mustBe(t, s.Publish(t.Context(), object, content(4, 1<<20)), store.ErrTemporary)
			p.cut()
			awaitSessions(t, server, 0)
			if left = slices.ContainsFunc(temps(t, dir), func(n int64) bool { return n > 0 }); left {
				break
			}
		}
		if !left {
			t.Fatalf("round %d: nothing was left, so nothing is tested", i)
		}
		p.set(rule{})
		if err := errors.Join(patiently(func() error { return s.Publish(t.Context(), "other", nil) }), s.Close()); err != nil {
			t.Fatal(err)
		}
		for _, n := range temps(t, dir) {
			if n != 0 {
				t.Fatalf("round %d: a leftover of %d bytes", i, n)
			}
		}
	}
}
