package e2e

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"slipway/internal/control"
)

// rewrite changes a configuration file.
func rewrite(t *testing.T, path, old, text string) {
	t.Helper()
	data, err := os.ReadFile(path)
	must(t, err)
	if !strings.Contains(string(data), old) {
		t.Fatalf("%s does not have %q", path, old)
	}
	must(t, os.WriteFile(path, []byte(strings.Replace(string(data), old, text, 1)), 0o600))
}

// waitFile waits until one file of the volume has reached a stage.
func (s *site) waitFile(name, stage string) {
	s.t.Helper()
	s.slipway("wait", filepath.Join(s.mount, name), "--stage", stage, "--timeout", "4m", "-c", s.config)
}

// warns waits until a daemon warns of something. It is asked by its state directory: the command would read the file with the fault.
func (s *site) warns(state, words string) {
	s.t.Helper()
	s.eventually(20*time.Second, fmt.Sprintf("%q in status", words), func() error {
		daemon, list, err := control.FindState(s.t.Context(), filepath.Join(s.dir, state))
		if err != nil || daemon != control.Running || len(list) == 0 || !strings.Contains(strings.Join(list[0].Warnings, "\n"), words) {
			return fmt.Errorf("the daemon is %s: %+v, %w", daemon, list, err)
		}
		return nil
	})
}

// TestReload: SIGHUP makes cache host and primary read their files again. What was open stays open, no process is started anew, and a file
// with a fault changes nothing but a warning.
func TestReload(t *testing.T) {
	s := newSite(t, siteOptions{plain: true, vaults: []string{"vault1"}, ship: "  when: [{manual: true}]\n  copies: 1\n", primary: "exclude: [\"*.scratch\"]"})
	s.start()
	open, err := os.Create(filepath.Join(s.mount, "open"))
	must(t, err)
	must(t, os.WriteFile(filepath.Join(s.mount, "file"), []byte("content"), 0o644))
	s.waitFile("file", "cached")
	pids := append(s.child("spooler"), s.child("fusefs")...)

	rewrite(t, s.cacheCf, "{manual: true}", "{age: soon}")
	must(t, s.shipper.cmd.Process.Signal(syscall.SIGHUP))
	s.warns("cache-state", "the configuration was not read again at ")
	rewrite(t, s.cacheCf, "{age: soon}", "{age: 0s}")
	must(t, s.shipper.cmd.Process.Signal(syscall.SIGHUP))
	s.waitFile("file", "stored")
	if out := s.slipway("status", "-c", s.cacheCf); strings.Contains(out, "not read again") {
		t.Errorf("mended, and status says\n%s", out)
	}

	rewrite(t, s.config, `"*.scratch"`, `"*.bak"`)
	must(t, s.primary.cmd.Process.Signal(syscall.SIGHUP))
	must(t, os.WriteFile(filepath.Join(s.mount, "now.scratch"), []byte("content"), 0o644))
	s.eventually(20*time.Second, "what is not excluded any more", func() error {
		if out, code := s.try("wait", filepath.Join(s.mount, "now.scratch"), "--stage", "stored", "--timeout", "1m", "-c", s.config); code != 0 {
			return fmt.Errorf("exit code %d\n%s", code, out)
		}
		return nil
	})
	rewrite(t, s.config, "mount: "+s.mount, "mount: "+s.mount+"2")
	must(t, s.primary.cmd.Process.Signal(syscall.SIGHUP))
	s.warns("state", "this needs a restart of the daemon: mount")
	if now := append(s.child("spooler"), s.child("fusefs")...); !slices.Equal(now, pids) {
		t.Errorf("processes %v have become %v", pids, now)
	}
	_, err = open.WriteString("still open")
	must(t, err)
	must(t, open.Close())
	rewrite(t, s.config, "mount: "+s.mount+"2", "mount: "+s.mount)
	s.waitFile("open", "stored")
}

// TestJournald: where standard error leads into systemd's journal, each attribute is a field of its own, and the text has it too.
func TestJournald(t *testing.T) {
	s := newSite(t, siteOptions{plain: true, vaults: []string{"vault1"}})
	path := filepath.Join(t.TempDir(), "socket")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	must(t, err)
	defer func() { must(t, socket.Close()) }()
	stderr, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
	must(t, err)
	defer func() { must(t, stderr.Close()) }()
	var st syscall.Stat_t
	must(t, syscall.Fstat(int(stderr.Fd()), &st))
	// The journal's socket has one place; in a mount namespace of its own it is this test's.
	cmd := exec.Command("unshare", "-m", "sh", "-c", `mount -t tmpfs none /run && mkdir -p /run/systemd/journal && touch /run/systemd/journal/socket &&
		mount --bind "$1" /run/systemd/journal/socket && shift && exec "$@"`, "sh", path, binary, "ship", "-c", s.cacheCf, "--log-level", "debug")
	cmd.Stderr = stderr
	cmd.Env = append(os.Environ(), fmt.Sprintf("JOURNAL_STREAM=%d:%d", st.Dev, st.Ino))
	must(t, cmd.Start())
	defer func() {
		must(t, cmd.Process.Signal(syscall.SIGTERM))
		must(t, cmd.Wait())
		if said, err := os.ReadFile(stderr.Name()); err != nil || len(said) > 0 {
			t.Errorf("on standard error as well: %s, %v", said, err)
		}
	}()
	s.startPrimary()
	must(t, os.WriteFile(filepath.Join(s.mount, "file"), []byte("content"), 0o644))
	buf := make([]byte, 1<<16)
	must(t, socket.SetReadDeadline(time.Now().Add(20*time.Second*busy)))
	for {
		n, err := socket.Read(buf)
		must(t, err)
		said := string(buf[:n])
		if !strings.Contains(said, "backup host") {
			continue
		}
		for _, want := range []string{"PRIORITY=7\n", "MESSAGE=backup host process=shipper volume=projects host=vault1", "SLIPWAY_HOST=vault1\n", "SLIPWAY_VOLUME=projects\n"} {
			if !strings.Contains(said, want) {
				t.Errorf("no %q in %q", want, said)
			}
		}
		return
	}
}
