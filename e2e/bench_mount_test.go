//go:build bench

package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
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

// TestBenchMountFio: one file of 1 GiB in the cache. More is better; the ratio is to the bare directory.
func TestBenchMountFio(t *testing.T) {
	places := mountPlaces(t)
	jobs := []struct {
		name string
		args []string
	}{
		{"read 1 MiB", []string{"--rw=read", "--bs=1m", "--ioengine=psync"}},
		{"write 1 MiB", []string{"--rw=write", "--bs=1m", "--ioengine=psync"}},
		{"random read 4 KiB", []string{"--rw=randread", "--bs=4k", "--ioengine=psync"}},
		{"random write 4 KiB", []string{"--rw=randwrite", "--bs=4k", "--ioengine=psync"}},
		{"mmap random read 4 KiB", []string{"--rw=randread", "--bs=4k", "--ioengine=mmap"}},
	}
	for _, p := range places {
		fio(t, p, "--rw=write", "--bs=1m", "--ioengine=psync") // the file, in the cache
	}
	rows := [][]string{{"MiB/s (median of 3, interleaved)", "native", "slipway", "bindfs", "gocryptfs", "slipway / native"}}
	for _, job := range jobs {
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
		rows = append(rows, append(row, fmt.Sprintf("%.2f", mid("slipway")/mid("native"))))
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

// TestBenchMountTree: what people do with a tree of source files. Less is better.
func TestBenchMountTree(t *testing.T) {
	places := mountPlaces(t)
	archive := filepath.Join(t.TempDir(), "tree.tar")
	if out, err := exec.Command("tar", "-C", runtime.GOROOT(), "--exclude=pkg", "-cf", archive, ".").CombinedOutput(); err != nil { //nolint:staticcheck // the tests run where they were built
		t.Fatalf("tar: %v\n%s", err, out)
	}
	steps := []struct{ name, script string }{
		{"tar -x", "mkdir tree && tar -C tree -xf " + archive},
		{"read all, cold", "sync; echo 2 >/proc/sys/vm/drop_caches; grep -r -q 'no file holds this text, or so one hopes' tree || true"},
		{"read all, warm", "grep -r -q 'no file holds this text, or so one hopes' tree || true"},
		{"find -size", "find tree -size +100k >/dev/null"},
		{"git status", "cd tree && git status --short >/dev/null"},
		{"rm -rf", "rm -rf tree"},
	}
	took := map[string]map[string][]time.Duration{}
	for range 3 {
		for _, p := range places {
			for _, s := range steps {
				if s.name == "git status" {
					sh(t, p, "cd tree && git init -q . && git -c core.preloadIndex=false add -A")
				}
				began := time.Now()
				sh(t, p, s.script)
				if took[s.name] == nil {
					took[s.name] = map[string][]time.Duration{}
				}
				took[s.name][p.name] = append(took[s.name][p.name], time.Since(began))
			}
		}
	}
	rows := [][]string{{"median of 3, interleaved", "native", "slipway", "bindfs", "gocryptfs", "slipway / bindfs"}}
	for _, s := range steps {
		row := []string{s.name}
		for _, p := range places {
			row = append(row, seconds(median(took[s.name][p.name])))
		}
		rows = append(rows, append(row, fmt.Sprintf("%.2f", median(took[s.name]["slipway"]).Seconds()/median(took[s.name]["bindfs"]).Seconds())))
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
