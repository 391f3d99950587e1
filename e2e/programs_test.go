package e2e

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// program is one that people run on the mount. Its scripts run in a directory of its own there; $ORIGIN is a directory outside.
type program struct {
	name    string
	origin  string // script that runs in $ORIGIN before
	prepare string // before the first run
	run     string // is cut off by the death of the mount process; each "+" that it prints is a step done
	steps   int    // so many before the mount process is killed
	again   string // goes on afterwards
	check   string // finds nothing wrong; $DONE is how many steps the program had done
}

var programs = []program{
	{
		name:  "sqlite",
		run:   `stdbuf -oL sqlite3 -bail db <"$ORIGIN/input"`,
		steps: 50,
		origin: `{ echo "PRAGMA journal_mode=WAL; PRAGMA mmap_size=268435456; PRAGMA wal_autocheckpoint=20; CREATE TABLE t (id INTEGER PRIMARY KEY, data BLOB);"
			for i in $(seq 100000); do echo "BEGIN; INSERT INTO t VALUES ($i, randomblob(3000)); UPDATE t SET data = randomblob(2000) WHERE id = $i / 2; COMMIT; SELECT '+';"; done; } >input`,
		check: `test "$(sqlite3 db 'PRAGMA integrity_check')" = ok
			test "$(sqlite3 db 'SELECT count(*) FROM t')" -ge "$DONE"
			test "$(sqlite3 db 'SELECT count(*) FROM t')" -eq "$(sqlite3 db 'SELECT max(id) FROM t')"`,
	},
	{
		name: "git clone",
		origin: `git init -q repo; cp -r "$GOROOT/src/cmd/compile/internal/ssa" "$GOROOT/src/net" repo
			cd repo; git add -A; git -c user.name=test -c user.email=test commit -q -m first`,
		run:   `git clone -q "file://$ORIGIN/repo" clone & while ! [ -e clone/net ]; do :; done; echo +; wait $!`,
		steps: 1,
		again: `rm -rf clone; git clone -q "file://$ORIGIN/repo" clone`,
		check: `cd clone; git fsck --full --strict; test -z "$(git status --porcelain)"; diff -r net "$ORIGIN/repo/net"`,
	},
	{
		name:    "git gc",
		prepare: `git init -q .; git config user.name test; git config user.email test; git config gc.auto 0; cp -r "$GOROOT/src/net" .; git add -A; git commit -q -m first`,
		run: `for i in $(seq 10000); do seq $i $((i+200)) >file$((i%50)); git add -A; git commit -q -m $i; echo +
			if [ $((i%4)) = 0 ]; then git gc -q --prune=now; fi; done`,
		steps: 7,
		again: `find .git -name '*.lock' -delete; rm -f .git/gc.pid; git reset -q --hard; git gc -q --prune=now`,
		check: `git fsck --full --strict; test "$(git rev-list --count HEAD)" -gt "$DONE"; test -z "$(git status --porcelain -uno)"`,
	},
	{
		name:    "go build",
		prepare: `mkdir cache tmp; printf 'module hello\n\ngo 1.26\n' >go.mod; printf 'package main\n\nimport "fmt"\n\nfunc main() { fmt.Println("built") }\n' >main.go`,
		run:     `export GOCACHE=$PWD/cache GOTMPDIR=$PWD/tmp; go build -o hello . & while [ "$(ls cache | wc -l)" -lt 20 ]; do :; done; echo +; wait $!`,
		steps:   1,
		again:   `rm -rf tmp/*; GOCACHE=$PWD/cache GOTMPDIR=$PWD/tmp go build -o hello .`,
		check:   `test "$(./hello)" = built; GOCACHE=$PWD/cache GOFLAGS=-v go build -o again . 2>&1 | { ! grep -v '^hello$'; }; cmp hello again; GOCACHE=$PWD/cache go version -m hello >/dev/null`,
	},
	{
		name:   "rsync",
		origin: `cp -a "$GOROOT/src/cmd/compile" tree`,
		run:    `rsync -a --out-format=+ "$ORIGIN/tree/" copy`,
		steps:  100,
		again:  `rsync -a --delete "$ORIGIN/tree/" copy`,
		check:  `test -z "$(rsync -a -n -i --checksum --delete "$ORIGIN/tree/" copy)"`,
	},
	{
		name:   "tar",
		origin: `tar -C "$GOROOT/src/cmd/compile" -cf tree.tar .`,
		run:    `mkdir out; tar -C out -xvf "$ORIGIN/tree.tar" | sed -u s/.*/+/`,
		steps:  100,
		again:  `tar -C out -xf "$ORIGIN/tree.tar"`,
		check:  `tar -C out --compare -f "$ORIGIN/tree.tar"`,
	},
}

// TestPrograms kills the mount process while each of a few programs works on the mount. None hangs; on the mount that is there right afterwards each
// goes on, its own check finds nothing wrong, and what it had reported done is there. In the end a restore equals the tree.
func TestPrograms(t *testing.T) {
	s := newSite(t, siteOptions{plain: true, vaults: []string{"vault1"}})
	s.start()
	for i, p := range programs {
		t.Run(p.name, func(t *testing.T) {
			// The supervisor takes its time over a mount process that dies again and again.
			if gap := s.cutOff(t, p); i == 0 && gap > time.Second*busy {
				t.Errorf("the mount was away for %v", gap)
			}
		})
	}
	s.wait("stored")
	equal(t, "restored", snapshot(t, s.mount), snapshot(t, s.restore("vault1")))
}

// cutOff returns how long the mount was away.
func (s *site) cutOff(t *testing.T, p program) (gap time.Duration) {
	origin, dir := t.TempDir(), filepath.Join(s.mount, p.name)
	must(t, os.Mkdir(dir, 0o755))
	script := func(where, text string, done int) *exec.Cmd {
		cmd := exec.Command("bash", "-e", "-o", "pipefail", "-c", text)
		cmd.Dir = where
		cmd.Env = append(os.Environ(), "ORIGIN="+origin, "GOROOT="+runtime.GOROOT(), "DONE="+strconv.Itoa(done)) //nolint:staticcheck // the tests run where they were built
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		return cmd
	}
	succeed := func(what, where, text string, done int) {
		t.Helper()
		if out, err := script(where, text, done).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", what, err, tail(string(out), 30))
		}
	}
	succeed("origin", origin, p.origin, 0)
	succeed("prepare", dir, p.prepare, 0)

	mount := s.child("fusefs")[0] // known beforehand: the program goes on while it is looked for
	steps := &stepCounter{want: p.steps, reached: make(chan struct{})}
	cmd := script(dir, p.run, 0)
	cmd.Stdout, cmd.Stderr = steps, &lockedBuffer{}
	must(t, cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	defer func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }()
	select {
	case <-steps.reached:
	case err := <-ended:
		t.Fatalf("ended before the mount process was killed: %v\n%s", err, cmd.Stderr)
	case <-time.After(time.Minute * busy):
		t.Fatalf("only %d steps", steps.done())
	}
	must(t, syscall.Kill(mount, syscall.SIGKILL))
	killed := time.Now()
	s.eventually(10*time.Second, "its death", func() error {
		if err := syscall.Kill(mount, 0); err == nil {
			return errors.New("it lives")
		}
		return nil
	})
	s.waitMounted()
	gap = time.Since(killed)

	// What was open in passthrough goes on working, so a program need not notice; but it must be possible to end it.
	select {
	case err := <-ended:
		if err == nil {
			t.Error("it went well: the kill cut nothing off")
		}
		t.Logf("killed after %d steps; ended by itself: %v", steps.done(), err)
	case <-time.After(2 * time.Second):
		must(t, syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL))
		select {
		case err := <-ended:
			t.Logf("killed after %d steps; did not notice, and was ended: %v", steps.done(), err)
		case <-time.After(10 * time.Second * busy):
			t.Fatal("cannot be ended")
		}
	}
	succeed("again", dir, p.again, steps.done())
	succeed("check", dir, p.check, steps.done())
	return gap
}

// stepCounter counts the steps that a program prints.
type stepCounter struct {
	mu      sync.Mutex
	n, want int
	reached chan struct{}
}

func (c *stepCounter) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	before := c.n
	c.n += strings.Count(string(p), "+")
	if before < c.want && c.n >= c.want {
		close(c.reached)
	}
	return len(p), nil
}

func (c *stepCounter) done() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n
}
