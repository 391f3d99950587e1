//go:build bench

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"   //nolint:depguard // to compare with
	"github.com/hanwen/go-fuse/v2/fuse" //nolint:depguard // to compare with

	"slipway/internal/loopdisk"
)

// place is a directory to measure in.
type place struct{ name, dir string }

// mountPlaces makes the bare directory, a slipway mount that journals while nothing is sealed, bindfs and gocryptfs, all over one file system.
func mountPlaces(t *testing.T) []place {
	t.Helper()
	s := newSite(t, siteOptions{plain: true, vaults: []string{"vault1"}, primary: "settle: 1h\nmax_age: 2h\nbatch_interval: 1h"})
	s.startPrimary()
	dir := t.TempDir()
	at := func(name string) string {
		d := filepath.Join(dir, name)
		must(t, os.Mkdir(d, 0o755))
		return d
	}
	run := func(args ...string) {
		cmd := exec.Command(args[0], args[1:]...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%q: %v\n%s", args, err, out)
		}
	}
	native, bound, cipher := at("native"), at("bindfs"), at("gocryptfs")
	run("bindfs", at("bound"), bound)
	t.Cleanup(func() { run("umount", bound) })
	key, store := filepath.Join(dir, "key"), at("cipher")
	must(t, os.WriteFile(key, []byte("benchmark"), 0o600))
	run("gocryptfs", "-q", "-init", "-scryptn", "10", "-passfile", key, store)
	run("gocryptfs", "-q", "-passfile", key, store, cipher)
	t.Cleanup(func() { run("umount", cipher) })
	return []place{{"native", native}, {"slipway", s.mount}, {"bindfs", bound}, {"gocryptfs", cipher}}
}

// barePassthrough mounts go-fuse's loopback, which hands each open file to the kernel and does nothing else: what passthrough itself costs.
func barePassthrough(t *testing.T) place {
	t.Helper()
	below, dir := t.TempDir(), t.TempDir()
	root, err := fs.NewLoopbackRoot(below)
	must(t, err)
	server, err := fs.Mount(dir, root, &fs.Options{MountOptions: fuse.MountOptions{
		DirectMountStrict: true, DisableXAttrs: true, ExtraCapabilities: fuse.CAP_HANDLE_KILLPRIV_V2, // no request for each write
	}})
	must(t, err)
	t.Cleanup(func() { must(t, server.Unmount()) })
	return place{"bare passthrough", dir}
}

var fioJobs = []struct {
	name string
	args []string
}{
	{"read 1 MiB", []string{"--rw=read", "--bs=1m", "--ioengine=psync"}},
	{"write 1 MiB", []string{"--rw=write", "--bs=1m", "--ioengine=psync"}},
	{"random read 4 KiB", []string{"--rw=randread", "--bs=4k", "--ioengine=psync"}},
	{"random write 4 KiB", []string{"--rw=randwrite", "--bs=4k", "--ioengine=psync"}},
	{"mmap random read 4 KiB", []string{"--rw=randread", "--bs=4k", "--ioengine=mmap"}},
}

// TestBenchMountFio: one file of 1 GiB in the cache. More is better; the ratio is to the bare directory.
func TestBenchMountFio(t *testing.T) {
	places := append(mountPlaces(t), barePassthrough(t))
	for _, p := range places {
		fio(t, p, "--rw=write", "--bs=1m", "--ioengine=psync") // the file, in the cache
	}
	rows := [][]string{{"MiB/s (median of 3, interleaved)", "native", "slipway", "bindfs", "gocryptfs", "bare passthrough", "slipway / native", "slipway / bare"}}
	for _, job := range fioJobs {
		got := map[string][]float64{}
		for range 3 {
			for _, p := range places {
				got[p.name] = append(got[p.name], fio(t, p, append(job.args, "--time_based", "--runtime=3")...))
			}
		}
		row := []string{job.name}
		mid := func(name string) float64 { return slices.Sorted(slices.Values(got[name]))[1] }
		for _, p := range places {
			row = append(row, fmt.Sprintf("%.0f", mid(p.name)))
		}
		rows = append(rows, append(row, fmt.Sprintf("%.2f", mid("slipway")/mid("native")), fmt.Sprintf("%.2f", mid("slipway")/mid("bare passthrough"))))
	}
	table(t, "fio, 1 file of 1 GiB in the cache", rows...)
}

// fio runs one job and returns MiB a second.
func fio(t *testing.T, p place, args ...string) float64 {
	t.Helper()
	out, err := exec.Command("fio", append([]string{"--name=bench", "--filename=" + filepath.Join(p.dir, "file"), "--size=1g", "--invalidate=0",
		"--output-format=json"}, args...)...).Output()
	if err != nil {
		t.Fatalf("fio in %s: %v\n%s", p.name, err, out)
	}
	var report struct {
		Jobs []struct {
			Read, Write struct {
				Bytes float64 `json:"io_bytes"`
				Msec  float64 `json:"runtime"`
			}
		}
	}
	must(t, json.Unmarshal(out[strings.Index(string(out), "{"):], &report))
	j := report.Jobs[0]
	return (j.Read.Bytes + j.Write.Bytes) / max(j.Read.Msec, j.Write.Msec) * 1000 / (1 << 20)
}

// TestBenchMountBusy: the same while the spooler seals and pushes as fast as it can, beside the spooler at rest.
func TestBenchMountBusy(t *testing.T) {
	s := newSite(t, siteOptions{plain: true, vaults: []string{"vault1"}, primary: "settle: 100ms"})
	s.startPrimary()
	spooler := s.child("spooler")[0]
	rest := func() { must(t, syscall.Kill(spooler, syscall.SIGSTOP)) }
	work := func() { must(t, syscall.Kill(spooler, syscall.SIGCONT)) }
	t.Cleanup(work)
	rest()
	for i := range 160 { // 64 MiB each
		writeRandom(t, filepath.Join(s.mount, "load", fmt.Sprint(i)), byte(i), 64<<20)
	}
	mount := place{"slipway", s.mount}
	fio(t, mount, "--rw=write", "--bs=1m", "--ioengine=psync")
	must(t, exec.Command("sync", "-f", s.source).Run())
	rows := [][]string{{"MiB/s (median of 3, interleaved)", "spooler at rest", "sealing and pushing", "kept"}}
	for _, job := range fioJobs {
		var quiet, busy []float64
		for range 3 {
			args := append(job.args, "--time_based", "--runtime=2")
			quiet = append(quiet, fio(t, mount, args...))
			before := processorTime(t, spooler)
			work()
			busy = append(busy, fio(t, mount, args...))
			rest()
			if used := processorTime(t, spooler) - before; used < time.Second {
				t.Fatalf("%s: the spooler worked for %v of 2 s only", job.name, used)
			}
		}
		mid := func(x []float64) float64 { return slices.Sorted(slices.Values(x))[1] }
		rows = append(rows, []string{job.name, fmt.Sprintf("%.0f", mid(quiet)), fmt.Sprintf("%.0f", mid(busy)), fmt.Sprintf("%.2f", mid(busy)/mid(quiet))})
	}
	table(t, "fio beside a busy spooler", rows...)
}

// writeRandom writes a file of incompressible bytes.
func writeRandom(t *testing.T, path string, seed byte, size int64) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	f, err := os.Create(path)
	must(t, err)
	_, err = io.CopyN(f, rand.NewChaCha8([32]byte{seed}), size)
	must(t, errors.Join(err, f.Close()))
}

// TestBenchMountMillion: find over 10^6 files, what the mount process needs for them, and that it gives it back when the kernel forgets.
func TestBenchMountMillion(t *testing.T) {
	s := newSite(t, siteOptions{plain: true, vaults: []string{"vault1"}, primary: "settle: 1h\nmax_age: 2h\nbatch_interval: 1h"})
	for d := range 1000 {
		dir := filepath.Join(s.source, fmt.Sprint(d))
		must(t, os.Mkdir(dir, 0o755))
		for f := range 1000 {
			must(t, os.WriteFile(filepath.Join(dir, fmt.Sprint(f)), nil, 0o644))
		}
	}
	s.startPrimary()
	must(t, syscall.Kill(s.child("spooler")[0], syscall.SIGSTOP)) // it would read the new tree meanwhile
	t.Cleanup(func() { _ = syscall.Kill(s.child("spooler")[0], syscall.SIGCONT) })
	mount := s.child("fusefs")[0]
	resident := func() string { return fmt.Sprintf("%d MiB", memoryOf(t, mount, "VmRSS:")>>20) }
	rows := [][]string{{"", "time", "mount process afterwards"}, {"mounted", "", resident()}}
	for _, run := range []struct{ name, dir string }{{"find -size in the bare directory, first", s.source}, {"find -size, first", s.mount}, {"find -size, again", s.mount}, {"find -size in the bare directory, again", s.source}} {
		began := time.Now()
		out, err := exec.Command("sh", "-c", "find "+run.dir+" -size -1 | wc -l").Output()
		must(t, err)
		if n := strings.TrimSpace(string(out)); n != "1000000" {
			t.Fatalf("%s: %s files", run.name, n)
		}
		rows = append(rows, []string{run.name, seconds(time.Since(began)), resident()})
	}
	must(t, os.WriteFile("/proc/sys/vm/drop_caches", []byte("2"), 0))
	s.eventually(time.Minute, "the memory to come back", func() error {
		if now := memoryOf(t, mount, "VmRSS:"); now > 200<<20 {
			return fmt.Errorf("%d MiB", now>>20)
		}
		return nil
	})
	table(t, "10^6 files", append(rows, []string{"the kernel has forgotten", "", resident()})...)
}

// TestBenchMountTree: what people do with a tree of source files, on ext4 and on tmpfs. Less is better. Everything lies in memory, the image of ext4 and
// the archive too: what a disk takes would hide the rest.
func TestBenchMountTree(t *testing.T) {
	memory := t.TempDir()
	must(t, syscall.Mount("none", memory, "tmpfs", 0, "size=16g"))
	t.Cleanup(func() { must(t, syscall.Unmount(memory, 0)) })
	archive := filepath.Join(memory, "tree.tar")
	if out, err := exec.Command("tar", "-C", runtime.GOROOT(), "--exclude=pkg", "-cf", archive, ".").CombinedOutput(); err != nil { //nolint:staticcheck // the tests run where they were built
		t.Fatalf("tar: %v\n%s", err, out)
	}
	t.Run("tmpfs", func(t *testing.T) {
		t.Setenv("TMPDIR", memory)
		benchMountTree(t, archive)
	})
	t.Run("ext4", func(t *testing.T) {
		t.Setenv("TMPDIR", memory)
		disk := loopdisk.New(t, "ext4", 8<<30, "")
		t.Run("on it", func(t *testing.T) { // a test has one place for all its temporary directories
			t.Setenv("TMPDIR", disk)
			benchMountTree(t, archive)
		})
	})
}

func benchMountTree(t *testing.T, archive string) {
	places := mountPlaces(t)
	const search = "grep -r -q 'no file holds this text, or so one hopes' tree || true"
	steps := []struct{ name, before, script string }{
		{"tar -x", "mkdir tree; sync", "tar -C tree -xf " + archive},
		{"read all, cold", "sync; echo 2 >/proc/sys/vm/drop_caches", search},
		{"read all, warm", "", search},
		{"find -size", "", "find tree -size +100k >/dev/null"},
		{"git status", "cd tree && git init -q . && git -c core.preloadIndex=false add -A", "cd tree && git status --short >/dev/null"},
		{"rm -rf", "sync", "rm -rf tree"},
	}
	took := map[string]map[string][]time.Duration{}
	for range 3 {
		for _, p := range places {
			for _, s := range steps {
				sh(t, p, s.before)
				began := time.Now()
				sh(t, p, s.script)
				if took[s.name] == nil {
					took[s.name] = map[string][]time.Duration{}
				}
				took[s.name][p.name] = append(took[s.name][p.name], time.Since(began))
			}
		}
	}
	rows := [][]string{{"median of 3, interleaved", "native", "slipway", "bindfs", "gocryptfs", "slipway / native", "slipway / bindfs"}}
	for _, s := range steps {
		row := []string{s.name}
		for _, p := range places {
			row = append(row, seconds(median(took[s.name][p.name])))
		}
		ours := median(took[s.name]["slipway"]).Seconds()
		rows = append(rows, append(row, fmt.Sprintf("%.1f", ours/median(took[s.name]["native"]).Seconds()), fmt.Sprintf("%.2f", ours/median(took[s.name]["bindfs"]).Seconds())))
	}
	table(t, "the Go source tree", rows...)
}

func sh(t *testing.T, p place, script string) {
	t.Helper()
	cmd := exec.Command("sh", "-ec", script)
	cmd.Dir = p.dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("in %s: %s: %v\n%s", p.name, script, err, out)
	}
}
