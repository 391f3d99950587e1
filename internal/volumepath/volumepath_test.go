package volumepath

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"slipway/internal/config"
)

// place makes a volume and goes into dir below its root.
func place(t *testing.T, dir string) (*config.Primary, string) {
	t.Helper()
	root := t.TempDir()
	for _, d := range []string{"mnt/dir/sub", "src/dir", "elsewhere"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for link, target := range map[string]string{"short": "mnt/dir", "mnt/out": "../elsewhere"} {
		if err := os.Symlink(target, filepath.Join(root, link)); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(filepath.Join(root, dir))
	return &config.Primary{Volume: "projects", Mount: filepath.Join(root, "mnt"), Source: filepath.Join(root, "src")}, root
}

func TestOf(t *testing.T) {
	for _, tt := range []struct{ cwd, path, want string }{
		{".", "mnt/dir/file", "dir/file"},
		{".", "mnt", ""},
		{".", "mnt/", ""},
		{".", "mnt/./dir/../x", "x"},
		{".", "src/dir", "dir"}, // as seen in the source
		{"mnt/dir", "file", "dir/file"},
		{"mnt/dir", "../x", "x"},
		{"mnt/dir", ".", "dir"},
		{"mnt", "not there/yet", "not there/yet"},
		{".", "short/file", "dir/file"},   // through a link into the volume
		{"short", "file", "dir/file"},     // the working directory reached through one
		{".", "mnt/out", "out"},           // a link in the volume is a file of it
		{"mnt", "odd\n\xff", "odd\n\xff"}, // any name
	} {
		p, root := place(t, tt.cwd)
		if got, err := Of(p, tt.path); err != nil || got != tt.want {
			t.Errorf("%s in %s: %q, %v; want %q", tt.path, tt.cwd, got, err, tt.want)
		}
		if abs := filepath.Join(root, tt.cwd, tt.path); tt.cwd != "short" {
			if got, err := Of(p, abs); err != nil || got != tt.want {
				t.Errorf("%s: %q, %v; want %q", abs, got, err, tt.want)
			}
		}
	}
}

func TestOutside(t *testing.T) {
	p, _ := place(t, ".")
	for _, path := range []string{"/etc/passwd", ".", "mnt/../elsewhere", "mntx", "/", ""} {
		if got, err := Of(p, path); !errors.Is(err, ErrOutside) {
			t.Errorf("%s: %q, %v", path, got, err)
		}
	}
	if _, err := All(p, []string{"mnt/x", "/etc"}); !errors.Is(err, ErrOutside) {
		t.Errorf("one of several outside: %v", err)
	}
}

func TestAll(t *testing.T) {
	p, _ := place(t, ".")
	for _, tt := range []struct{ in, want []string }{
		{nil, nil}, {[]string{"mnt/a", "src/b"}, []string{"a", "b"}}, {[]string{"mnt/a", "mnt"}, nil}, // the volume itself is everything
	} {
		if got, err := All(p, tt.in); err != nil || !cmp.Equal(got, tt.want) {
			t.Errorf("%q: %q %v", tt.in, got, err)
		}
	}
}
