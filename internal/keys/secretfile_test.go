package keys

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

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
