package store

import (
	"bytes"
	"errors"
	"io"
	"math"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestParseURL(t *testing.T) {
	good := map[string]place{
		"sftp://projects@cache1/data":            {"projects", "cache1", "22", "/data"},
		"sftp://projects@cache1:2222/srv/a%20b/": {"projects", "cache1", "2222", "/srv/a b"},
		"sftp://projects@[::1]:22/data":          {"projects", "::1", "22", "/data"},
		"sftp://projects@cache1/":                {"projects", "cache1", "22", "/"},
		"/srv/spool/":                            {path: "/srv/spool"},
		"spool":                                  {path: "spool"},
		"a:b":                                    {path: "a:b"},
	}
	for url, want := range good {
		if got, err := parseURL(url); err != nil || got != want {
			t.Errorf("%s: %+v, %v", url, got, err)
		}
	}
	bad := map[string]string{
		"":                                      "empty",
		"sftp:cache1:/data":                     "slashes are missing",
		"sftp://cache1/data":                    "user is missing",
		"sftp://@cache1/data":                   "user is missing",
		"sftp:///data":                          "user is missing",
		"sftp://projects@/data":                 "host is missing",
		"sftp://projects@-oProxyCommand=x/data": "host is missing",
		"sftp://projects:geheim@cache1/data":    "SSH key",
		"sftp://projects:geheim@cache1:x/data":  "port",
		"sftp://projects@cache1":                "path is missing",
		"sftp://projects@cache1//data":          "two slashes",
		"sftp://projects@cache1/~/data":         "~",
		"sftp://projects@cache1/../data":        "..",
		"sftp://projects@cache1/a%0ab":          "control",
		"sftp://projects@cache1/a\nb":           "control",
		"sftp://projects@cache1:0/data":         "65535",
		"sftp://projects@cache1:70000/data":     "65535",
		"sftp://projects@cache1/data?x":         "?",
		"sftp://projects@cache1/data#x":         "#",
		"s3://bucket/data":                      "unknown",
		"file:///data":                          "directory",
		"~/data":                                "~",
	}
	for url, text := range bad {
		err := CheckURL(url)
		if err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%q: %v, want something about %q", url, err, text)
		}
		if err != nil && strings.Contains(err.Error(), "geheim") {
			t.Errorf("prints the password: %v", err)
		}
		if _, err := Open(url, Options{}); err == nil {
			t.Errorf("%q was opened", url)
		}
	}
}

func FuzzParseURL(f *testing.F) {
	for _, s := range []string{"sftp://projects@cache1:22/data", "/srv", "sftp://a:b@c/d", "sftp://a@[::1]/%2e%2e"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := parseURL(s)
		if err != nil {
			return
		}
		if p.path == "" || strings.ContainsAny(p.path, "\x00\n") || p.host != "" && (p.user == "" || p.path[0] != '/') {
			t.Fatalf("%q: %+v", s, p)
		}
		if p.host != "" && (slices.Contains(strings.Split(p.path, "/"), "..") || strings.Contains(p.path, "//")) {
			t.Fatalf("%q: %+v", s, p)
		}
	})
}

func FuzzCheckName(f *testing.F) {
	for _, s := range []string{"a/b", "..", ".tmp-x", "shards/3f/3f.shard", "a\x00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if CheckName(s) != nil {
			return
		}
		for element := range strings.SplitSeq(s, "/") {
			if element == "" || element[0] == '.' || IsTemp(element) || strings.ContainsAny(element, "\x00\n\\ ~") {
				t.Fatalf("accepted %q", s)
			}
		}
	})
}

func TestIsShard(t *testing.T) {
	for name, want := range map[string]bool{
		"shards/3f/3fa9.shard":          true,
		"projects/shards/3f/3fa9.shard": true,
		"batches/1/2.batch":             false,
		"refused/3fa9.shard":            false,
		"shards/3f/3fa9":                false,
		"x.shard":                       false,
	} {
		if isShard(name) != want {
			t.Errorf("%s: %v", name, !want)
		}
	}
}

func TestAccept(t *testing.T) {
	found := []Info{{Name: "b"}, {Name: ".."}, {Name: "a", Size: 1}, {Name: "a\x00"}, {Name: ""}, {Name: "/"}, {Name: "a", Size: 2},
		{Name: "c", Size: -1}, {Name: strings.Repeat("x", 300)}}
	got := accept(found)
	if len(got) != 2 || got[0].Name != "a" || got[1].Name != "b" {
		t.Fatalf("%+v", got)
	}
}

// watched is a watch whose expiry is recorded, with acknowledged bytes set by hand.
type watched struct {
	watch
	bytes atomic.Uint64

	mu    sync.Mutex
	cause error
	at    time.Time
}

func (w *watched) expire(cause error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cause, w.at = cause, time.Now()
}

func (w *watched) result() (at time.Time, cause error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.at, w.cause
}

func newWatched() *watched {
	w := &watched{}
	w.watch = watch{stall: 10 * time.Second, acked: w.bytes.Load, expired: w.expire}
	return w
}

func TestWatch(t *testing.T) {
	cases := map[string]struct {
		factor  int
		run     func(w *watched)
		expires time.Duration // after begin, 0 for never
		within  time.Duration // and not later than so much after that
	}{
		"silence":         {usual, func(*watched) {}, 10 * time.Second, 3 * time.Second},
		"patience":        {syncing, func(*watched) {}, 30 * time.Second, 3 * time.Second},
		"ended":           {usual, func(w *watched) { pass(9 * time.Second); w.end() }, 0, 0},
		"progress":        {usual, func(w *watched) { every(w, time.Second, 100, w.progress); w.end() }, 0, 0},
		"then silence":    {usual, func(w *watched) { every(w, time.Second, 100, w.progress) }, 110 * time.Second, 3 * time.Second},
		"slow line":       {usual, func(w *watched) { every(w, time.Second, 110, func() { w.bytes.Add(1000) }); w.end() }, 0, 0},
		"acks for ever":   {usual, func(w *watched) { every(w, time.Second, 130, func() { w.bytes.Add(1000) }) }, 120 * time.Second, 3 * time.Second},
		"drip for ever":   {usual, func(w *watched) { every(w, 9*time.Second, 80, w.progress) }, 600 * time.Second, 3 * time.Second},
		"end, then begin": {usual, func(w *watched) { pass(9 * time.Second); w.end(); w.begin(usual) }, 19 * time.Second, 3 * time.Second},
		"one of two ends": {usual, func(w *watched) { w.begin(usual); pass(5 * time.Second); w.end() }, 10 * time.Second, 3 * time.Second},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWatched()
				began := time.Now()
				w.begin(c.factor)
				c.run(w)
				pass(time.Hour)
				synctest.Wait()
				at, cause := w.result()
				took := at.Sub(began)
				if c.expires == 0 && cause != nil {
					t.Fatalf("expired after %v: %v", took, cause)
				}
				if c.expires > 0 && (cause == nil || took < c.expires || took > c.expires+c.within) {
					t.Fatalf("expired after %v (%v), want %v", took, cause, c.expires)
				}
			})
		})
	}
}

// pass lets time pass on the test's clock.
func pass(d time.Duration) { <-time.After(d) }

// every calls f so many times on the test's clock, unless the watch expires.
func every(w *watched, period time.Duration, times int, f func()) {
	for range times {
		if _, cause := w.result(); cause != nil {
			return
		}
		pass(period)
		f()
	}
}

func TestInFlight(t *testing.T) {
	for rtt, want := range map[time.Duration]int{0: 8, 300 * time.Microsecond: 8, 4 * time.Millisecond: 16, 20 * time.Millisecond: 64, time.Minute: 64, math.MaxUint32 * time.Microsecond: 64} {
		if got := inFlight(rtt); got != want {
			t.Errorf("%s: %d packets, want %d", rtt, got, want)
		}
	}
}

func TestAnswersBound(t *testing.T) {
	w := newWatched()
	var cause error
	a := &answers{r: bytes.NewReader(make([]byte, 100)), w: &w.watch, fail: func(c error) { cause = c }}
	read := func() error { _, err := a.Read(make([]byte, 10)); return err }
	if err := read(); err != nil {
		t.Fatal(err)
	}
	done := a.bound(15)
	if err := read(); err != nil {
		t.Fatal(err)
	}
	if err := read(); !errors.Is(err, errEndless) || !errors.Is(cause, errEndless) {
		t.Fatal(err, cause)
	}
	done()
	if err := read(); err != nil {
		t.Fatal(err)
	}
}

// The first reason for which a connection ended is kept.
func TestWire(t *testing.T) {
	near, far := net.Pipe()
	w := &wire{Conn: near}
	if w.ended() != nil || w.acked() != 0 {
		t.Fatal("ended before it began")
	}
	if err := far.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	first := w.ended()
	w.fail(errEndless)
	if _, err := w.Write([]byte("x")); err == nil {
		t.Fatal("written to a closed connection")
	}
	if first == nil || w.ended().Error() != first.Error() {
		t.Fatalf("%v, then %v", first, w.ended())
	}
}
