//go:build bench

package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"slipway/internal/ack"
	"slipway/internal/sshd"
)

// The benchmarks print README's tables; `make bench` runs them, no other target does. Runs of what is compared are interleaved, since the machine's speed drifts; medians are
// quoted, raw times stand beside every ratio.

// table prints aligned rows to the test's log.
func table(t *testing.T, title string, rows ...[]string) {
	t.Helper()
	var b bytes.Buffer
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, r := range rows {
		_, err := fmt.Fprintln(w, strings.Join(r, "\t"))
		must(t, err)
	}
	must(t, w.Flush())
	t.Logf("%s\n%s", title, b.String())
}

func median(d []time.Duration) time.Duration {
	s := slices.Sorted(slices.Values(d))
	return s[len(s)/2]
}

func percentile(d []time.Duration, p int) time.Duration {
	s := slices.Sorted(slices.Values(d))
	return s[min(len(s)-1, len(s)*p/100)]
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.2f s", d.Seconds()) }

// TestBenchTree: the Go source tree lies in the source before the first mount. From the start of `slipway mount` to the last
// acknowledgement by a backup host, over two SFTP hops; beside it `restic backup` over one.
func TestBenchTree(t *testing.T) {
	tree := filepath.Join(t.TempDir(), "tree")
	copyTree(t, runtime.GOROOT(), tree) //nolint:staticcheck // the tests run where they were built
	files, size := measure(t, tree)
	var ours, theirs []time.Duration
	var peak int64
	for range 3 {
		d, mem := benchSlipway(t, tree)
		ours, peak = append(ours, d), max(peak, mem)
		theirs = append(theirs, benchRestic(t, tree))
	}
	table(t, fmt.Sprintf("first backup of %d files, %d MiB (median of 3, interleaved)", files, size>>20),
		[]string{"", "median", "all", "ratio"},
		[]string{"slipway, 2 hops, 1 backup host", seconds(median(ours)), fmt.Sprint(ours), fmt.Sprintf("%.2f", median(ours).Seconds()/median(theirs).Seconds())},
		[]string{"restic, 1 hop", seconds(median(theirs)), fmt.Sprint(theirs), "1"},
		[]string{"spooler's peak memory", fmt.Sprintf("%d MiB", peak>>20), "", ""})
}

// benchSlipway adopts a tree and returns the time until it was stored, and the spooler's peak memory in bytes.
func benchSlipway(t *testing.T, tree string) (time.Duration, int64) {
	t.Helper()
	s := newSite(t, siteOptions{inPlace: true, vaults: []string{"vault1"}, ship: "  when: [{age: 0s}]\n  copies: 1\n"})
	copyTree(t, tree+"/.", s.source)
	must(t, exec.Command("sync", "-f", s.source).Run())
	s.startShipper()
	began := time.Now()
	s.startPrimary()
	s.wait("stored")
	peak := peakMemory(t, s.child("spooler")[0])
	at := s.ackedAt("vault1", 0)
	s.stopPrimary()
	s.shipper.stop(t)
	return at.Sub(began), peak
}

// benchRestic backs the tree up with restic over SFTP into a repository initialised before.
func benchRestic(t *testing.T, tree string) time.Duration {
	t.Helper()
	s := &site{t: t, dir: t.TempDir(), hosts: map[string]*host{}}
	s.known = filepath.Join(s.dir, "known_hosts")
	s.addHostWith("vault1", sshd.Options{AllowAll: true})
	h := s.hosts["vault1"]
	hostport := strings.Split(h.srv.Addr, ":")
	sftp := fmt.Sprintf("ssh -p %s -i %s -o UserKnownHostsFile=%s -o IdentitiesOnly=yes %s@%s -s sftp", hostport[1], h.srv.KeyFile, h.srv.KnownHosts, h.srv.User, hostport[0])
	restic := func(args ...string) {
		cmd := exec.Command("restic", append([]string{"-q", "-r", "sftp:host:" + h.data + "/repo", "-o", "sftp.command=" + sftp,
			"--cache-dir", filepath.Join(s.dir, "cache")}, args...)...)
		cmd.Env = append(os.Environ(), "RESTIC_PASSWORD=benchmark")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("restic %v: %v\n%s", args, err, out)
		}
	}
	restic("init")
	began := time.Now()
	restic("backup", tree)
	return time.Since(began)
}

// peakMemory reads a process's highest resident size.
func peakMemory(t *testing.T, pid int) int64 { return memoryOf(t, pid, "VmHWM:") }

// memoryOf reads a size from proc_pid_status(5), in bytes.
func memoryOf(t *testing.T, pid int, want string) int64 {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	must(t, err)
	for line := range strings.SplitSeq(string(data), "\n") {
		if v, ok := strings.CutPrefix(line, want); ok {
			kib, err := strconv.ParseInt(strings.Fields(v)[0], 10, 64)
			must(t, err)
			return kib << 10
		}
	}
	t.Fatalf("no %s", want)
	return 0
}

// ackedAt returns when a backup host acknowledged a batch (0: its head), as its acks file on the cache says.
func (s *site) ackedAt(store string, seq uint64) time.Time {
	s.t.Helper()
	data, err := os.ReadFile(filepath.Join(s.hosts["cache1"].data, "projects", "acks", store+".json"))
	must(s.t, err)
	var a ack.Acks
	must(s.t, json.Unmarshal(data, &a))
	if seq == 0 {
		seq = uint64(a.Head)
	}
	for _, m := range a.Recent {
		if uint64(m.Seq) >= seq {
			return m.At
		}
	}
	s.t.Fatalf("%s has not acknowledged batch %d: head %d", store, seq, a.Head)
	return time.Time{}
}

// TestBenchLatency: a 4 KiB file, from close() to the acknowledgement that covers it, otherwise idle.
func TestBenchLatency(t *testing.T) {
	r := random(t)
	s := newSite(t, siteOptions{inPlace: true, ship: "  when: [{age: 0s}]\n  copies: 1\n"})
	s.start()
	s.wait("stored")
	sync := startLsyncd(t)
	var ours, theirs []time.Duration
	for i := range count(20, 200) {
		name := fmt.Sprintf("file%d", i)
		ours = append(ours, s.latency(filepath.Join(s.mount, name), noise(r, 4096)))
		theirs = append(theirs, sync.latency(t, name, noise(r, 4096)))
		pause(t, time.Duration(1000+r.IntN(200))*time.Millisecond) // idle again
	}
	row := func(name string, d []time.Duration) []string {
		return []string{name, seconds(percentile(d, 50)), seconds(percentile(d, 99)), seconds(slices.Max(d))}
	}
	table(t, fmt.Sprintf("close() of a 4 KiB file to its copy being safe, %d files, interleaved", len(ours)),
		[]string{"", "p50", "p99", "max"},
		row("slipway: acknowledged by a backup host, 2 hops", ours),
		row("lsyncd, delay 1: file present in a local directory", theirs))
}

// latency writes one file and returns the time from close() to the acknowledgement.
func (s *site) latency(path string, data []byte) time.Duration {
	s.t.Helper()
	must(s.t, os.WriteFile(path, data, 0o644))
	closed := time.Now()
	s.slipway("wait", path, "--stage", "stored", "--timeout", "30s", "-c", s.config)
	rows := s.jsonLines("explain", path, "-c", s.config)
	seq, err := strconv.ParseUint(jsonNumber(rows[0]["batch"]), 10, 64)
	must(s.t, err)
	at := s.ackedAt("vault1", seq)
	return at.Sub(closed)
}

// lsyncd is a running lsyncd from one directory to another.
type lsyncd struct{ from, to string }

func startLsyncd(t *testing.T) lsyncd {
	t.Helper()
	dir := t.TempDir()
	l := lsyncd{filepath.Join(dir, "from"), filepath.Join(dir, "to")}
	must(t, os.Mkdir(l.from, 0o755))
	must(t, os.Mkdir(l.to, 0o755))
	conf := filepath.Join(dir, "lsyncd.lua")
	must(t, os.WriteFile(conf, fmt.Appendf(nil, "sync{default.rsync, source=%q, target=%q, delay=1}\n", l.from, l.to), 0o644))
	cmd := exec.Command("lsyncd", "-nodaemon", conf)
	must(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // ends with the test
		_ = cmd.Wait()
	})
	return l
}

func (l lsyncd) latency(t *testing.T, name string, data []byte) time.Duration {
	t.Helper()
	must(t, os.WriteFile(filepath.Join(l.from, name), data, 0o644))
	closed := time.Now()
	s := &site{t: t}
	s.eventually(20*time.Second, "lsyncd", func() error {
		_, err := os.Stat(filepath.Join(l.to, name))
		return err
	})
	return time.Since(closed)
}

// TestBenchBigFile: what a change of 1 MiB in a file of 1 GiB adds to each store.
func TestBenchBigFile(t *testing.T) {
	r := random(t)
	s := newSite(t, siteOptions{inPlace: true})
	s.start()
	path := filepath.Join(s.mount, "big")
	f, err := os.Create(path)
	must(t, err)
	for range 256 {
		_, err := f.Write(noise(r, 4<<20))
		must(t, err)
	}
	must(t, f.Close())
	s.wait("stored")
	before := s.storeSizes()
	f, err = os.OpenFile(path, os.O_WRONLY, 0)
	must(t, err)
	_, err = f.WriteAt(noise(r, 1<<20), int64(r.IntN(1<<30-1<<20)))
	must(t, err)
	must(t, f.Close())
	began := time.Now()
	s.wait("stored")
	took := time.Since(began)
	rows := [][]string{{"store", "added"}}
	for _, name := range []string{"cache1", "vault1", "vault2"} {
		added := s.storeSizes()[name] - before[name]
		rows = append(rows, []string{name, fmt.Sprintf("%.2f MiB", float64(added)/(1<<20))})
		if added > 8<<20 {
			t.Errorf("%s grew by %d bytes, want at most 8 MiB", name, added)
		}
	}
	table(t, "a change of 1 MiB in a file of 1 GiB, stored after "+seconds(took), rows...)
}

func (s *site) storeSizes() map[string]int64 {
	s.t.Helper()
	out := map[string]int64{}
	for name, h := range s.hosts {
		_, out[name] = measure(s.t, h.data)
	}
	return out
}

// TestBenchManyBatches: small changes, each a batch of its own.
func TestBenchManyBatches(t *testing.T) {
	n := count(360, 3600)
	s := newSite(t, siteOptions{inPlace: true, primary: "batch_interval: 1ms"})
	s.start()
	r := rand.New(rand.NewPCG(1, 2))
	for i := range n {
		must(t, os.WriteFile(filepath.Join(s.mount, fmt.Sprintf("f%d", i%100)), noise(r, 100), 0o644))
		s.slipway("wait", s.mount, "--stage", "sealed", "--timeout", "30s", "-c", s.config)
	}
	s.wait("stored")
	rows := [][]string{{"what", "figure"}}
	for _, name := range []string{"cache1", "vault1", "vault2"} {
		files, size := measure(t, s.hosts[name].data)
		rows = append(rows, []string{"files and bytes on " + name, fmt.Sprintf("%d, %.1f MiB", files, float64(size)/(1<<20))})
	}
	timed := func(what string, f func()) {
		began := time.Now()
		f()
		rows = append(rows, []string{what, seconds(time.Since(began))})
	}
	timed("slipway ls from vault1", func() {
		s.slipway("ls", "--from", s.hosts["vault1"].url(), "--identity", s.ident, "--ssh-key", s.key, "--known-hosts", s.known)
	})
	timed("slipway restore from vault1", func() { s.restore("vault1") })
	s.stopPrimary()
	s.startPrimary()
	timed("first push after a restart", func() {
		must(t, os.WriteFile(filepath.Join(s.mount, "after"), []byte("restart"), 0o644))
		s.wait("cached")
	})
	table(t, fmt.Sprintf("%d small changes, each a batch of its own", n), rows...)
}
