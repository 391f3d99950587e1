package initialise

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"slipway/internal/config"
	"slipway/internal/keys"
	"slipway/internal/state"
)

func options(t *testing.T) Options {
	t.Helper()
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	return Options{
		Config: at("etc/slipway.yml"), Volume: "projects", Node: "alpha", Source: at("src"), Mount: at("src"), State: at("state"),
		Identity: at("identity"), Cache: config.Store{Name: "cache1", URL: at("cache")},
	}
}

func TestInit(t *testing.T) {
	o := options(t)
	r, err := Init(o)
	if err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(o.Config)
	if err != nil {
		t.Fatal(err)
	}
	if p := c.Primary; p.Volume != "projects" || p.Node != "alpha" || p.Recipients[0] != r.Recipient || p.Cache != o.Cache {
		t.Errorf("%+v", p)
	}
	id, err := keys.LoadIdentity(o.Identity)
	if err != nil || id.Identities[0].(*age.X25519Identity).Recipient().String() != r.Recipient {
		t.Errorf("identity %v, %v", id, err)
	}
	signer, err := keys.LoadNodeKey(state.Dir(o.State).NodeKey())
	if err != nil || !cmp.Equal(id.Owners, map[string][]string{"alpha": {keys.PublicLine(signer)}}) {
		t.Errorf("owners %v, %v", id.Owners, err)
	}
	if _, err := keys.LoadSecret(state.Dir(o.State).Secret()); err != nil {
		t.Error(err)
	}
	v, err := state.Dir(o.State).ReadVolume()
	if err != nil || v.Name != "projects" || v.ID.String() != r.VolumeID {
		t.Errorf("%+v %v", v, err)
	}
	for path, mode := range map[string]os.FileMode{o.State: 0o700, o.Identity: 0o600, o.Config: 0o640, state.Dir(o.State).Secret(): 0o600} {
		if st, err := os.Stat(path); err != nil || st.Mode().Perm() != mode {
			t.Errorf("%s: %v %v, want %v", path, st.Mode(), err, mode)
		}
	}
}

// TestAgainAfterCrash: whatever was made before the configuration is kept, so that a volume's id, secret and key never change.
func TestAgainAfterCrash(t *testing.T) {
	o := options(t)
	first, err := Init(o)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := keys.LoadSecret(state.Dir(o.State).Secret())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Init(o); !errors.Is(err, ErrExists) {
		t.Fatalf("over an existing configuration: %v", err)
	}
	remove(t, o.Config)
	if _, err := Init(o); !errors.Is(err, ErrExists) {
		t.Fatalf("over an existing identity: %v", err)
	}
	for _, lost := range []string{o.Identity, state.Dir(o.State).Secret()} {
		_ = os.Remove(o.Config)
		_ = os.Remove(o.Identity)
		if lost != o.Identity { // died between secret and volume.json
			remove(t, filepath.Join(o.State, "volume.json"))
		}
		again, err := Init(o)
		if err != nil {
			t.Fatal(err)
		}
		same, err := keys.LoadSecret(state.Dir(o.State).Secret())
		if err != nil || same != secret || again.PublicKey != first.PublicKey {
			t.Errorf("secret or key changed: %v", err)
		}
		if lost == o.Identity && again.VolumeID != first.VolumeID {
			t.Errorf("volume id %s became %s", first.VolumeID, again.VolumeID)
		}
	}
	// A volume without its secret cannot be taken up again.
	remove(t, o.Config)
	remove(t, o.Identity)
	remove(t, state.Dir(o.State).Secret())
	if _, err := Init(o); err == nil {
		t.Error("a new secret was made for an old volume")
	}
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

func TestOtherVolumesState(t *testing.T) {
	o := options(t)
	if _, err := Init(o); err != nil {
		t.Fatal(err)
	}
	o.Config, o.Identity, o.Volume = o.Config+"2", o.Identity+"2", "other"
	if _, err := Init(o); err == nil || !strings.Contains(err.Error(), `belongs to volume "projects"`) {
		t.Error(err)
	}
	if _, err := os.Stat(o.Identity); err == nil {
		t.Error("an identity was made all the same")
	}
}

// TestFaultsComeFirst: what the configuration's rules refuse leaves nothing behind.
func TestFaultsComeFirst(t *testing.T) {
	o := options(t)
	o.Mount = filepath.Join(o.Source, "below")
	var faults *config.Faults
	if _, err := Init(o); !errors.As(err, &faults) {
		t.Fatal(err)
	}
	if list, err := os.ReadDir(filepath.Dir(o.State)); err != nil || len(list) != 0 {
		t.Errorf("%v %v", list, err)
	}
}

func TestAdvice(t *testing.T) {
	o := options(t)
	o.Cache.URL = "sftp://slipway-projects@cache1/data"
	r, err := Init(o)
	if err != nil {
		t.Fatal(err)
	}
	all := strings.Join(append(r.Next, r.Warnings...), "\n")
	for _, want := range []string{
		"safe place away from this machine", "ssh-keygen -t ed25519 -N '' -f " + filepath.Dir(o.Config) + "/keys/ssh",
		"pin the stores' host keys in " + filepath.Dir(o.Config) + "/known_hosts", "owners: {projects: [\"ssh-ed25519 ", "one recipient only", "is not a directory yet",
	} {
		if !strings.Contains(all, want) {
			t.Errorf("no %q in:\n%s", want, all)
		}
	}
}

// TestYAMLReadsBack: whatever names and paths are given, the configuration written says the same when it is read.
func TestYAMLReadsBack(t *testing.T) {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	name := rapid.StringMatching(`[A-Za-z0-9][A-Za-z0-9._-]{0,20}|true|null|on|1e3|0x10|-?`)
	part := rapid.StringMatching("[a-zA-Z0-9 #:'\"{}&*!|>%@`,ü\\[\\]-]{1,12}")
	rapid.Check(t, func(t *rapid.T) {
		path := func(label string) string { return "/" + label + "/x" + part.Draw(t, label) + "x" }
		o := Options{
			Config: "/c.yml", Volume: name.Draw(t, "volume"), Node: name.Draw(t, "node"), Source: path("src"), Mount: path("mnt"), State: path("state"),
			Cache: config.Store{Name: "c-" + name.Draw(t, "cache"), URL: path("cache")}, Backups: []config.Store{{Name: "b", URL: path("backup")}},
			SSHKey: path("key"), KnownHosts: path("hosts"),
		}
		c, err := config.Parse("/c.yml", o.yaml(id.Recipient().String()))
		var faults *config.Faults
		if errors.As(err, &faults) {
			for _, f := range faults.Found {
				if !strings.Contains(f.Message, "is not a name") { // the name itself, refused as it was given
					t.Fatalf("%v\n%s", err, o.yaml("R"))
				}
			}
			return
		}
		p := c.Primary
		got := []string{p.Volume, p.Node, p.Source, p.Mount, p.State, p.Cache.Name, p.Cache.URL, p.Backups[0].URL, p.SSH.Key, p.SSH.KnownHosts}
		want := []string{o.Volume, o.Node, o.Source, o.Mount, o.State, o.Cache.Name, o.Cache.URL, o.Backups[0].URL, o.SSHKey, o.KnownHosts}
		if d := cmp.Diff(want, got); d != "" {
			t.Fatal(d)
		}
	})
}

func TestIdentity(t *testing.T) {
	o := options(t)
	if _, err := Init(o); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "second")
	recipient, err := Identity(path, &config.Primary{Node: "alpha", State: o.State})
	if err != nil {
		t.Fatal(err)
	}
	id, err := keys.LoadIdentity(path)
	if err != nil || len(id.Owners["alpha"]) != 1 || id.Identities[0].(*age.X25519Identity).Recipient().String() != recipient {
		t.Errorf("%+v %v", id, err)
	}
	if _, err := Identity(path, nil); err == nil {
		t.Error("an identity was written over")
	}
	bare := filepath.Join(t.TempDir(), "third")
	if _, err := Identity(bare, nil); err != nil {
		t.Fatal(err)
	}
	if id, err := keys.LoadIdentity(bare); err != nil || len(id.Owners) != 0 || len(id.Identities) != 1 {
		t.Errorf("%+v %v", id, err)
	}
}
