package control

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// impostor listens on the socket and answers every connection with the same bytes, then hangs up.
func impostor(t *testing.T, state, reply string) {
	t.Helper()
	l, err := net.Listen("unix", SocketPath(state))
	if err != nil {
		t.Fatal(err)
	}
	var g errgroup.Group
	g.Go(func() error {
		for {
			conn, err := l.Accept()
			if err != nil {
				return nil //nolint:nilerr // the listener was closed: the test is over
			}
			if reply != unread {
				_, err = http.ReadRequest(bufio.NewReader(conn))
			}
			if err == nil && reply != unread {
				_, _ = io.WriteString(conn, reply)
			}
			_ = conn.Close()
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		_ = g.Wait()
	})
}

const unread = "hung up without reading"

func reply(body string) string {
	return fmt.Sprintf("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n%s", body)
}

// TestStrangeAnswers: whatever stands behind the socket, the client ends with an error and not with half an answer.
func TestStrangeAnswers(t *testing.T) {
	for name, tt := range map[string]struct {
		reply string
		want  error // nil: any but that nobody is there
		says  string
	}{
		"hung up at once":  {"", ErrNoDaemon, ""},
		"not even read":    {unread, ErrNoDaemon, ""},
		"not HTTP":         {"SSH-2.0-OpenSSH\r\n", nil, "malformed"},
		"refused":          {"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n", nil, "500 Oh"},
		"cut":              {reply(`{"volume":"projects"}` + "\n"), ErrNoDaemon, ""},
		"cut in a line":    {reply(`{"volume":"proj`), ErrNoDaemon, ""},
		"not JSON":         {reply("hello\n\n"), nil, "invalid character"},
		"wrong type":       {reply(`{"volume":3}` + "\n\n"), nil, "cannot unmarshal"},
		"endless line":     {reply(strings.Repeat("x", longestLine+10)), bufio.ErrTooLong, ""},
		"failure":          {reply(`{"failure":"no such path","not_exist":true}` + "\n"), fs.ErrNotExist, "no such path"},
		"failure, damaged": {reply(`{"failure":` + "\n"), ErrNoDaemon, ""},
		"rows, failure":    {reply(`{"volume":"projects"}` + "\n" + `{"failure":"disk"}` + "\n"), nil, "disk"},
	} {
		t.Run(name, func(t *testing.T) {
			state := t.TempDir()
			impostor(t, state, tt.reply)
			c := &Client{&http.Client{Transport: &http.Transport{
				DialContext:       func(context.Context, string, string) (net.Conn, error) { return connect(state, time.Second) },
				DisableKeepAlives: true,
			}}}
			rows, err := c.Status(t.Context())
			if err == nil || rows != nil || tt.want != nil && !errors.Is(err, tt.want) || tt.want == nil && errors.Is(err, ErrNoDaemon) || !strings.Contains(err.Error(), tt.says) || strings.Contains(err.Error(), "http://") {
				t.Errorf("%v, %v", rows, err)
			}
			if _, err := Dial(state); err == nil && !strings.Contains(tt.reply, "\n\n") { // whole lines are all that Dial asks for
				t.Error("Dial takes it for a daemon")
			}
		})
	}
}

// TestGivenUp: who gives up before the daemon has had its time learns nothing of the daemon.
func TestGivenUp(t *testing.T) {
	state := t.TempDir()
	l, err := net.Listen("unix", SocketPath(state)) // its queue takes the connection, and nobody answers
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	ctx, stop := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer stop()
	if _, err := newClient(state, time.Minute, time.Minute).Status(ctx); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrSilent) {
		t.Error(err)
	}
}

// TestFullQueue: a daemon that takes no connection any more does not answer, and is there.
func TestFullQueue(t *testing.T) {
	state := t.TempDir()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(fd) }()
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: SocketPath(state)}), unix.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	for range 100 {
		conn, err := connect(state, 10*time.Millisecond)
		if err != nil {
			if !errors.Is(err, ErrSilent) {
				t.Error(err)
			}
			return
		}
		defer func() { _ = conn.Close() }()
	}
	t.Error("the queue takes any number")
}

// TestOneAnswer: two answers to one question are none.
func TestOneAnswer(t *testing.T) {
	state := t.TempDir()
	impostor(t, state, reply("{}\n{}\n\n"))
	c := &Client{&http.Client{Transport: &http.Transport{
		DialContext: func(context.Context, string, string) (net.Conn, error) { return connect(state, time.Second) }, DisableKeepAlives: true,
	}}}
	if e, err := c.Explain(t.Context(), "x"); err == nil {
		t.Errorf("%+v", e)
	}
	if b, err := c.Barrier(t.Context(), Barrier{Paths: []string{"x"}}); err == nil || len(b.Paths) != 1 {
		t.Errorf("%+v %v", b, err)
	}
}

// TestStrangeQuestions: what a daemon is asked that it does not understand is refused, and it lives on.
func TestStrangeQuestions(t *testing.T) {
	state := t.TempDir()
	serve(t, state, &fake{})
	c := dial(t, state)
	for _, q := range []struct{ method, path string }{
		{http.MethodGet, "/explain?path=%%%"}, {http.MethodGet, "/explain?path=!"}, {http.MethodPost, "/barrier?path=!"}, {http.MethodGet, "/nothing"},
		{http.MethodPost, "/status"}, {http.MethodGet, "/list?path=YQ"}, {http.MethodGet, "/list?path=!"},
	} {
		req, err := http.NewRequestWithContext(t.Context(), q.method, "http://slipway"+strings.ReplaceAll(q.path, "%%%", "%25"), nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := c.http.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || resp.StatusCode == http.StatusOK && !bytes.HasPrefix(body, []byte(`{"failure":`)) {
			t.Errorf("%s %s: %s %q %v", q.method, q.path, resp.Status, body, err)
		}
	}
	if _, err := c.Status(t.Context()); err != nil {
		t.Error(err)
	}
}

// lister is a daemon with a tree.
type lister struct{ fake }

func (l *lister) List(ctx context.Context, path string, recursive bool) ([]ListRow, error) {
	return []ListRow{{Path: path, Target: "to\xff", Mtime: time.Unix(0, 0).UTC()}}, l.note(ctx, "list %q %v", path, recursive)
}

func TestList(t *testing.T) {
	state := t.TempDir()
	l := &lister{}
	serve(t, state, l)
	rows, err := dial(t, state).List(t.Context(), "a\xffb", true)
	want := []ListRow{{Path: "a\xffb", Target: "to\xff", Mtime: time.Unix(0, 0).UTC()}}
	if d := cmp.Diff(want, rows); d != "" || err != nil || l.last() != `list "a\xffb" true` {
		t.Error(d, err, l.last())
	}
}

func TestTypeOf(t *testing.T) {
	for mode, want := range map[uint32]string{
		0o100644: "file", 0o040755: "dir", 0o120777: "symlink", 0o010600: "fifo", 0o140600: "socket", 0o020600: "char", 0o060600: "block",
	} {
		if got := TypeOf(mode); got != want {
			t.Errorf("%o: %s, want %s", mode, got, want)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(lines([]PendingRow{{Path: "a\xff"}, {Path: "b"}}))
	f.Add([]byte(`{"failure":"x"}` + "\n"))
	f.Add([]byte("{}\n\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		rows, err := decode[PendingRow](bufio.NewScanner(bytes.NewReader(data)))
		if err != nil {
			return
		}
		again, err := decode[PendingRow](bufio.NewScanner(bytes.NewReader(append(lines(rows), '\n'))))
		if err != nil || !cmp.Equal(rows, again) {
			t.Fatalf("%+v became %+v: %v", rows, again, err)
		}
	})
}
