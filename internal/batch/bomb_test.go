package batch

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"filippo.io/age"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/klauspost/compress/zstd"

	"slipway/internal/chunk"
)

// sealPart makes a part over any lines, as somebody can who knows the recipients.
func sealPart(t testing.TB, compressed []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := age.Encrypt(&out, testIdentity.Recipient())
	if err == nil {
		_, err = w.Write(compressed)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// Bodies that would decompress to gigabytes end at the limits of a line or of a part.
func TestBombs(t *testing.T) {
	repeat := func(unit []byte, times int, opts ...zstd.EOption) []byte {
		var out bytes.Buffer
		w, err := zstd.NewWriter(&out, append(opts, zstd.WithEncoderConcurrency(1))...)
		if err != nil {
			t.Fatal(err)
		}
		for range times {
			_, _ = w.Write(unit)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return out.Bytes()
	}
	mib := func(s string) []byte { return bytes.Repeat([]byte(s), 1<<20/len(s)) }
	for name, c := range map[string]struct {
		body []byte
		want error
	}{
		"one line":       {repeat(make([]byte, 1<<20), 200), errLongLine},
		"many lines":     {repeat(mib(`{"objects":[]}`+"\n"), 100), errLongPart},
		"wide window":    {repeat(mib("x"), 200, zstd.WithWindowSize(128<<20)), zstd.ErrWindowSizeExceeded},
		"not compressed": {[]byte(goldenLines), zstd.ErrMagicMismatch},
		"empty":          {nil, errNoLine},
	} {
		if err := readPart(bytes.NewReader(sealPart(t, c.body)), []age.Identity{testIdentity}, discard()); !errors.Is(err, ErrCorrupt) || !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := readPart(strings.NewReader("hello"), []age.Identity{testIdentity}, discard()); !errors.Is(err, ErrCorrupt) {
		t.Errorf("not encrypted: %v", err)
	}
	cut := sealPart(t, repeat([]byte(`{"objects":[]}`+"\n"), 1))
	if err := readPart(bytes.NewReader(cut[:len(cut)-1]), []age.Identity{testIdentity}, discard()); !errors.Is(err, ErrCorrupt) {
		t.Errorf("cut: %v", err)
	}
}

func FuzzBody(f *testing.F) {
	s := mustSeal(f, testEnvelope(), testBody())
	f.Add([]byte(plainLines(f, mustParse(f, s.File))))
	f.Add([]byte(`{"objects":[]}` + "\n" + `{"parent":1,"name":"a","gone":true}` + "\n"))
	f.Fuzz(func(t *testing.T, lines []byte) {
		body := &Body{}
		to := sink{
			inode:  func(i *Inode) error { body.Inodes = append(body.Inodes, *i); return nil },
			entry:  func(e *Entry) error { body.Entries = append(body.Entries, *e); return nil },
			secret: func(s chunk.Secret) error { body.Secret = &s; return nil },
		}
		if err := readLines(bytes.NewReader(lines), to); err != nil {
			if !errors.Is(err, ErrCorrupt) {
				t.Errorf("error without a class: %v", err)
			}
			return
		}
		again, _ := reopen(t, body)
		if diff := cmp.Diff(body, again, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("what was read is sealed as something else:\n%s", diff)
		}
	})
}
