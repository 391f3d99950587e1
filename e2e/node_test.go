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

	"slipway/e2e/netns"
	"slipway/internal/loopdisk"
	"slipway/internal/sshd"
)

// site is one primary (alpha), one cache host and two backup hosts, each reached through its own sshd. All of it shares this
// machine's loopback, unless there is a network of nodes.
type site struct {
	t       *testing.T
	dir     string
	hosts   map[string]*host
	config  string // of the primary
	cacheCf string
	source  string
	mount   string
	ident   string         // identity file
	known   string         // known_hosts with every host's key
	key     string         // SSH key that every host accepts
	net     *netns.Network // nil: this machine's own

	primary *process
	shipper *process
	daemons map[string][]*process // by node, ended ones as well
}

// host is a machine with nothing but OpenSSH.
type host struct {
	name string
	data string // directory of its store
	srv  *sshd.Server
	down func() // ends the serving
}

func (h *host) url() string { return h.srv.URL(h.data) }

// siteOptions shape a site.
type siteOptions struct {
	inPlace bool   // mount over the source
	ship    string // the ship block of the cache's configuration, without "to"
	primary string // further lines of the primary's configuration
	plain   bool   // plain directories instead of SFTP
	roomy   bool   // on a disk of its own that is nearly empty: one with less than a tenth free is warned of, and is no good health

	net      *netns.Network // hosts and daemons run on its nodes of their names, other commands on the node desk
	hosts    []string       // default: cache1, vault1, vault2; a volume's replicas are among them
	replicas []string       // in order
	vaults   []string       // what the cache ships to and the primary names as backups; default: vault1, vault2
}

// newSite makes hosts, keys and configurations; nothing of slipway runs yet.
func newSite(t *testing.T, opt siteOptions) *site {
	t.Helper()
	if opt.hosts == nil {
		opt.hosts = []string{"cache1", "vault1", "vault2"}
	}
	if opt.vaults == nil {
		opt.vaults = []string{"vault1", "vault2"}
	}
	dir := ""
	if opt.roomy {
		dir = loopdisk.New(t, "ext4", 1<<30, "")
	} else {
		dir = t.TempDir()
	}
	s := &site{t: t, dir: dir, hosts: map[string]*host{}, net: opt.net, daemons: map[string][]*process{}}
	s.source = filepath.Join(s.dir, "projects")
	s.mount = s.source
	if !opt.inPlace {
		s.mount = filepath.Join(s.dir, "mnt")
		must(t, os.Mkdir(s.mount, 0o755))
	}
	must(t, os.Mkdir(s.source, 0o755))
	s.known = filepath.Join(s.dir, "known_hosts")
	for _, name := range opt.hosts {
		s.addHost(name)
	}
	s.writePrimaryConfig(opt)
	s.writeCacheConfig(opt)
	return s
}

// writePrimaryConfig has the volume made as an operator would.
func (s *site) writePrimaryConfig(opt siteOptions) {
	t := s.t
	t.Helper()
	s.ident = filepath.Join(s.dir, "projects.identity")
	s.config = filepath.Join(s.dir, "alpha.yml")
	args := []string{"init", "--volume", "projects", "--node", "alpha", "--source", s.source, "--mount", s.mount,
		"--state", filepath.Join(s.dir, "state"), "--cache", "cache1=" + s.url("cache1", opt),
		"--ssh-key", s.key, "--known-hosts", s.known, "--identity", s.ident, "--config", s.config}
	for _, name := range opt.replicas {
		args = append(args, "--replica", name+"="+s.url(name, opt))
	}
	for _, name := range opt.vaults {
		args = append(args, "--backup", name+"="+s.url(name, opt))
	}
	s.slipway(args...)
	if opt.primary != "" {
		f, err := os.OpenFile(s.config, os.O_APPEND|os.O_WRONLY, 0)
		must(t, err)
		_, err = f.WriteString("\n" + opt.primary + "\n")
		must(t, err)
		must(t, f.Close())
	}
}

// on runs fn where a node is: what it starts and opens belongs there. Without a network that is here.
func (s *site) on(node string, fn func() error) error {
	if s.net == nil {
		return fn()
	}
	return s.net.Node(node).Do(fn)
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
	if s.net != nil {
		node := s.net.Node(name)
		opt.Addr, opt.Within = node.Addr+":2222", node.Do
	}
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

// serve answers a host's connections until it is down or the test ends.
func (s *site) serve(h *host) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.srv.Serve(ctx) }()
	h.down = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			s.t.Errorf("sshd of %s: %v", h.name, err)
		}
	})
	s.t.Cleanup(h.down)
}

func (s *site) writeCacheConfig(opt siteOptions) {
	ship := opt.ship
	if ship == "" {
		ship = fmt.Sprintf("  when: [{age: 0s}]\n  copies: %d\n", len(opt.vaults))
	}
	text := fmt.Sprintf("node: cache1\nstore: %s\nstate: %s\nship:\n%s  to:\n", s.hosts["cache1"].data, filepath.Join(s.dir, "cache-state"), ship)
	for _, name := range opt.vaults {
		text += fmt.Sprintf("    - {name: %s, url: %q}\n", name, s.url(name, opt))
	}
	text += fmt.Sprintf("ssh: {key: %s, known_hosts: %s}\n", s.key, s.known)
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
	s.primary = s.spawn("alpha", "mount", "mount", "-c", s.config)
	s.waitMounted()
}

func (s *site) startShipper() {
	s.t.Helper()
	s.shipper = s.spawn("cache1", "ship", "ship", "-c", s.cacheCf)
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
				var st syscall.Statfs_t
				return syscall.Statfs(s.mount, &st) // what stat(2) says may be remembered from before
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

// slipway runs a command that must succeed, and returns what it printed.
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
	return s.tryOn(desk, args...)
}

// tryOn is try on a node.
func (s *site) tryOn(node string, args ...string) (string, int) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := s.on(node, cmd.Run)
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return out.String(), exit.ExitCode()
	}
	if err != nil {
		s.t.Fatalf("slipway %s: %v\n%s", strings.Join(args, " "), err, out.String())
	}
	return out.String(), 0
}

// jsonLines runs a command with --json, and returns its lines.
func (s *site) jsonLines(args ...string) []map[string]any {
	s.t.Helper()
	var out, stderr bytes.Buffer
	cmd := exec.Command(binary, append(args, "--json")...)
	cmd.Stdout, cmd.Stderr = &out, &stderr
	err := s.on(desk, cmd.Run)
	if err != nil {
		s.t.Fatalf("slipway %s --json: %v\n%s%s", strings.Join(args, " "), err, out.String(), stderr.String())
	}
	var rows []map[string]any
	sc := bufio.NewScanner(&out)
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

// status is what a node says of its first volume; nil: nothing.
func (s *site) status(conf string) map[string]any {
	s.t.Helper()
	rows := s.jsonLines("status", "-c", conf)
	if len(rows) == 0 {
		return nil
	}
	return rows[0]
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

// busy is how many times as long anything may take on a machine that does other things as well.
const busy = 6

// eventually looks until what is waited for has come; events wake nobody here, since the other side is another process.
func (s *site) eventually(within time.Duration, what string, look func() error) {
	s.t.Helper()
	eventually(s.t, within, what, look)
}

// eventually waits for what takes less than within on a machine that does nothing else.
func eventually(t *testing.T, within time.Duration, what string, look func() error) {
	t.Helper()
	within *= busy
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
			t.Fatalf("waited %v for %s: %v", within, what, err)
		case <-tick.C:
		}
	}
}
