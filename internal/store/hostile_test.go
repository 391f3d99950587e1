package store_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"slipway/internal/store"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"
	"golang.org/x/sync/errgroup"
)

// hostile is an SFTP server that lies. It is the library's own, which lacks fsync, behind a real SSH connection.
type hostile struct {
	entries []string     // what directories hold
	endless bool         // their listing never ends
	content string       // what files hold
	claimed int64        // what their size is said to be
	absent  bool         // nothing is there until it was renamed
	renamed atomic.Int32 // how often

	otherKey string // a host key besides the pinned one, which is Ed25519
}

func (h *hostile) Fileread(*sftp.Request) (io.ReaderAt, error) {
	return strings.NewReader(h.content), nil
}

func (h *hostile) Filewrite(*sftp.Request) (io.WriterAt, error) { return discard{}, nil }

func (h *hostile) Filecmd(r *sftp.Request) error {
	if r.Method == "Rename" {
		h.renamed.Add(1)
	}
	return nil
}

func (h *hostile) Lstat(r *sftp.Request) (sftp.ListerAt, error) { return h.Filelist(r) }

func (h *hostile) Filelist(r *sftp.Request) (sftp.ListerAt, error) {
	if r.Method == "List" {
		return lister{h}, nil
	}
	if h.absent && h.renamed.Load() == 0 && strings.HasSuffix(r.Filepath, "object") {
		return nil, os.ErrNotExist
	}
	return one{entry{name: r.Filepath, size: h.claimed, dir: !strings.Contains(r.Filepath, "object") && !strings.Contains(r.Filepath, ".tmp-")}}, nil
}

// discard is a disk that takes everything and keeps nothing.
type discard struct{}

func (discard) WriteAt(b []byte, _ int64) (int, error) { return len(b), nil }

type one struct{ e entry }

func (o one) ListAt(list []os.FileInfo, offset int64) (int, error) {
	if offset > 0 {
		return 0, io.EOF
	}
	list[0] = o.e
	return 1, io.EOF
}

type lister struct{ h *hostile }

func (l lister) ListAt(list []os.FileInfo, offset int64) (int, error) {
	for i := range list {
		at := int(offset) + i
		switch {
		case l.h.endless:
			list[i] = entry{name: fmt.Sprintf("%0200d", at)}
		case at < len(l.h.entries):
			list[i] = entry{name: l.h.entries[at]}
		default:
			return i, io.EOF
		}
	}
	return len(list), nil
}

type entry struct {
	name string
	size int64
	dir  bool
}

func (e entry) Name() string       { return e.name }
func (e entry) Size() int64        { return e.size }
func (e entry) ModTime() time.Time { return time.Unix(1, 0) }
func (e entry) IsDir() bool        { return e.dir }
func (e entry) Sys() any           { return nil }
func (e entry) Mode() os.FileMode {
	if e.dir {
		return os.ModeDir | 0o755
	}
	return 0o644
}

func hostKey(t *testing.T, file string) ssh.Signer {
	t.Helper()
	pem, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.ParsePrivateKey(pem)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// start serves connections until the test ends and opens a store on them.
func (h *hostile) start(t *testing.T) store.Store {
	t.Helper()
	keyFile := keygen(t, "-t", "ed25519")
	pinned := hostKey(t, keyFile)
	config := &ssh.ServerConfig{NoClientAuth: true}
	config.AddHostKey(pinned)
	if h.otherKey != "" {
		config.AddHostKey(hostKey(t, h.otherKey))
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var group errgroup.Group
	group.Go(func() error {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return nil
			}
			group.Go(func() error { return h.serve(conn, config) })
		}
	})
	host, port, _ := net.SplitHostPort(listener.Addr().String())
	known := fmt.Sprintf("[%s]:%s %s", host, port, ssh.MarshalAuthorizedKey(pinned.PublicKey()))
	t.Cleanup(func() {
		_ = listener.Close()
		_ = group.Wait() // ends with the clients
	})
	return open(t, "sftp://projects@"+listener.Addr().String()+"/data",
		store.Options{KeyFile: keyFile, KnownHosts: []string{write(t, "known", known)}})
}

func (h *hostile) serve(conn net.Conn, config *ssh.ServerConfig) error {
	sshConn, chans, reqs, err := ssh.NewServerConn(conn, config)
	if err != nil {
		return err
	}
	defer func() { _ = sshConn.Close() }()
	go ssh.DiscardRequests(reqs)
	for newChannel := range chans {
		channel, requests, err := newChannel.Accept()
		if err != nil {
			return err
		}
		go func() {
			for r := range requests {
				_ = r.Reply(true, nil)
			}
		}()
		server := sftp.NewRequestServer(channel, sftp.Handlers{FileGet: h, FilePut: h, FileCmd: h, FileList: h})
		_ = server.Serve()
		_ = server.Close()
	}
	return nil
}

// The server has a key of another kind as well, which SSH would rather use; the pinned kind is asked for.
func TestSeveralHostKeys(t *testing.T) {
	h := &hostile{otherKey: keygen(t, "-t", "ecdsa")}
	if _, err := h.start(t).List(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
}

func TestHostileNames(t *testing.T) {
	h := &hostile{entries: []string{"b", "a", "..", "a/..", "", ".", "/etc/passwd", "nul\x00", "new\nline", "a", strings.Repeat("x", 300)}}
	found, err := h.start(t).List(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range found {
		if err := store.CheckName(i.Name); err != nil {
			t.Error(err)
		}
	}
	if len(found) != 3 { // a, b and passwd, which is a harmless name by itself
		t.Fatalf("%+v", found)
	}
}

func TestHostileListing(t *testing.T) {
	t.Parallel()
	_, err := (&hostile{endless: true}).start(t).List(t.Context(), "")
	mustBe(t, err, store.ErrTemporary)
	if !strings.Contains(err.Error(), "does not end") {
		t.Fatal(err)
	}
}

// The size that is told is neither believed nor allocated beyond the bound.
func TestHostileSizes(t *testing.T) {
	for claimed, want := range map[int64]error{1 << 62: store.ErrTooLarge, -1: nil, 100: store.ErrTemporary, 5: nil} {
		h := &hostile{content: "seven77", claimed: claimed}
		data, err := h.start(t).Read(t.Context(), "object", 1000)
		switch {
		case want != nil:
			mustBe(t, err, want)
		case claimed == 5 && (err != nil || !bytes.Equal(data, []byte("seven"))):
			t.Errorf("claimed %d: %q, %v", claimed, data, err)
		case claimed < 0 && err == nil:
			t.Errorf("claimed %d: %q", claimed, data)
		}
	}
}

// A server that loses what it was sent is found out before the object gets its name.
func TestHostileDisk(t *testing.T) {
	h := &hostile{absent: true, claimed: 3}
	err := h.start(t).Publish(t.Context(), "object", []byte("seven77"))
	if err == nil || errors.Is(err, store.ErrTemporary) || errors.Is(err, store.ErrDiffers) || h.renamed.Load() != 0 {
		t.Fatalf("%v, renamed %d times", err, h.renamed.Load())
	}
}
