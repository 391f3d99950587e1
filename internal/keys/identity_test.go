package keys

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"
)

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
