package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"slipway/e2e/netns"
)

// machine is a throw-away machine: it begins as this one is, and what is written there is nowhere else. Processes, mounts and its name are its
// own, with a node of a network its addresses, too. /run, /tmp, /srv and /root are empty at first.
//
// It ends with the test, even one that is killed: its first process reads from a pipe that only the test holds.
type machine struct {
	t    *testing.T
	name string
	pid  int // of its first process
}

// beginMachine is what its first process runs, with a directory and a name. The tmpfs is there because an overlay cannot lie within what it is laid over.
const beginMachine = `
set -e
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs "$1"
mkdir "$1"/upper "$1"/work "$1"/root
mount -t overlay -o lowerdir=/,upperdir="$1"/upper,workdir="$1"/work overlay "$1"/root
cd "$1"/root
mount --rbind /dev dev
mount --rbind /sys sys
mount -t proc proc proc
for d in run tmp srv root; do mount -t tmpfs -o mode=755 tmpfs $d; done
pivot_root . mnt
umount -l /mnt
hostname "$2"
cd /
echo ready
read -r _ || true
`

// newMachine starts a machine; node may be nil.
func newMachine(t *testing.T, name string, node *netns.Node) *machine {
	t.Helper()
	cmd := exec.Command("bash", "-c", beginMachine, "machine", t.TempDir(), name)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWUTS}
	stdin, err := cmd.StdinPipe()
	must(t, err)
	stdout, err := cmd.StdoutPipe()
	must(t, err)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	start := cmd.Start
	if node != nil {
		start = func() error { return node.Do(cmd.Start) }
	}
	must(t, start())
	t.Cleanup(func() {
		must(t, stdin.Close())
		if err := cmd.Wait(); err != nil {
			t.Errorf("machine %s: %v\n%s", name, err, stderr.String())
		}
	})
	word := make([]byte, len("ready\n"))
	if _, err := io.ReadFull(stdout, word); err != nil {
		t.Fatalf("machine %s: %v\n%s", name, err, stderr.String())
	}
	return &machine{t: t, name: name, pid: cmd.Process.Pid}
}

// path is where a file of the machine is seen from here.
func (m *machine) path(name string) string {
	return filepath.Join(fmt.Sprintf("/proc/%d/root", m.pid), name)
}

// command is a line of shell on the machine, in the home directory of root.
func (m *machine) command(line string) *exec.Cmd {
	cmd := exec.Command("nsenter", "-t", fmt.Sprint(m.pid), "-m", "-p", "-u", "-n", "-r", "-w", "bash", "-c", "cd; "+line)
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8"}
	return cmd
}

// try runs a line of shell and returns what it printed on both streams, and its exit code.
func (m *machine) try(line string) (string, int) {
	m.t.Helper()
	out, err := m.command(line).CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return string(out), exit.ExitCode()
	}
	must(m.t, err)
	return string(out), 0
}

// run runs a line of shell that must succeed.
func (m *machine) run(line string) string {
	m.t.Helper()
	out, code := m.try(line)
	if code != 0 {
		m.t.Fatalf("%s# %s: exit code %d\n%s", m.name, line, code, out)
	}
	return out
}

// has tells whether something is at a path.
func (m *machine) has(name string) bool {
	m.t.Helper()
	_, err := os.Lstat(m.path(name))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		m.t.Error(err)
	}
	return err == nil
}

// copyIn puts a file of this machine into a directory of that one.
func (m *machine) copyIn(file, dir string) {
	m.t.Helper()
	data, err := os.ReadFile(file)
	must(m.t, err)
	must(m.t, os.WriteFile(filepath.Join(m.path(dir), filepath.Base(file)), data, 0o644))
}

// daemons are the machine's own process ids of slipway's daemons.
func (m *machine) daemons() string {
	m.t.Helper()
	out, _ := m.try("pgrep -f '^(/usr/bin/)?slipway '")
	return strings.Join(strings.Fields(out), " ")
}
