package store_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"slipway/internal/sshd"
	"slipway/internal/store"
)

func keygen(t *testing.T, args ...string) (file string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "key")
	args = append([]string{"-q", "-N", "", "-f", file}, args...)
	if out, err := exec.Command("ssh-keygen", args...).CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen: %v\n%s", err, out)
	}
	return file
}

func write(t *testing.T, name, text string) (file string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// pinned returns a known_hosts line for the server's address with the public half of a key.
func pinned(t *testing.T, server *sshd.Server, key string) string {
	t.Helper()
	pub, err := os.ReadFile(key + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	host, port, _ := net.SplitHostPort(server.Addr)
	return fmt.Sprintf("[%s]:%s %s", host, port, pub)
}

func TestHostKeys(t *testing.T) {
	server := serve(t, sshd.Options{})
	good, err := os.ReadFile(server.KnownHosts)
	if err != nil {
		t.Fatal(err)
	}
	right := strings.TrimSpace(string(good))
	other := pinned(t, server, keygen(t, "-t", "ed25519"))
	ecdsa := pinned(t, server, keygen(t, "-t", "ecdsa"))
	absent := filepath.Join(t.TempDir(), "absent")
	cases := map[string]struct {
		files []string
		text  []string // that the error names; nil for success
	}{
		"right":             {[]string{server.KnownHosts}, nil},
		"right in second":   {[]string{absent, write(t, "known", "# none\n"), server.KnownHosts}, nil},
		"old and new":       {[]string{write(t, "known", other+string(good))}, nil},
		"another kind too":  {[]string{write(t, "known", ecdsa+string(good))}, nil},
		"changed":           {[]string{write(t, "known", other)}, []string{"known:1", "replace", right}},
		"changed, two":      {[]string{write(t, "known", ecdsa+other)}, []string{"known:1", right}},
		"only another kind": {[]string{write(t, "known", ecdsa)}, []string{"ssh-ed25519", "known"}},
		"unknown":           {[]string{write(t, "known", "")}, []string{"known", "add", right}},
		"file absent":       {[]string{absent}, []string{absent, "add", right}},
		"no file":           {nil, []string{"known_hosts"}},
		"revoked":           {[]string{write(t, "known", string(good)+"@revoked "+right+"\n")}, []string{"revoked", "known:2"}},
		"garbage":           {[]string{write(t, "known", "host ssh-ed25519 AAAA\n")}, []string{"known:1"}},
	}
	for name, c := range cases {
		opt := options(server)
		opt.KnownHosts = c.files
		_, err := open(t, server.URL(t.TempDir()), opt).List(t.Context(), "")
		if c.text == nil {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if !errors.Is(err, store.ErrHostKey) || errors.Is(err, store.ErrTemporary) || errors.Is(err, store.ErrAuth) {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for _, text := range append(c.text, "127.0.0.1") {
			if name != "no file" && !strings.Contains(err.Error(), text) {
				t.Errorf("%s: does not name %q: %v", name, text, err)
			}
		}
	}
}

// The line that the refusal prints is the line that ends it, without opening the store anew.
func TestHostKeyAdded(t *testing.T) {
	server := serve(t, sshd.Options{})
	opt := options(server)
	opt.KnownHosts = []string{write(t, "known", "")}
	s := open(t, server.URL(t.TempDir()), opt)
	_, err := s.List(t.Context(), "")
	mustBe(t, err, store.ErrHostKey)
	lines := strings.Split(err.Error(), "\n")
	if err := os.WriteFile(opt.KnownHosts[0], []byte(lines[len(lines)-1]+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.List(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
}

func TestKeys(t *testing.T) {
	server := serve(t, sshd.Options{})
	foreign := keygen(t, "-t", "ed25519")
	readable := keygen(t, "-t", "ed25519")
	if err := os.Chmod(readable, 0o644); err != nil {
		t.Fatal(err)
	}
	locked := keygen(t, "-t", "ed25519")
	if out, err := exec.Command("ssh-keygen", "-p", "-q", "-P", "", "-N", "secret", "-f", locked).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for file, text := range map[string]string{
		foreign:                     server.User,
		readable:                    "chmod 600",
		locked:                      "passphrase",
		write(t, "key", "garbage"):  "key",
		filepath.Join(foreign, "x"): "not a directory",
		"":                          "no SSH key",
	} {
		opt := options(server)
		opt.KeyFile = file
		_, err := open(t, server.URL(t.TempDir()), opt).List(t.Context(), "")
		if !errors.Is(err, store.ErrAuth) || errors.Is(err, store.ErrTemporary) || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %v", text, err)
		}
	}
	if err := os.Chmod(readable, 0o600); err != nil {
		t.Fatal(err)
	}
	pub, err := os.ReadFile(readable + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Allow(string(pub)); err != nil {
		t.Fatal(err)
	}
	opt := options(server)
	opt.KeyFile = readable
	if _, err := open(t, server.URL(t.TempDir()), opt).List(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
}

func TestNotSSH(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	done := make(chan struct{})
	go func() {
		defer close(done)
		conn, err := listener.Accept()
		if err == nil {
			_, _ = conn.Write(bytes.Repeat([]byte("220 smtp\n"), 10_000))
			_ = conn.Close()
		}
	}()
	opt := store.Options{KeyFile: keygen(t, "-t", "ed25519"), KnownHosts: []string{write(t, "known", "")}}
	_, err = open(t, "sftp://projects@"+listener.Addr().String()+"/data", opt).List(t.Context(), "")
	if err == nil || errors.Is(err, store.ErrHostKey) || errors.Is(err, store.ErrAuth) {
		t.Fatal(err)
	}
	<-done
}

func TestReadOnlyAccount(t *testing.T) {
	server := serve(t, sshd.Options{ReadOnly: true})
	dir := t.TempDir()
	local := open(t, dir, store.Options{})
	if err := local.Publish(t.Context(), object, []byte("content")); err != nil {
		t.Fatal(err)
	}
	s := open(t, server.URL(dir), options(server))
	mustHold(t, s, object, []byte("content"))
	err := s.Publish(t.Context(), "other", nil)
	if !errors.Is(err, fs.ErrPermission) || errors.Is(err, store.ErrTemporary) {
		t.Fatal(err)
	}
}

func TestWeak(t *testing.T) {
	for _, ext := range []string{"fsync", "posix-rename", "statvfs", "limits"} {
		server := serve(t, sshd.Options{Deny: []string{ext}})
		s := open(t, server.URL(t.TempDir()), options(server))
		if weak := store.Weak(s); len(weak) != 0 {
			t.Fatalf("before the first contact: %v", weak)
		}
		data := content(5, 300_000)
		if err := s.Publish(t.Context(), object, data); err != nil {
			t.Fatalf("without %s: %v", ext, err)
		}
		mustHold(t, s, object, data)
		weak := store.Weak(store.Sub(s, "projects"))
		if want := ext + "@openssh.com"; ext != "limits" && !slices.Equal(weak, []string{want}) {
			t.Errorf("without %s: weak %v", ext, weak)
		}
		err := s.Replace(t.Context(), "progress/alpha.json", nil)
		if ext == "posix-rename" {
			mustBe(t, err, store.ErrLacks)
		} else if err != nil {
			t.Errorf("without %s: %v", ext, err)
		}
		if _, _, err := store.Space(t.Context(), s); ext == "statvfs" {
			mustBe(t, err, store.ErrLacks)
		} else if err != nil {
			t.Errorf("without %s: %v", ext, err)
		}
	}
}

// trace returns the requests that one call makes, as the server's log names them.
func trace(t *testing.T, server *sshd.Server, root string, call func() error) (requests []string) {
	t.Helper()
	file := filepath.Join(server.Dir, "trace")
	if err := os.Truncate(file, 0); err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	if err := call(); err != nil {
		t.Fatal(err)
	}
	log, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(log)) {
		verb, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch {
		case verb == "open" && strings.Contains(rest, "flags WRITE,CREATE,EXCL"): // a name of somebody else's is never written to
			verb = "create"
		case verb != "fsync" && verb != "mkdir" && verb != "rename" && verb != "posix-rename":
			continue
		}
		requests = append(requests, verb+" "+shorten(rest, root))
	}
	return requests
}

// shorten makes a logged request readable: names below the root, temporary ones as TEMP.
func shorten(rest, root string) string {
	var words []string
	for word := range strings.FieldsSeq(rest) {
		quoted := strings.HasPrefix(word, `"`)
		word = strings.Trim(word, `"`)
		if word == filepath.Dir(root) {
			word = ".."
		}
		word = strings.TrimPrefix(strings.TrimPrefix(word, root), "/")
		if i := strings.Index(word, ".tmp-"); i >= 0 {
			word = word[:i] + "TEMP"
		}
		if quoted {
			words = append(words, word)
		}
	}
	return strings.Join(words, " ")
}

// The server's own log shows that everything is fsynced that has to be, and in the right order.
func TestRequests(t *testing.T) {
	server := serve(t, sshd.Options{Trace: true})
	root := filepath.Join(t.TempDir(), "root")
	opt := options(server)
	opt.Connections = 1
	s := open(t, server.URL(root), opt)
	data := []byte("content")
	steps := []struct {
		call func() error
		want []string
	}{
		{func() error { return s.Publish(t.Context(), "d/e/x", data) }, []string{
			"mkdir d/e", "mkdir d", "mkdir ", "fsync ..", "mkdir d", "fsync ", "mkdir d/e", "fsync d",
			"create d/e/TEMP", "fsync d/e/TEMP", "rename d/e/TEMP d/e/x", "fsync d/e"}},
		{func() error { return s.Publish(t.Context(), "d/e/x", data) }, []string{"fsync d/e"}},
		{func() error { return s.Publish(t.Context(), "d/e/y", data) }, []string{
			"create d/e/TEMP", "fsync d/e/TEMP", "rename d/e/TEMP d/e/y", "fsync d/e"}},
		{func() error { return s.CreateExclusive(t.Context(), "d/z", data) }, []string{
			"create d/TEMP", "fsync d/TEMP", "rename d/TEMP d/z", "fsync d"}},
		{func() error { return s.Replace(t.Context(), "d/z", data) }, []string{
			"create d/TEMP", "fsync d/TEMP", "posix-rename d/TEMP d/z", "fsync d"}},
	}
	for i, step := range steps {
		got := trace(t, server, root, step.call)
		if !slices.Equal(got, step.want) {
			t.Errorf("step %d:\n got %q\nwant %q", i, got, step.want)
		}
	}
	// Somebody removes directories and makes one again: what was known of them is not any more.
	if err := errors.Join(os.RemoveAll(filepath.Join(root, "d")), os.Mkdir(filepath.Join(root, "d"), 0o750)); err != nil {
		t.Fatal(err)
	}
	got := trace(t, server, root, func() error { return s.Publish(t.Context(), "d/e/x", data) })
	if want := []string{"mkdir d/e", "fsync d", "fsync ", "fsync ..", "create d/e/TEMP", "fsync d/e/TEMP", "rename d/e/TEMP d/e/x",
		"fsync d/e"}; !slices.Equal(got, want) {
		t.Errorf("made again:\n got %q\nwant %q", got, want)
	}
	// Another store instance does not know who made the directories, and whether they lived to fsync them.
	again := open(t, server.URL(root), opt)
	got = trace(t, server, root, func() error { return again.Publish(t.Context(), "d/e/x", data) })
	if want := []string{"fsync d", "fsync ", "fsync ..", "fsync d/e"}; !slices.Equal(got, want) {
		t.Errorf("present:\n got %q\nwant %q", got, want)
	}
}
