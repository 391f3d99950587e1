package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"slipway/internal/sshd"
)

// site is one primary, one cache host and two backup hosts, each reached through its own sshd.
type site struct {
	t       *testing.T
	dir     string
	hosts   map[string]*host
	config  string // of the primary
	cacheCf string
	source  string
	mount   string
	ident   string // identity file
	known   string // known_hosts with every host's key
	key     string // SSH key that every host accepts

	primary *process
	shipper *process
}

// host is a machine with nothing but OpenSSH.
type host struct {
	name string
	data string // directory of its store
	srv  *sshd.Server
}

func (h *host) url() string { return h.srv.URL(h.data) }

// siteOptions shape a site.
type siteOptions struct {
	inPlace bool   // mount over the source
	ship    string // the ship block of the cache's configuration, without "to"
	primary string // further lines of the primary's configuration
	plain   bool   // plain directories instead of SFTP
}

// newSite makes hosts, keys and configurations; nothing of slipway runs yet.
func newSite(t *testing.T, opt siteOptions) *site {
	t.Helper()
	s := &site{t: t, dir: t.TempDir(), hosts: map[string]*host{}}
	s.source = filepath.Join(s.dir, "projects")
	s.mount = s.source
	if !opt.inPlace {
		s.mount = filepath.Join(s.dir, "mnt")
		must(t, os.Mkdir(s.mount, 0o755))
	}
	must(t, os.Mkdir(s.source, 0o755))
	s.known = filepath.Join(s.dir, "known_hosts")
	for _, name := range []string{"cache1", "vault1", "vault2"} {
		s.addHost(name)
	}
	s.ident = filepath.Join(s.dir, "projects.identity")
	s.config = filepath.Join(s.dir, "alpha.yml")
	s.slipway("init", "--volume", "projects", "--node", "alpha", "--source", s.source, "--mount", s.mount,
		"--state", filepath.Join(s.dir, "state"), "--cache", "cache1="+s.url("cache1", opt), "--backup", "vault1="+s.url("vault1", opt),
		"--backup", "vault2="+s.url("vault2", opt), "--ssh-key", s.key, "--known-hosts", s.known,
		"--identity", s.ident, "--config", s.config)
	if opt.primary != "" {
		f, err := os.OpenFile(s.config, os.O_APPEND|os.O_WRONLY, 0)
		must(t, err)
		_, err = f.WriteString("\n" + opt.primary + "\n")
		must(t, err)
		must(t, f.Close())
	}
	s.writeCacheConfig(opt)
	return s
}

func (s *site) url(name string, opt siteOptions) string {
	if opt.plain {
		return s.hosts[name].data
	}
	return s.hosts[name].url()
}

func (s *site) addHost(name string) {
	s.t.Helper()
	s.addHostWith(name, sshd.Options{KeyFile: s.key})
}

func (s *site) addHostWith(name string, opt sshd.Options) {
	t := s.t
	t.Helper()
	h := &host{name: name, data: filepath.Join(s.dir, name, "data")}
	must(t, os.MkdirAll(h.data, 0o755))
	srv, err := sshd.Start(filepath.Join(s.dir, name, "sshd"), opt)
	must(t, err)
	h.srv = srv
	if s.key == "" {
		s.key = srv.KeyFile
	}
	pinned, err := os.ReadFile(srv.KnownHosts)
	must(t, err)
	f, err := os.OpenFile(s.known, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	must(t, err)
	_, err = f.Write(pinned)
	must(t, err)
	must(t, f.Close())
	s.hosts[name] = h
	s.serve(h)
}

// serve answers a host's connections until the test ends.
func (s *site) serve(h *host) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.srv.Serve(ctx) }()
	s.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			s.t.Errorf("sshd of %s: %v", h.name, err)
		}
	})
}

func (s *site) writeCacheConfig(opt siteOptions) {
	ship := opt.ship
	if ship == "" {
		ship = "  when: [{age: 0s}]\n  copies: 2\n"
	}
	text := fmt.Sprintf("node: cache1\nstore: %s\nstate: %s\nship:\n%s  to:\n    - {name: vault1, url: %q}\n    - {name: vault2, url: %q}\nssh: {key: %s, known_hosts: %s}\n",
		s.hosts["cache1"].data, filepath.Join(s.dir, "cache-state"), ship, s.url("vault1", opt), s.url("vault2", opt), s.key, s.known)
	s.cacheCf = filepath.Join(s.dir, "cache1.yml")
	must(s.t, os.WriteFile(s.cacheCf, []byte(text), 0o600))
}

// start runs primary and shipper.
func (s *site) start() {
	s.startShipper()
	s.startPrimary()
}

func (s *site) startPrimary() {
	s.t.Helper()
	s.primary = s.spawn("mount", "mount", "-c", s.config)
	s.waitMounted()
}

func (s *site) startShipper() {
	s.t.Helper()
	s.shipper = s.spawn("ship", "ship", "-c", s.cacheCf)
}

// waitMounted returns when the mount answers and is slipway's.
func (s *site) waitMounted() {
	s.t.Helper()
	s.eventually(20*time.Second, "the mount to answer", func() error {
		data, err := os.ReadFile("/proc/self/mountinfo")
		if err != nil {
			return err
		}
		for line := range strings.SplitSeq(string(data), "\n") {
			if strings.Contains(line, " "+s.mount+" ") && strings.Contains(line, "fuse.slipway") {
				_, err := os.Stat(s.mount)
				return err
			}
		}
		return s.primary.alive()
	})
}

// stopPrimary ends the mount cleanly.
func (s *site) stopPrimary() {
	s.t.Helper()
	s.primary.stop(s.t)
}

// slipway runs a command that must succeed and returns what it printed.
func (s *site) slipway(args ...string) string {
	s.t.Helper()
	out, code := s.try(args...)
	if code != 0 {
		s.t.Fatalf("slipway %s: exit code %d\n%s", strings.Join(args, " "), code, out)
	}
	return out
}

// try runs a command and returns its output (both streams) and exit code.
func (s *site) try(args ...string) (string, int) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, args...)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return string(out), exit.ExitCode()
	}
	if err != nil {
		s.t.Fatalf("slipway %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out), 0
}

// jsonLines runs a command with --json and returns its lines.
func (s *site) jsonLines(args ...string) []map[string]any {
	s.t.Helper()
	cmd := exec.Command(binary, append(args, "--json")...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		s.t.Fatalf("slipway %s --json: %v\n%s%s", strings.Join(args, " "), err, out, stderr.String())
	}
	var rows []map[string]any
	sc := bufio.NewScanner(bytes.NewReader(out))
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		var row map[string]any
		if err := json.Unmarshal(sc.Bytes(), &row); err != nil {
			s.t.Fatalf("slipway %s --json: not a JSON line: %v\n%s", strings.Join(args, " "), err, sc.Text())
		}
		rows = append(rows, row)
	}
	return rows
}

// wait waits until everything is at a stage.
func (s *site) wait(stage string) {
	s.t.Helper()
	s.slipway("wait", s.mount, "--stage", stage, "--timeout", "4m", "-c", s.config)
}

// restore restores from a backup host alone, as a fresh machine would: identity, SSH key, pinned host keys, nothing else.
func (s *site) restore(from string, more ...string) string {
	s.t.Helper()
	target := filepath.Join(s.t.TempDir(), "restored")
	args := append([]string{"restore", "--from", s.hosts[from].url(), "--identity", s.ident, "--ssh-key", s.key,
		"--known-hosts", s.known, "--target", target}, more...)
	s.slipway(args...)
	return target
}

// eventually looks until what is waited for has come; events wake nobody here, since the other side is another process.
func (s *site) eventually(within time.Duration, what string, look func() error) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		err := look()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			s.t.Fatalf("waited %v for %s: %v", within, what, err)
		case <-tick.C:
		}
	}
}

// process is one slipway daemon, in a process group of its own.
type process struct {
	name string
	cmd  *exec.Cmd
	done chan struct{}
	err  error
	log  *lockedBuffer
}

// lockedBuffer keeps a daemon's output for the report of a failed test.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func (s *site) spawn(name string, args ...string) *process {
	s.t.Helper()
	p := &process{name: name, cmd: exec.Command(binary, args...), done: make(chan struct{}), log: &lockedBuffer{}}
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	must(s.t, p.cmd.Start())
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	s.t.Cleanup(func() {
		p.end(20 * time.Second)
		_ = syscall.Unmount(s.mount, syscall.MNT_DETACH) // a test that failed may leave it
		if s.t.Failed() {
			s.t.Logf("output of %s:\n%s", name, tail(p.log.String(), 60))
		}
	})
	return p
}

// alive is an error once the process has ended.
func (p *process) alive() error {
	select {
	case <-p.done:
		return fmt.Errorf("%s has ended: %w\n%s", p.name, p.err, tail(p.log.String(), 20))
	default:
		return fmt.Errorf("%s is not ready yet", p.name)
	}
}

// stop ends the process with SIGTERM and expects exit code 0.
func (p *process) stop(t *testing.T) {
	t.Helper()
	if !p.end(30 * time.Second) {
		t.Fatalf("%s did not end within 30 s of SIGTERM\n%s", p.name, tail(p.log.String(), 40))
	}
	if p.err != nil {
		t.Fatalf("%s ended with %v\n%s", p.name, p.err, tail(p.log.String(), 40))
	}
}

// end asks the process to end and kills its group when it does not.
func (p *process) end(within time.Duration) bool {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended already
	timer := time.NewTimer(within)
	defer timer.Stop()
	select {
	case <-p.done:
		return true
	case <-timer.C:
		_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
		<-p.done
		return false
	}
}

func tail(s string, n int) string {
	lines := strings.Split(strings.TrimRight(s, "\n"), "\n")
	if len(lines) > n {
		lines = lines[len(lines)-n:]
	}
	return strings.Join(lines, "\n")
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
