package keys

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
)

const (
	ownerA = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIqI4910CfGV/VLbLTy6XXLKZwm/HZQSG/N0iAG0D29c"
	ownerB = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIE5dw6ofRdfVqNUZsNMfszLjYqRtO43ol32D1uPybOU"
)

func mode(t *testing.T, path string) fs.FileMode {
	t.Helper()
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return st.Mode().Perm()
}

func write(t *testing.T, path, text string, mode fs.FileMode) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func run(t *testing.T, stdin string, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %v: %v (run make deps)", name, args, err)
	}
	return string(out)
}

func mustRead(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestNodeKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "node.key")
	if err := NewNodeKey(path, "alpha"); err != nil {
		t.Fatal(err)
	}
	signer, err := LoadNodeKey(path)
	if err != nil {
		t.Fatal(err)
	}
	if mode(t, path) != 0o600 || mode(t, path+".pub") != 0o644 {
		t.Errorf("modes %o and %o", mode(t, path), mode(t, path+".pub"))
	}
	line := PublicLine(signer)
	if want := line + " alpha\n"; mustRead(t, path+".pub") != want || !strings.HasPrefix(line, "ssh-ed25519 AAAA") {
		t.Errorf("public key %q, not %q", mustRead(t, path+".pub"), want)
	}
	if got := run(t, "", "ssh-keygen", "-y", "-f", path); got != line+" alpha\n" {
		t.Errorf("ssh-keygen reads %q", got)
	}
	before := mustRead(t, path)
	if err := NewNodeKey(path, "alpha"); !errors.Is(err, fs.ErrExist) || mustRead(t, path) != before {
		t.Errorf("a second key over the first: %v", err)
	}
	if err := os.Remove(path + ".pub"); err != nil {
		t.Fatal(err)
	}
	if err := NewNodeKey(path, "alpha"); !errors.Is(err, fs.ErrExist) || mustRead(t, path) != before {
		t.Errorf("a second key over one without .pub: %v", err)
	}
	other := filepath.Join(t.TempDir(), "node.key")
	write(t, other+".pub", "somebody's", 0o644)
	if err := NewNodeKey(other, "alpha"); !errors.Is(err, fs.ErrExist) || mustRead(t, other+".pub") != "somebody's" {
		t.Errorf("a key beside somebody's public one: %v", err)
	}
	if _, err := os.Lstat(other); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the private key was made all the same: %v", err)
	}
}

func TestOtherNodeKeys(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	run(t, "", "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", at("good"))
	run(t, "", "ssh-keygen", "-q", "-t", "ed25519", "-N", "passphrase", "-f", at("locked"))
	run(t, "", "ssh-keygen", "-q", "-t", "ecdsa", "-N", "", "-f", at("ecdsa"))
	write(t, at("text"), "hello", 0o600)
	write(t, at("empty"), "", 0o600)
	write(t, at("public"), ownerA, 0o600)
	if _, err := LoadNodeKey(at("good")); err != nil {
		t.Errorf("a key of ssh-keygen's: %v", err)
	}
	for _, name := range []string{"locked", "ecdsa", "text", "empty", "public"} {
		if _, err := LoadNodeKey(at(name)); !errors.Is(err, errKeyType) || !strings.Contains(err.Error(), at(name)) {
			t.Errorf("%s: %v", name, err)
		}
	}
	var locked *ssh.PassphraseMissingError
	if _, err := LoadNodeKey(at("locked")); !errors.As(err, &locked) {
		t.Errorf("a key with a passphrase: %v", err)
	}
}

func TestSecret(t *testing.T) {
	path := filepath.Join(t.TempDir(), "volume.secret")
	made, err := NewSecret(path)
	if err != nil {
		t.Fatal(err)
	}
	if read, err := LoadSecret(path); err != nil || read != made || mode(t, path) != 0o600 {
		t.Errorf("mode %o, %v", mode(t, path), err)
	}
	if _, err := NewSecret(path); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second secret over the first: %v", err)
	}
	text := mustRead(t, path)
	for _, bad := range []string{"", text[:40], text + "x", strings.TrimSuffix(text, "\n"), strings.Replace(text, " 1\n", " 2\n", 1), strings.Repeat("z", len(text)), text[:len(text)-2] + "g\n", text[17:]} {
		if s, err := LoadSecret(write(t, path, bad, 0o600)); !errors.Is(err, errSecret) || s != ([32]byte{}) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestEnsureNodeKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "node.key")
	first, err := EnsureNodeKey(path, "bravo")
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", st, err)
	}
	again, err := EnsureNodeKey(path, "bravo")
	if err != nil || PublicLine(again) != PublicLine(first) {
		t.Errorf("another key the second time: %v", err)
	}
	if err := os.WriteFile(path, []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := EnsureNodeKey(path, "bravo"); err == nil {
		t.Error("a damaged key was passed over")
	}
	if data, err := os.ReadFile(path); err != nil || string(data) != "damaged" {
		t.Errorf("it was written over: %q %v", data, err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := EnsureNodeKey(path, "bravo"); err == nil {
		t.Error("a key was made beside the public half of one that is gone")
	}
}
