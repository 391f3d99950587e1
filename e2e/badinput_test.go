package e2e

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// refused runs a command that must fail with an exit code and a message that has all the words.
func (s *site) refused(code int, words []string, args ...string) {
	s.t.Helper()
	out, got := s.try(args...)
	if got != code {
		s.t.Errorf("slipway %s: exit code %d, want %d\n%s", strings.Join(args, " "), got, code, out)
	}
	for _, w := range words {
		if !strings.Contains(out, w) {
			s.t.Errorf("slipway %s: the message does not say %q:\n%s", strings.Join(args, " "), w, out)
		}
	}
	if strings.Contains(out, "goroutine ") {
		s.t.Errorf("slipway %s panicked:\n%s", strings.Join(args, " "), out)
	}
}

// edited writes a changed copy of a configuration.
func (s *site) edited(conf, name string, change func(string) string) string {
	s.t.Helper()
	data, err := os.ReadFile(conf)
	must(s.t, err)
	path := filepath.Join(s.dir, name)
	must(s.t, os.WriteFile(path, []byte(change(string(data))), 0o600))
	return path
}

// TestRefusals: what is wrong with a configuration, a key or a place is said before anything starts.
func TestRefusals(t *testing.T) {
	s := newSite(t, siteOptions{})
	replace := func(old, new string) func(string) string {
		return func(text string) string {
			if !strings.Contains(text, old) {
				t.Fatalf("the configuration has no %q", old)
			}
			return strings.Replace(text, old, new, 1)
		}
	}
	bad := s.edited(s.config, "misspelt.yml", func(c string) string {
		return replace("recipients:", "recipient:")(c) + "\nsettel: 1s\nmax_age: soon\n"
	})
	s.refused(2, []string{bad, "recipient", "settel", "settle", "max_age"}, "config", "check", "-c", bad)
	s.refused(2, []string{bad, "settel"}, "mount", "-c", bad)

	missing := s.edited(s.config, "missing.yml", replace("source: "+s.source, "source: "+s.source+"-missing"))
	s.refused(2, []string{s.source + "-missing"}, "mount", "-c", missing)
	file := filepath.Join(s.dir, "a file")
	must(t, os.WriteFile(file, nil, 0o644))
	isFile := s.edited(s.config, "file.yml", replace("source: "+s.source, "source: \""+file+"\""))
	s.refused(2, []string{file}, "mount", "-c", isFile)

	must(t, os.WriteFile(filepath.Join(s.mount, "in the way"), nil, 0o644))
	s.refused(2, []string{s.mount, "in the way"}, "mount", "-c", s.config)
	must(t, os.Remove(filepath.Join(s.mount, "in the way")))

	nodeKey := filepath.Join(s.dir, "state", "node.key")
	must(t, os.Chmod(nodeKey, 0o644))
	s.refused(2, []string{nodeKey, "chmod 600"}, "mount", "-c", s.config)
	must(t, os.Chmod(nodeKey, 0o600))
	good, err := os.ReadFile(nodeKey)
	must(t, err)
	must(t, os.WriteFile(nodeKey, []byte("garbage\n"), 0o600))
	s.refused(2, []string{nodeKey}, "mount", "-c", s.config)
	must(t, os.WriteFile(nodeKey, good, 0o600))
	must(t, os.Chmod(s.ident, 0o644))
	s.refused(2, []string{s.ident, "chmod 600"}, "restore", "--from", s.hosts["vault1"].url(), "--identity", s.ident,
		"--ssh-key", s.key, "--known-hosts", s.known, "--target", filepath.Join(s.dir, "out"))
	must(t, os.Chmod(s.ident, 0o600))

	s.refused(1, []string{"vault1"}, "restore", "--from", s.hosts["vault1"].url(), "--identity", s.ident,
		"--ssh-key", s.key, "--known-hosts", s.known, "--target", filepath.Join(s.dir, "out"))
}

// TestSecondMount: the volume is mounted already.
func TestSecondMount(t *testing.T) {
	s := newSite(t, siteOptions{inPlace: true})
	s.startPrimary()
	s.refused(5, nil, "mount", "-c", s.config)
	must(t, os.WriteFile(filepath.Join(s.mount, "file"), []byte("still mounted"), 0o644))
}

// TestCacheDown: applications do not notice that no store is there; everything drains by itself when it comes back.
func TestCacheDown(t *testing.T) {
	s := newSite(t, siteOptions{inPlace: true})
	away := s.hosts["cache1"].data + ".away"
	s.start()
	s.wait("stored")

	// The disk of the cache is gone: an empty file lies where its directory was.
	must(t, os.Rename(s.hosts["cache1"].data, away))
	must(t, os.WriteFile(s.hosts["cache1"].data, nil, 0o600))
	began := time.Now()
	for i := range 50 {
		must(t, os.WriteFile(filepath.Join(s.mount, "f"+string(rune('a'+i%26))), bytes.Repeat([]byte{byte(i)}, 10_000), 0o644))
	}
	if d := time.Since(began); d > 3*time.Second*busy {
		t.Errorf("50 writes took %v with the cache down", d)
	}
	s.wait("sealed")
	s.refused(124, nil, "wait", s.mount, "--stage", "cached", "--timeout", "1s", "-c", s.config)
	s.eventually(10*time.Second, "status to say that the cache is down", func() error {
		out, _ := s.try("status", "-c", s.config)
		if !strings.Contains(out, "cache1") || !strings.Contains(out, "down") {
			return errors.New(out)
		}
		return nil
	})
	must(t, os.Remove(s.hosts["cache1"].data))
	must(t, os.Rename(away, s.hosts["cache1"].data))
	s.wait("stored")
	equal(t, "restored", snapshot(t, s.mount), snapshot(t, s.restore("vault1")))
}

// TestHostKeyChanged: somebody else answers at the cache's address. Nothing is sent, and status says what to do.
func TestHostKeyChanged(t *testing.T) {
	s := newSite(t, siteOptions{inPlace: true})
	key, err := os.ReadFile(s.hosts["vault1"].srv.KnownHosts)
	must(t, err)
	pinned, err := os.ReadFile(s.known)
	must(t, err)
	wrong := strings.Fields(string(key))[2]
	lines := strings.Split(string(pinned), "\n")
	right := strings.Fields(lines[0])[2]
	must(t, os.WriteFile(s.known, []byte(strings.Replace(string(pinned), right, wrong, 1)), 0o644))
	s.start()
	must(t, os.WriteFile(filepath.Join(s.mount, "secret"), []byte("not for strangers"), 0o644))
	s.wait("sealed")
	s.eventually(10*time.Second, "status to say that the host key is not the pinned one", func() error {
		out, _ := s.try("status", "-c", s.config)
		if !strings.Contains(out, "host key") || !strings.Contains(out, "known_hosts") {
			return errors.New(out)
		}
		return nil
	})
	if names, _ := os.ReadDir(s.hosts["cache1"].data); len(names) > 0 {
		t.Errorf("something was sent to a host with another key: %v", names)
	}
}

// TestFullAndReadOnlyCache: the cache's disk fills up, then turns read-only. Applications go on; what is pushed is whole.
func TestFullAndReadOnlyCache(t *testing.T) {
	r := random(t)
	s := newSite(t, siteOptions{inPlace: true})
	data := s.hosts["cache1"].data
	must(t, unix.Mount("slipway-test", data, "tmpfs", 0, "size=6m"))
	t.Cleanup(func() { _ = unix.Unmount(data, unix.MNT_DETACH) })
	s.start()
	s.wait("cached")
	must(t, os.WriteFile(filepath.Join(s.mount, "big"), noise(r, 20<<20), 0o644))
	s.wait("sealed")
	said := func(word string) {
		t.Helper()
		s.eventually(20*time.Second, "status to say "+word, func() error {
			out, _ := s.try("status", "-c", s.config)
			if !strings.Contains(out, word) {
				return errors.New(out)
			}
			return nil
		})
	}
	said("full")
	must(t, os.WriteFile(filepath.Join(s.mount, "small"), []byte("goes on"), 0o644))
	s.eventually(20*time.Second, "a moment in which nobody writes to the cache's disk", func() error {
		return unix.Mount("", data, "", unix.MS_REMOUNT|unix.MS_RDONLY, "size=100m")
	})
	said("read-only")
	must(t, unix.Mount("", data, "", unix.MS_REMOUNT, "size=100m"))
	s.wait("stored")
	equal(t, "restored", snapshot(t, s.mount), snapshot(t, s.restore("vault1")))
}

// TestDamage flips or cuts what lies on disk while nothing runs. Each time the next start says so, loses nothing and goes on.
func TestDamage(t *testing.T) {
	flip := func(t *testing.T, path string, at int64) {
		t.Helper()
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		must(t, err)
		defer func() { must(t, f.Close()) }()
		b := []byte{0}
		_, err = f.ReadAt(b, at)
		must(t, err)
		b[0] ^= 0x40
		_, err = f.WriteAt(b, at)
		must(t, err)
	}
	newest := func(t *testing.T, pattern string) string {
		t.Helper()
		found, err := filepath.Glob(pattern)
		must(t, err)
		if len(found) == 0 {
			t.Fatalf("nothing matches %s", pattern)
		}
		return found[len(found)-1]
	}
	for name, damage := range map[string]func(t *testing.T, s *site){
		"journal flipped": func(t *testing.T, s *site) {
			path := newest(t, filepath.Join(s.dir, "state", "journal", "*", "*.journal"))
			info, err := os.Stat(path)
			must(t, err)
			flip(t, path, info.Size()/2)
		},
		"journal cut": func(t *testing.T, s *site) {
			path := newest(t, filepath.Join(s.dir, "state", "journal", "*", "*.journal"))
			info, err := os.Stat(path)
			must(t, err)
			must(t, os.Truncate(path, info.Size()-5))
		},
		"journal gone": func(t *testing.T, s *site) { must(t, os.RemoveAll(filepath.Join(s.dir, "state", "journal"))) },
		"catalog flipped": func(t *testing.T, s *site) { // in both of bbolt's meta pages: one alone it survives
			for _, at := range []int64{20, int64(os.Getpagesize()) + 20} {
				flip(t, filepath.Join(s.dir, "state", "catalog.db"), at)
			}
		},
		"catalog cut":  func(t *testing.T, s *site) { must(t, os.Truncate(filepath.Join(s.dir, "state", "catalog.db"), 5000)) },
		"catalog gone": func(t *testing.T, s *site) { must(t, os.Remove(filepath.Join(s.dir, "state", "catalog.db"))) },
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, siteOptions{inPlace: true})
			s.start()
			must(t, os.Mkdir(filepath.Join(s.mount, "d"), 0o755))
			must(t, os.WriteFile(filepath.Join(s.mount, "d", "before"), []byte("before"), 0o644))
			s.wait("stored")
			// The spooler is dead while more is written, so that the journal holds what nobody has sealed.
			s.child("spooler")
			must(t, s.primary.cmd.Process.Signal(syscall.SIGSTOP))
			for _, pid := range s.child("spooler") {
				must(t, syscall.Kill(pid, syscall.SIGKILL))
			}
			must(t, os.WriteFile(filepath.Join(s.mount, "d", "after"), []byte("after"), 0o644))
			must(t, os.Rename(filepath.Join(s.mount, "d"), filepath.Join(s.mount, "renamed")))
			must(t, syscall.Kill(-s.primary.cmd.Process.Pid, syscall.SIGKILL))
			<-s.primary.done
			damage(t, s)
			s.startPrimary()
			s.wait("stored")
			// A damaged catalog ends the epoch; a damaged journal is a gap, which every start of the mount is anyway.
			want := 1.0
			if strings.HasPrefix(name, "catalog") {
				want = 2
			}
			if got := s.jsonLines("status", "-c", s.config)[0]["epoch"]; got != want {
				t.Errorf("epoch %v after the damage, want %v", got, want)
			}
			equal(t, "restored", snapshot(t, s.mount), snapshot(t, s.restore("vault1")))
		})
	}
}

// TestFlippedShardAtBackup: verify finds it, and a restore takes that piece from the other host.
func TestFlippedShardAtBackup(t *testing.T) {
	s := newSite(t, siteOptions{inPlace: true})
	s.start()
	must(t, os.WriteFile(filepath.Join(s.mount, "file"), bytes.Repeat([]byte("content "), 10_000), 0o644))
	s.wait("stored")
	want := snapshot(t, s.mount)
	shards, err := filepath.Glob(filepath.Join(s.hosts["vault1"].data, "projects", "shards", "*", "*.shard"))
	must(t, err)
	if len(shards) == 0 {
		t.Fatal("vault1 has no shard")
	}
	for _, path := range shards {
		data, err := os.ReadFile(path)
		must(t, err)
		data[len(data)/2] ^= 1
		must(t, os.Chmod(path, 0o600))
		must(t, os.WriteFile(path, data, 0o600))
	}
	s.refused(4, []string{filepath.Base(shards[0])}, "verify", "--from", s.hosts["vault1"].url(), "--identity", s.ident,
		"--read-data", "--ssh-key", s.key, "--known-hosts", s.known)
	s.refused(3, []string{"file"}, "restore", "--from", s.hosts["vault1"].url(), "--identity", s.ident,
		"--ssh-key", s.key, "--known-hosts", s.known, "--target", filepath.Join(t.TempDir(), "out"))
	equal(t, "restored from both", want, snapshot(t, s.restore("vault1", "--from", s.hosts["vault2"].url())))
}

// TestNewerAndCutBatch: the newest batch of a store is cut, or of a newer format. What is before it is shown, with a word and exit
// code 3: a smaller tree must not pass for the newest.
func TestNewerAndCutBatch(t *testing.T) {
	s := newSite(t, siteOptions{inPlace: true})
	s.start()
	must(t, os.WriteFile(filepath.Join(s.mount, "first"), []byte("1"), 0o644))
	s.wait("stored")
	must(t, os.WriteFile(filepath.Join(s.mount, "second"), []byte("2"), 0o644))
	s.wait("stored")
	s.stopPrimary()
	s.shipper.stop(t)
	batches, err := filepath.Glob(filepath.Join(s.hosts["vault1"].data, "projects", "batches", "*", "*", "*.batch"))
	must(t, err)
	path := batches[len(batches)-1]
	whole, err := os.ReadFile(path)
	must(t, err)
	for what, damaged := range map[string][]byte{
		"cut": whole[:300], "newer": bytes.Replace(whole, []byte("slipway-batch 1\n"), []byte("slipway-batch 2\n"), 1),
	} {
		must(t, os.Chmod(path, 0o600))
		must(t, os.WriteFile(path, damaged, 0o600))
		flags := []string{"--from", s.hosts["vault1"].url(), "--identity", s.ident, "--ssh-key", s.key, "--known-hosts", s.known}
		t.Log(what)
		s.refused(3, []string{"first", filepath.Base(path)}, append([]string{"ls"}, flags...)...)
		s.refused(3, []string{filepath.Base(path)}, append([]string{"restore", "--target", filepath.Join(t.TempDir(), "out")}, flags...)...)
		s.refused(4, []string{filepath.Base(path)}, append([]string{"verify"}, flags...)...)
	}
}

// TestGrowingAndVanishing: a file that grows while it is read, and one that is gone before it is sealed.
func TestGrowingAndVanishing(t *testing.T) {
	s := newSite(t, siteOptions{inPlace: true})
	s.start()
	grow, err := os.Create(filepath.Join(s.mount, "growing"))
	must(t, err)
	for i := range 300 {
		_, err := grow.Write(bytes.Repeat([]byte{byte(i)}, 8<<10))
		must(t, err)
		name := filepath.Join(s.mount, "short lived")
		must(t, os.WriteFile(name, bytes.Repeat([]byte{byte(i)}, 100_000), 0o644))
		must(t, os.Remove(name))
	}
	must(t, grow.Close())
	s.wait("stored")
	equal(t, "restored", snapshot(t, s.mount), snapshot(t, s.restore("vault1")))
}

// TestStandardTools reads a store back with sha256sum, ssh-keygen, age, zstd and jq alone.
func TestStandardTools(t *testing.T) {
	s := newSite(t, siteOptions{inPlace: true})
	s.start()
	must(t, os.WriteFile(filepath.Join(s.mount, "known"), []byte("known content, read back by hand\n"), 0o644))
	s.wait("stored")
	script := filepath.Join(s.dir, "by-hand.sh")
	must(t, os.WriteFile(script, []byte(byHand), 0o755))
	out, err := exec.Command("bash", script, filepath.Join(s.hosts["vault1"].data, "projects"), s.ident,
		filepath.Join(s.dir, "state", "node.key.pub"), s.dir).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{"Good \"slipway-batch\" signature", "known content, read back by hand", `"known"`} {
		if !strings.Contains(string(out), want) {
			t.Errorf("%q is not in what the tools print:\n%s", want, out)
		}
	}
}

// byHand is what docs/format.md tells a reader with nothing but standard tools.
const byHand = `set -euo pipefail
store=$1 identity=$2 ownerkey=$3 tmp=$4
cd "$store"
for s in shards/*/*.shard; do
  name=$(basename "$s" .shard)
  [ "$(sha256sum <"$s" | cut -d' ' -f1)" = "$name" ]
  age -d -i "$identity" "$s" | zstd -dc
done
echo "alpha $(cut -d' ' -f1,2 "$ownerkey")" >"$tmp/allowed"
for b in batches/*/*/*.batch; do
  [ "$(sed -n 1p "$b")" = "slipway-batch 1" ]
  sed -n 2p "$b" >"$tmp/envelope"
  jq -e .volume "$tmp/envelope"
  sed -n '/^-----BEGIN SSH SIGNATURE-----$/,/^-----END SSH SIGNATURE-----$/p;/^-----END SSH SIGNATURE-----$/q' "$b" >"$tmp/signature"
  ssh-keygen -Y verify -f "$tmp/allowed" -I alpha -n slipway-batch -s "$tmp/signature" <"$tmp/envelope"
  size=$(jq .body_size "$tmp/envelope")
  tail -c "$size" "$b" | age -d -i "$identity" | zstd -dc | jq -c .
done
`

// TestCap: the cache is away while more is written than the node's own store may hold. The cap holds, no write fails, and
// everything drains when the cache is back.
func TestCap(t *testing.T) {
	const limit = 64 << 20
	r := random(t)
	s := newSite(t, siteOptions{inPlace: true, primary: "spool: {cap: 64MiB}"})
	away := s.hosts["cache1"].data + ".away"
	must(t, os.Rename(s.hosts["cache1"].data, away))
	must(t, os.WriteFile(s.hosts["cache1"].data, nil, 0o600))
	s.startPrimary()
	own := filepath.Join(s.dir, "state", "spool")
	s.eventually(20*time.Second, "the spooler to make its store", func() error { _, err := os.Stat(own); return err })
	var highest int64
	for i := range 60 {
		must(t, os.WriteFile(filepath.Join(s.mount, "f"+string(rune('A'+i))), noise(r, 2<<20), 0o644))
		_, size := measure(t, own)
		highest = max(highest, size)
	}
	s.eventually(20*time.Second, "status to say that the cap is reached", func() error {
		_, size := measure(t, own)
		highest = max(highest, size)
		out, _ := s.try("status", "-c", s.config)
		if !strings.Contains(out, "cap") {
			return errors.New(out)
		}
		return nil
	})
	if highest > limit {
		t.Errorf("the own store grew to %d bytes, its cap is %d", highest, limit)
	}
	must(t, os.Remove(s.hosts["cache1"].data))
	must(t, os.Rename(away, s.hosts["cache1"].data))
	s.startShipper()
	s.wait("stored")
	if _, size := measure(t, own); size > limit {
		t.Errorf("the own store holds %d bytes, its cap is %d", size, limit)
	}
	t.Logf("own store: %d MiB at most, cap %d MiB", highest>>20, limit>>20)
	equal(t, "restored", snapshot(t, s.mount), snapshot(t, s.restore("vault1")))
}
