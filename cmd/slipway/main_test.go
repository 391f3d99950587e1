package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"slipway/internal/access"
	"slipway/internal/catalog"
	"slipway/internal/claim"
	"slipway/internal/config"
	"slipway/internal/control"
	"slipway/internal/drill"
	"slipway/internal/durable"
	"slipway/internal/keys"
	"slipway/internal/promote"
	"slipway/internal/state"
	"slipway/internal/store"
	"slipway/internal/supervisor"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"slipway": main, "mount.fuse.slipway": main, "mount.slipway": main, "fakedaemon": fakeDaemon})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"rc": exitsWith, "keys": hasKeys, "awaitfile": awaitFile, "flip": flip, "sendsignal": sendSignal, "sametree": sameTree, "expand": expand,
			"nothingin": nothingIn, "nextbatch": nextBatch, "headbatch": headBatch,
		},
		Deadline: time.Now().Add(5 * time.Minute), // a script that fails leaves a stopped process, which ends by a kill alone
		Setup: func(env *testscript.Env) error {
			env.Defer(func() { // a script that failed in the middle leaves its mounts behind
				for _, name := range []string{"mnt", "cache"} {
					_ = unix.Unmount(filepath.Join(env.WorkDir, name), unix.MNT_DETACH)
				}
			})
			return nil
		},
	})
}

// exitsWith is "rc CODE PROGRAM ARGS…".
func exitsWith(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: rc CODE PROGRAM ARGS…")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	err = ts.Exec(args[1], args[2:]...)
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("run: %v", err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// hasKeys is "keys stdout|stderr KEY…": every line is a JSON object with these keys and no others; "KEY?" may be absent.
func hasKeys(ts *testscript.TestScript, _ bool, args []string) {
	lines := 0
	s := bufio.NewScanner(strings.NewReader(ts.ReadFile(args[0])))
	for ; s.Scan(); lines++ {
		var object map[string]any
		if err := json.Unmarshal(s.Bytes(), &object); err != nil {
			ts.Fatalf("%s: %v", s.Text(), err)
		}
		for _, key := range args[1:] {
			if _, ok := object[key]; !ok && !strings.HasSuffix(key, "?") {
				ts.Fatalf("no key %q in %s", key, s.Text())
			}
		}
		for key := range object {
			if !slices.Contains(args[1:], key) && !slices.Contains(args[1:], key+"?") {
				ts.Fatalf("unexpected key %q in %s", key, s.Text())
			}
		}
	}
	if lines == 0 {
		ts.Fatalf("%s is empty", args[0])
	}
}

// awaitFile is "awaitfile PATH": waits until the path is there.
func awaitFile(ts *testscript.TestScript, _ bool, args []string) {
	deadline := time.After(3 * time.Minute)
	for {
		if _, err := os.Lstat(ts.MkAbs(args[0])); err == nil {
			return
		}
		select {
		case <-deadline:
			ts.Fatalf("%s does not come", args[0])
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// nextBatch is "nextbatch VARIABLE CONFIG": the number that the next batch will have.
func nextBatch(ts *testscript.TestScript, _ bool, args []string) {
	ts.Setenv(args[0], strconv.FormatUint(head(ts, args[1])+1, 10))
}

// headBatch is "headbatch VARIABLE CONFIG": the number of the newest batch.
func headBatch(ts *testscript.TestScript, _ bool, args []string) {
	ts.Setenv(args[0], strconv.FormatUint(head(ts, args[1]), 10))
}

func head(ts *testscript.TestScript, conf string) uint64 {
	ts.Check(ts.Exec("slipway", "status", "--json", "-c", conf))
	var st control.Status
	ts.Check(json.Unmarshal([]byte(ts.ReadFile("stdout")), &st))
	return st.HeadBatch
}

// expand is "expand FILE": replaces $VARIABLES in the file.
func expand(ts *testscript.TestScript, _ bool, args []string) {
	text := os.Expand(ts.ReadFile(args[0]), ts.Getenv)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(text), 0o600))
}

// nothingIn is "nothingin DIR".
func nothingIn(ts *testscript.TestScript, neg bool, args []string) {
	list, err := os.ReadDir(ts.MkAbs(args[0]))
	ts.Check(err)
	if (len(list) == 0) == neg {
		ts.Fatalf("%s holds %v", args[0], list)
	}
}

// flip is "flip DIR SUFFIX": flips a bit in the middle of the first file below DIR with that suffix.
func flip(ts *testscript.TestScript, _ bool, args []string) {
	found := ""
	ts.Check(filepath.WalkDir(ts.MkAbs(args[0]), func(path string, d fs.DirEntry, err error) error {
		if err == nil && found == "" && d.Type().IsRegular() && strings.HasSuffix(path, args[1]) {
			found = path
		}
		return err
	}))
	data, err := os.ReadFile(found)
	ts.Check(err)
	data[len(data)/2] ^= 1
	ts.Check(os.Chmod(found, 0o600))
	ts.Check(os.WriteFile(found, data, 0o600))
}

// sendSignal is "sendsignal NAME PIDFILE".
func sendSignal(ts *testscript.TestScript, _ bool, args []string) {
	pid, err := strconv.Atoi(strings.TrimSpace(ts.ReadFile(args[1])))
	ts.Check(err)
	ts.Check(unix.Kill(pid, unix.SignalNum(args[0])))
	deadline := time.After(3 * time.Minute)
	for args[0] == "SIGSTOP" && !stopped(pid) {
		select {
		case <-deadline:
			ts.Fatalf("process %d does not stop", pid)
		case <-time.After(time.Millisecond):
		}
	}
}

// stopped tells whether every thread of a process has stopped.
func stopped(pid int) bool {
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	for _, path := range threads {
		stat, err := os.ReadFile(path)
		if err == nil && !strings.HasPrefix(string(stat[bytes.LastIndexByte(stat, ')')+1:]), " T") {
			return false
		}
	}
	return len(threads) > 0
}

// sameTree is "sametree A B": equal names, types, modes, times and content.
func sameTree(ts *testscript.TestScript, neg bool, args []string) {
	a, b := listTree(ts, ts.MkAbs(args[0])), listTree(ts, ts.MkAbs(args[1]))
	if equal := slices.Equal(a, b); equal == neg {
		ts.Fatalf("equal: %v\n%s\n\n%s", equal, strings.Join(a, "\n"), strings.Join(b, "\n"))
	}
}

func listTree(ts *testscript.TestScript, root string) (list []string) {
	ts.Check(filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		content := ""
		switch {
		case d.Type().IsRegular():
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			content = string(data)
		case d.Type() == fs.ModeSymlink:
			if content, err = os.Readlink(path); err != nil {
				return err
			}
		}
		list = append(list, fmt.Sprintf("%q %v %v %q", strings.TrimPrefix(path, root), info.Mode(), info.ModTime().UnixNano(), content))
		return nil
	}))
	return list
}

// fakeDaemon is "fakedaemon STATE": a daemon with canned answers, its process id in STATE/pid.
func fakeDaemon() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	defer stop()
	state := os.Args[1]
	pid := filepath.Join(state, "pid")
	if err := os.WriteFile(pid, []byte(strconv.Itoa(os.Getpid())), 0o600); err != nil {
		panic(err)
	}
	if err := control.Serve(ctx, state, canned{}, time.Second); err != nil {
		panic(err)
	}
}

// canned answers as a primary's daemon whose cache has taken a batch that no backup host has.
type canned struct{}

var cannedTime = time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)

func (canned) Status(context.Context) ([]control.Status, error) {
	return []control.Status{{
		Volume: "projects", Node: "alpha", Role: "primary", Epoch: 2, Sender: control.SenderStatus{Node: "alpha", State: "idle"},
		Journal: control.JournalStatus{Head: 200, Sealed: 100}, Pending: control.PendingStatus{Files: 2, Bytes: 3 << 20, OldestSeconds: 90},
		HeadBatch: 42, Complete: true, Spool: control.SpoolStatus{Bytes: 1 << 30, Cap: 50 << 30},
		Stores: []control.StoreStatus{
			{Name: "alpha", Kind: "own", URL: "/spool", Batch: 42, State: "ok"},
			{Name: "cache1", Kind: "cache", URL: "/cache", Batch: 42, State: "ok"},
			{Name: "vault1", Kind: "backup", URL: "/vault", Batch: 40, LagBatches: 2, LagSeconds: 75, State: "down", Error: "connection refused"},
		},
		Warnings: []string{"one recipient only"}, At: cannedTime, Daemon: control.Running,
	}}, nil
}

func (canned) Batches(_ context.Context, _ string, from uint64, _ int) ([]control.BatchRow, error) {
	if from > 42 {
		return nil, nil
	}
	return []control.BatchRow{{Volume: "projects", Epoch: 2, Seq: 42, SealedAt: cannedTime, Files: 3, Bytes: 4096, Shards: 1, Stage: "cached", Stores: []string{"alpha", "cache1"}, Held: true}}, nil
}

func (canned) Pending(context.Context, int) ([]control.PendingRow, error) {
	return []control.PendingRow{
		{Path: "reports/new\nline", State: "open", Since: cannedTime, Bytes: 3 << 20, Writers: 1, Why: "held open"},
		{Path: "bad\xffname", State: "new", Since: cannedTime},
	}, nil
}

func (canned) Explain(_ context.Context, path string) (control.Explained, error) {
	if path == "none" {
		return control.Explained{}, fmt.Errorf("explain %s: %w", path, fs.ErrNotExist)
	}
	eta := 30.5
	return control.Explained{Path: path, Stage: "cached", Batch: 42, WaitingFor: "vault1 to answer", ETASeconds: &eta}, nil
}

func (canned) List(_ context.Context, path string, recursive bool) ([]control.ListRow, error) {
	rows := []control.ListRow{{Path: "reports", Type: "dir", Mode: 0o755, Mtime: cannedTime, Batch: 7}}
	if recursive || path == "reports" {
		rows = append(rows, control.ListRow{Path: "reports/a", Type: "symlink", Target: "b\nc", Mtime: cannedTime})
	}
	return rows, nil
}

func (canned) Barrier(_ context.Context, b control.Barrier) (control.Barrier, error) {
	return control.Barrier{Mark: "m", Sealed: true, Seq: 42, Stage: "cached", Copies: 1, Need: 2, Why: "vault1 is down"}, nil
}

func (canned) Do(_ context.Context, verb, _ string) error {
	if verb == "ship" {
		return errors.New("busy shipping")
	}
	return nil
}

// TestExitCodes pins the code of every class of error.
func TestExitCodes(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want int
	}{
		{nil, 0}, {errors.New("x"), 1}, {usagef("x"), 2}, {&config.Faults{}, 2}, {fmt.Errorf("a: %w", &coded{exitPartly, errors.New("x")}), 3},
		{errFindings(1), 4}, {fmt.Errorf("a: %w", control.ErrNoDaemon), 5}, {control.ErrSilent, 5}, {context.Canceled, 130},
		{access.ErrUsage, 2}, {drill.ErrUsage, 2}, {keys.ErrMode, 2}, {supervisor.ErrPlace, 2}, {supervisor.ErrConfig, 2}, {state.ErrSuperseded, supervisor.ExitSuperseded},
		{promoteCode(promote.ErrPartial), 3}, {promoteCode(promote.ErrSilent), 5}, {promoteCode(promote.ErrAlive), 5}, {promoteCode(claim.ErrTaken), 5}, {promoteCode(errors.New("x")), 1},
		{store.ErrTemporary, 5}, {durable.ErrLocked, 5}, {catalog.ErrBusy, 5}, {supervisor.ErrBusy, 5}, {supervisor.ErrMounted, 5},
		{errors.Join(errFindings(1), errors.New("x")), 4},
	} {
		if got := exitCode(tt.err); got != tt.want {
			t.Errorf("%v: %d, want %d", tt.err, got, tt.want)
		}
	}
}

// TestHelp: every verb that people are shown says what it is for, and has an example where its flags are not obvious.
func TestHelp(t *testing.T) {
	for _, c := range newRoot().Commands() {
		if c.Hidden || c.Name() == "help" {
			continue
		}
		if c.Short == "" || strings.HasSuffix(c.Short, ".") {
			t.Errorf("%s: short help %q", c.Name(), c.Short)
		}
		if c.HasLocalFlags() && c.Example == "" {
			t.Errorf("%s has flags and no example", c.Name())
		}
	}
}

// TestWaiting: who gives up waiting is told what for, as far as anybody has said it.
func TestWaiting(t *testing.T) {
	for want, b := range map[string]control.Barrier{
		"the daemon has not said anything yet":      {},
		"not sealed yet":                            {Mark: "1"},
		"batch 7 is cached, on 1 of 2 backup hosts": {Mark: "1", Sealed: true, Seq: 7, Stage: "cached", Copies: 1, Need: 2},
		"the window 22:00-06:00":                    {Mark: "1", Why: "the window 22:00-06:00"},
	} {
		if got := waiting(b); got != want {
			t.Errorf("%+v: %q, want %q", b, got, want)
		}
	}
}
