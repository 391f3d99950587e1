package keys

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"
	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"
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

func TestIdentity(t *testing.T) {
	path := filepath.Join(t.TempDir(), "identity.txt")
	recipient, err := NewIdentity(path, "alpha", ownerA+" a comment")
	if err != nil {
		t.Fatal(err)
	}
	if m := mode(t, path); m != 0o600 {
		t.Errorf("mode %o", m)
	}
	id, err := LoadIdentity(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(id.Identities) != 1 || fmt.Sprint(id.Owners) != fmt.Sprint(map[string][]string{"alpha": {ownerA}}) {
		t.Errorf("%d identities, owners %v", len(id.Identities), id.Owners)
	}
	recipients, err := ParseRecipients([]string{recipient})
	if err != nil {
		t.Fatal(err)
	}
	var sealed bytes.Buffer
	w, err := age.Encrypt(&sealed, recipients...)
	if err == nil {
		_, err = io.WriteString(w, "hello")
	}
	if err = errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	// age and age-keygen take the file as it is.
	if got := run(t, sealed.String(), "age", "-d", "-i", path); got != "hello" {
		t.Errorf("age decrypts %q", got)
	}
	if got := run(t, "", "age-keygen", "-y", path); got != recipient+"\n" {
		t.Errorf("age-keygen finds the recipient %q, not %q", got, recipient)
	}
	before, _ := os.ReadFile(path)
	if _, err := NewIdentity(path, "alpha", ownerA); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second identity over the first: %v", err)
	}
	if after, _ := os.ReadFile(path); !bytes.Equal(before, after) {
		t.Error("the first identity has changed")
	}
}

func TestIdentityOfAgeKeygen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "identity.txt")
	run(t, "", "age-keygen", "-o", path)
	id, err := LoadIdentity(path)
	if err != nil || len(id.Identities) != 1 || len(id.Owners) != 0 {
		t.Errorf("%+v: %v", id, err)
	}
}

func TestAddOwner(t *testing.T) {
	path := filepath.Join(t.TempDir(), "identity.txt")
	if _, err := NewIdentity(path, "alpha", ownerA); err != nil {
		t.Fatal(err)
	}
	for _, add := range [][2]string{{"alpha", ownerA}, {"bravo", ownerB}, {"bravo", ownerB + " root@bravo"}, {"alpha", ownerB}, {"bravo", ownerB}} {
		if err := AddOwner(path, add[0], add[1]); err != nil {
			t.Fatal(err)
		}
	}
	id, err := LoadIdentity(path)
	if err != nil || fmt.Sprint(id.Owners) != fmt.Sprint(map[string][]string{"alpha": {ownerA, ownerB}, "bravo": {ownerB}}) {
		t.Errorf("%v: %v", id, err)
	}
	if text, _ := os.ReadFile(path); bytes.Count(text, []byte("# owner")) != 3 || mode(t, path) != 0o600 {
		t.Errorf("mode %o:\n%s", mode(t, path), text)
	}
	unended := write(t, filepath.Join(t.TempDir(), "unended"), strings.TrimSuffix(mustRead(t, path), "\n"), 0o600)
	if err := AddOwner(unended, "charlie", ownerA); err != nil {
		t.Fatal(err)
	}
	if id, err := LoadIdentity(unended); err != nil || len(id.Identities) != 1 || len(id.Owners) != 3 {
		t.Errorf("%v: %v", id, err)
	}
	for _, bad := range [][2]string{{"", ownerA}, {"a b", ownerA}, {"a\nb", ownerA}, {"alpha", ""}, {"alpha", "ssh-ed25519 AAAA"}, {"alpha", ownerA + "\n" + ownerB}} {
		if err := AddOwner(path, bad[0], bad[1]); !errors.Is(err, errNode) && !errors.Is(err, errOwnerKey) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if err := AddOwner(filepath.Join(t.TempDir(), "none"), "alpha", ownerA); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

func mustRead(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestIdentityTexts(t *testing.T) {
	one, _ := age.GenerateX25519Identity()
	two, _ := age.GenerateHybridIdentity()
	for name, c := range map[string]struct {
		text  string
		count int
		want  error
	}{
		"two, with comments":   {"# mine\n" + one.String() + "\n\n#owner is no mark\n# ownership\n" + two.String() + "\n# owner alpha " + ownerA + "\r\n", 2, nil},
		"empty":                {"", 0, errIdentity},
		"comments only":        {"# public key: age1\n", 0, errIdentity},
		"a public key":         {one.Recipient().String() + "\n", 0, errIdentity},
		"cut short":            {one.String()[:40] + "\n", 0, errIdentity},
		"an SSH key":           {"-----BEGIN OPENSSH PRIVATE KEY-----\n", 0, errIdentity},
		"encrypted":            {"age-encryption.org/v1\n-> scrypt\n", 0, errEncrypted},
		"encrypted, armored":   {"-----BEGIN AGE ENCRYPTED FILE-----\n", 0, errEncrypted},
		"owner without key":    {one.String() + "\n# owner alpha\n", 0, errNoOwner},
		"owner with a bad key": {one.String() + "\n# owner alpha ssh-ed25519 AAAA\n", 0, errNoOwner},
		"owner with RSA":       {one.String() + "\n# owner alpha ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAAQA=\n", 0, errNoOwner},
		"owner without node":   {one.String() + "\n# owner  " + ownerA + "\n", 0, errNoOwner},
	} {
		path := write(t, filepath.Join(t.TempDir(), "identity"), c.text, 0o600)
		id, err := LoadIdentity(path)
		if !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil && (len(id.Identities) != c.count || len(id.Owners["alpha"]) != 1) {
			t.Errorf("%s: %d identities, owners %v", name, len(id.Identities), id.Owners)
		}
		if err != nil && (strings.Contains(err.Error(), "AGE-SECRET-KEY") || !strings.Contains(err.Error(), path)) {
			t.Errorf("%s: message %v", name, err)
		}
	}
}

func TestRecipients(t *testing.T) {
	one, _ := age.GenerateX25519Identity()
	two, _ := age.GenerateX25519Identity()
	pq, _ := age.GenerateHybridIdentity()
	good := one.Recipient().String()
	if got, err := ParseRecipients([]string{good, two.Recipient().String()}); err != nil || len(got) != 2 {
		t.Errorf("%d recipients: %v", len(got), err)
	}
	if got, err := ParseRecipients([]string{pq.Recipient().String()}); err != nil || len(got) != 1 {
		t.Errorf("%d post-quantum recipients: %v", len(got), err)
	}
	if got, err := ParseRecipients(nil); err != nil || got != nil {
		t.Errorf("none: %v, %v", got, err)
	}
	if _, err := ParseRecipients([]string{good, pq.Recipient().String()}); err == nil {
		t.Error("a mixture that age refuses is taken")
	}
	for _, bad := range []string{"", "age1", good[:50], good + "\n" + good, "# " + good, ownerA, " " + good, strings.ToUpper(good[:20]) + good[20:]} {
		got, err := ParseRecipients([]string{good, bad})
		if !errors.Is(err, errRecipient) || got != nil || !strings.Contains(err.Error(), fmt.Sprintf("%q", bad)) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	_, err := ParseRecipients([]string{good, one.String()})
	if !errors.Is(err, errRecipient) || strings.Contains(err.Error(), one.String()) || !strings.Contains(err.Error(), "recipient 2") {
		t.Errorf("a secret key among the recipients: %v", err)
	}
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

func TestModes(t *testing.T) {
	path := write(t, filepath.Join(t.TempDir(), "secret"), "text", 0o600)
	if data, err := ReadSecretFile(path); err != nil || string(data) != "text" {
		t.Errorf("%q: %v", data, err)
	}
	for _, m := range []fs.FileMode{0o400, 0o700, 0o000} {
		if err := os.Chmod(path, m); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadSecretFile(path); err != nil {
			t.Errorf("mode %o: %v", m, err)
		}
	}
	for _, m := range []fs.FileMode{0o640, 0o604, 0o660, 0o666, 0o644, 0o610, 0o601} {
		if err := os.Chmod(path, m); err != nil {
			t.Fatal(err)
		}
		_, err := ReadSecretFile(path)
		if !errors.Is(err, ErrMode) || !strings.Contains(err.Error(), "chmod 600 "+path) || !strings.Contains(err.Error(), fmt.Sprintf("%04o", m)) {
			t.Errorf("mode %o: %v", m, err)
		}
		for name, load := range map[string]func(string) error{
			"identity": func(p string) error { _, err := LoadIdentity(p); return err },
			"node key": func(p string) error { _, err := LoadNodeKey(p); return err },
			"secret":   func(p string) error { _, err := LoadSecret(p); return err },
			"owner":    func(p string) error { return AddOwner(p, "alpha", ownerA) },
		} {
			if err := load(path); !errors.Is(err, ErrMode) {
				t.Errorf("%s of mode %o: %v", name, m, err)
			}
		}
	}
	if err := errors.Join(os.Chmod(path, 0o600), os.Chown(path, 12345, 0)); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadSecretFile(path); !errors.Is(err, ErrMode) || !strings.Contains(err.Error(), "12345") {
		t.Errorf("somebody else's: %v", err)
	}
}

func TestNoSecretFiles(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]error{
		fifo: errNotRegular, dir: errNotRegular, filepath.Join(dir, "none"): fs.ErrNotExist, "/dev/null": errNotRegular,
		write(t, filepath.Join(dir, "large"), strings.Repeat("x", maxSecretFile+1), 0o600): errTooLarge,
	} {
		if _, err := ReadSecretFile(path); !errors.Is(err, want) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if data, err := ReadSecretFile(write(t, filepath.Join(dir, "full"), strings.Repeat("x", maxSecretFile), 0o600)); err != nil || len(data) != maxSecretFile {
		t.Errorf("the largest: %v", err)
	}
}

func FuzzIdentity(f *testing.F) {
	id, _ := age.GenerateX25519Identity()
	f.Add([]byte("# created: 2026-11-23T10:00:00Z\n# owner alpha " + ownerA + "\n" + id.String() + "\n"))
	f.Add([]byte("# owner \n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := parseIdentity(data)
		if err != nil {
			return
		}
		if len(got.Identities) == 0 {
			t.Error("no identities and no error")
		}
		for node, list := range got.Owners {
			for _, key := range list {
				if line, err := ownerLine(node, key); err != nil || line != ownerMark+node+" "+key+"\n" {
					t.Errorf("owner %q with key %q: %v", node, key, err)
				}
			}
		}
	})
}
