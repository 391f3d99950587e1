package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"slipway/internal/batch"
	"slipway/internal/keys"
	"slipway/internal/state"
)

// node makes everything that a primary's configuration names on this machine.
func node(t *testing.T) (c *Config, dir string) {
	t.Helper()
	dir = t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, name := range []string{"src", "mnt", "state"} {
		if err := os.Mkdir(at(name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	_, err := keys.NewSecret(state.Dir(at("state")).Secret())
	err = errors.Join(err, keys.NewNodeKey(state.Dir(at("state")).NodeKey(), "alpha"),
		state.Dir(at("state")).WriteVolume(state.Volume{Name: "projects", ID: batch.NewVolumeID()}),
		os.WriteFile(at("ssh"), []byte("key"), 0o600), os.WriteFile(at("known_hosts"), nil, 0o600))
	if err != nil {
		t.Fatal(err)
	}
	c, err = Parse("p.yml", fmt.Appendf(nil, "volume: projects\nnode: alpha\nsource: %[1]s/src\nmount: %[1]s/mnt\nstate: %[1]s/state\n"+
		"recipients: ["+recipient+"]\ncache: {url: \"sftp://a@cache1/data\"}\nssh: {key: %[1]s/ssh, known_hosts: %[1]s/known_hosts}\n", dir))
	if err != nil {
		t.Fatal(err)
	}
	return c, dir
}

func TestCheck(t *testing.T) {
	c, _ := node(t)
	if err := errors.Join(c.Check(), c.CheckKeys()); err != nil {
		t.Error(err)
	}
}

// TestCheckFinds spoils one thing on the machine each.
func TestCheckFinds(t *testing.T) {
	for name, tt := range map[string]struct {
		spoil func(at func(string) string) error
		want  string
		keys  bool // found by CheckKeys too
	}{
		"no source":        {func(at func(string) string) error { return os.Remove(at("src")) }, "p.yml:3:9: source: stat ", false},
		"source is a file": {func(at func(string) string) error { return refile(at("src")) }, "is not a directory", false},
		"no mount point":   {func(at func(string) string) error { return os.Remove(at("mnt")) }, "fix: make it: mkdir ", false},
		"no key":           {func(at func(string) string) error { return os.Remove(at("ssh")) }, "p.yml:8:12: ssh.key: ", true},
		"key for all":      {func(at func(string) string) error { return os.Chmod(at("ssh"), 0o644) }, "fix: chmod 600 ", true},
		"key is a directory": {func(at func(string) string) error {
			return errors.Join(os.Remove(at("ssh")), os.Mkdir(at("ssh"), 0o700))
		}, "ssh.key: ", true},
		"no pins":        {func(at func(string) string) error { return os.Remove(at("known_hosts")) }, "ssh-keyscan", true},
		"no volume":      {func(at func(string) string) error { return os.Remove(at("state/volume.json")) }, "fix: run `slipway init`", true},
		"no secret":      {func(at func(string) string) error { return os.Remove(at("state/volume.secret")) }, "cannot go on without it", true},
		"no node key":    {func(at func(string) string) error { return os.Remove(at("state/node.key")) }, "cannot go on without it", true},
		"secret for all": {func(at func(string) string) error { return os.Chmod(at("state/volume.secret"), 0o640) }, "fix: chmod 600 ", true},
		"odd secret":     {func(at func(string) string) error { return os.WriteFile(at("state/volume.secret"), []byte("x"), 0o600) }, "nothing can be sealed without it", true},
		"odd node key":   {func(at func(string) string) error { return os.WriteFile(at("state/node.key"), []byte("x"), 0o600) }, "batches cannot be signed without it", true},
		"other volume": {func(at func(string) string) error {
			return errors.Join(os.Remove(at("state/volume.json")), state.Dir(at("state")).WriteVolume(state.Volume{Name: "other"}))
		}, `belongs to volume "other"`, true},
	} {
		t.Run(name, func(t *testing.T) {
			c, dir := node(t)
			if err := tt.spoil(func(name string) string { return filepath.Join(dir, name) }); err != nil {
				t.Fatal(err)
			}
			err := c.Check()
			var faults *Faults
			if !errors.As(err, &faults) || len(faults.Found) != 1 || !strings.Contains(err.Error(), tt.want) || faults.Found[0].Line == 0 {
				t.Errorf("want %q in: %v", tt.want, err)
			}
			if err := c.CheckKeys(); (err != nil) != tt.keys {
				t.Errorf("CheckKeys: %v", err)
			}
		})
	}
}

// TestCheckDeadMount: a mount whose process died is replaced by `slipway mount`, so that it is no fault of the configuration.
func TestCheckDeadMount(t *testing.T) {
	c, dir := node(t)
	dev, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	mnt := filepath.Join(dir, "mnt")
	if err := unix.Mount("test", mnt, "fuse", unix.MS_NODEV|unix.MS_NOSUID, fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", dev.Fd())); err != nil {
		t.Fatal(errors.Join(err, dev.Close()))
	}
	t.Cleanup(func() { _ = unix.Unmount(mnt, unix.MNT_DETACH) })
	if err := dev.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(mnt); !errors.Is(err, unix.ENOTCONN) {
		t.Fatal(err)
	}
	if err := c.Check(); err != nil {
		t.Error(err)
	}
}

// TestCheckPeerConfig: the file of the peer beside the mount is a peer's, and has no faults.
func TestCheckPeerConfig(t *testing.T) {
	for text, want := range map[string]string{
		peerYAML: "", cacheYAML: "is the configuration of a cache host", "node: bravo\nzebra: 1\npeer: {}\n": "is missing", "": "no such file",
	} {
		c, dir := node(t)
		c.Primary.PeerConfig = filepath.Join(dir, "peer.yml")
		if text != "" {
			if err := os.WriteFile(c.Primary.PeerConfig, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		err := c.Check()
		if (err == nil) != (want == "") || err != nil && (!strings.Contains(err.Error(), "peer_config: "+c.Primary.PeerConfig) || !strings.Contains(err.Error(), want)) {
			t.Errorf("%.20q: want %q in: %v", text, want, err)
		}
		if err := c.CheckKeys(); err != nil {
			t.Errorf("the volume is not mounted: %v", err)
		}
	}
}

// TestCheckReceiver: its store is looked at, as a cache host's.
func TestCheckReceiver(t *testing.T) {
	dir := t.TempDir()
	c, err := Parse("r.yml", fmt.Appendf(nil, "node: vault1\nstore: %[1]s/store\nstate: %[1]s/state\nowners: {projects: [\"%[2]s\"]}\nreceive: {}\n", dir, publicKey))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Check(); err == nil || !strings.Contains(err.Error(), "r.yml:2:8: store: ") {
		t.Error(err)
	}
	if err := os.Mkdir(dir+"/store", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := c.Check(); err != nil {
		t.Error(err)
	}
}

// TestCheckPins: without known_hosts one of the default files must be there.
func TestCheckPins(t *testing.T) {
	dir := t.TempDir()
	if err := errors.Join(os.Mkdir(dir+"/store", 0o700), os.WriteFile(dir+"/ssh", []byte("key"), 0o600)); err != nil {
		t.Fatal(err)
	}
	c, err := Parse("c.yml", fmt.Appendf(nil, "node: cache1\nstore: %[1]s/store\nstate: %[1]s/state\nship: {}\nssh: {key: %[1]s/ssh}\n", dir))
	if err != nil {
		t.Fatal(err)
	}
	pinned := false
	for _, f := range []string{"/etc/slipway/known_hosts", "/etc/ssh/ssh_known_hosts"} {
		if _, err := os.Stat(f); err == nil {
			pinned = true
		}
	}
	if err := c.Check(); pinned && err != nil || !pinned && (err == nil || !strings.Contains(err.Error(), "c.yml:5:6: no file of pinned host keys")) {
		t.Errorf("pinned %v: %v", pinned, err)
	}
}

func refile(path string) error {
	return errors.Join(os.Remove(path), os.WriteFile(path, nil, 0o600))
}

func TestCheckCache(t *testing.T) {
	dir := t.TempDir()
	c, err := Parse("c.yml", fmt.Appendf(nil, "node: cache1\nstore: %s/store\nstate: %s/state\nship: {}\n", dir, dir))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Check(); err == nil || !strings.Contains(err.Error(), "c.yml:2:8: store: ") {
		t.Error(err)
	}
	if err := os.Mkdir(dir+"/store", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := c.Check(); err != nil {
		t.Error(err)
	}
	if c.Cache.Ship.Copies != 0 {
		t.Error("copies are asked for where there is no backup host")
	}
}

// TestCheckPeer spoils the warm tree's directory and identity, one thing each.
func TestCheckPeer(t *testing.T) {
	for name, tt := range map[string]struct {
		spoil func(at func(string) string) error
		want  string // "": no fault
		keys  bool   // found by CheckKeys too
	}{
		"nothing":     {func(func(string) string) error { return nil }, "", false},
		"no warm":     {func(at func(string) string) error { return os.Remove(at("warm")) }, "b.yml:4:36: peer.warm: stat ", false},
		"no identity": {func(at func(string) string) error { return os.Remove(at("identity")) }, "fix: put a copy of an identity there", true},
		"for all":     {func(at func(string) string) error { return os.Chmod(at("identity"), 0o644) }, "fix: chmod 600 ", true},
		"no identity at all": {func(at func(string) string) error {
			return os.WriteFile(at("identity"), []byte("age1nonsense\n"), 0o600)
		}, "fix: name an identity file", true},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			at := func(name string) string { return filepath.Join(dir, name) }
			_, err := keys.NewIdentity(at("identity"), "alpha", publicKey)
			if err := errors.Join(err, os.Mkdir(at("store"), 0o700), os.Mkdir(at("warm"), 0o700), tt.spoil(at)); err != nil {
				t.Fatal(err)
			}
			c, err := Parse("b.yml", fmt.Appendf(nil,
				"node: bravo\nstore: %[1]s/store\nstate: %[1]s/state\npeer: {cache: {url: /cache}, warm: %[1]s/warm, identity: %[1]s/identity}\n", dir))
			if err != nil {
				t.Fatal(err)
			}
			err = c.Check()
			var faults *Faults
			switch {
			case tt.want == "" && err == nil:
			case !errors.As(err, &faults) || len(faults.Found) != 1 || !strings.Contains(err.Error(), tt.want) || faults.Found[0].Line != 4:
				t.Errorf("want %q in: %v", tt.want, err)
			}
			if err := c.CheckKeys(); (err != nil) != tt.keys {
				t.Errorf("CheckKeys: %v", err)
			}
		})
	}
}
