package chunk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"
)

// cut returns the lengths of r's chunks and their content.
func cut(t testing.TB, k Keys, r io.Reader) (lengths []int, content []byte) {
	t.Helper()
	c, err := k.NewCutter(r)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for {
		data, err := c.Next()
		if errors.Is(err, io.EOF) {
			if len(data) > 0 {
				t.Fatal("data together with io.EOF")
			}
			return lengths, content
		}
		if err != nil {
			t.Fatal(err)
		}
		if len(data) == 0 || len(data) > Max {
			t.Fatalf("chunk of %d bytes", len(data))
		}
		lengths = append(lengths, len(data))
		content = append(content, data...)
	}
}

// Cut points are part of the format as well: other cuts would store every file of a volume again.
func TestGoldenCuts(t *testing.T) {
	const size = 96 << 20
	lengths, content := cut(t, testKeys(1), bytes.NewReader(noise(1, size)))
	if len(content) != size {
		t.Fatalf("%d bytes came back of %d", len(content), size)
	}
	var ends bytes.Buffer
	end := uint64(0)
	for _, n := range lengths {
		end += uint64(n)
		_ = binary.Write(&ends, binary.BigEndian, end)
	}
	if got := testKeys(1).ID(ends.Bytes()).String(); got != "15f5aebdab8eea40266ccf63ed11cbfb000cb1a1997c9b2a9f5696cb2c795d72" {
		t.Errorf("cut points have the id %s; first lengths %v", got, lengths[:5])
	}
	mean := size / len(lengths)
	if mean < 1000<<10 || mean > 1300<<10 {
		t.Errorf("mean of %d chunks is %d KiB", len(lengths), mean>>10)
	}
	for i, n := range lengths {
		if n > Max || n < Min && i < len(lengths)-1 {
			t.Errorf("chunk %d has %d bytes", i, n)
		}
	}
}

func TestSmallFiles(t *testing.T) {
	for _, n := range []int{0, 1, 4096, Min - 1, Min, Min + 1, Max, Max + 1} {
		data := noise(3, n)
		lengths, content := cut(t, testKeys(1), iotest.DataErrReader(bytes.NewReader(data)))
		if !bytes.Equal(content, data) {
			t.Errorf("%d bytes came back as %d", n, len(content))
		}
		if n == 0 && len(lengths) != 0 || n > 0 && n <= Min && len(lengths) != 1 {
			t.Errorf("%d bytes are %d chunks", n, len(lengths))
		}
	}
}

// A file up to Min must not touch the big buffers, and allocate next to nothing.
func TestSmallFileIsCheap(t *testing.T) {
	k, data := testKeys(1), noise(3, 4096)
	got := testing.AllocsPerRun(200, func() {
		c, err := k.NewCutter(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Next(); err != nil {
			t.Fatal(err)
		}
		if c.big != nil {
			t.Fatal("a small file took a big buffer")
		}
		c.Close()
	})
	if got > 4 {
		t.Errorf("a small file costs %.0f allocations", got)
	}
}

func TestCutsDoNotDependOnReads(t *testing.T) {
	k := testKeys(1)
	rapid.Check(t, func(rt *rapid.T) {
		data := noise(byte(rapid.IntRange(0, 255).Draw(rt, "seed")), rapid.IntRange(0, 6<<20).Draw(rt, "size"))
		want, _ := cut(t, k, bytes.NewReader(data))
		got, content := cut(t, k, &shortReads{r: bytes.NewReader(data), most: rapid.IntRange(1000, 1<<20).Draw(rt, "most")})
		if fmt.Sprint(got) != fmt.Sprint(want) || !bytes.Equal(content, data) {
			rt.Fatalf("cut as %v instead of %v", got, want)
		}
	})
}

// shortReads returns at most so many bytes at once, and sometimes none.
type shortReads struct {
	r     io.Reader
	most  int
	calls int
}

func (s *shortReads) Read(p []byte) (int, error) {
	if s.calls++; s.calls%3 == 0 {
		return 0, nil
	}
	return s.r.Read(p[:min(len(p), s.most)])
}

func TestInsertionMovesFewCuts(t *testing.T) {
	k, data := testKeys(1), noise(4, 24<<20)
	ids := func(data []byte) map[ID]bool {
		c, err := k.NewCutter(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		set := make(map[ID]bool)
		for {
			part, err := c.Next()
			if errors.Is(err, io.EOF) {
				return set
			}
			if err != nil {
				t.Fatal(err)
			}
			set[k.ID(part)] = true
		}
	}
	before := ids(data)
	changed := append(append(append([]byte(nil), data[:8<<20]...), "a few bytes more"...), data[8<<20:]...)
	fresh := 0
	for id := range ids(changed) {
		if !before[id] {
			fresh++
		}
	}
	if fresh == 0 || fresh > 3 {
		t.Errorf("16 bytes put in changed %d of %d chunks", fresh, len(before))
	}
}

// A read error is never the end of a file: half a file would be sealed as a whole one.
func TestReadErrors(t *testing.T) {
	for _, n := range []int{0, 100, Min, Min + 1, 3 << 20, 9 << 20} {
		for _, fault := range []error{errors.New("disk"), io.ErrUnexpectedEOF, fmt.Errorf("wrapped: %w", io.EOF)} {
			c, err := testKeys(1).NewCutter(io.MultiReader(bytes.NewReader(noise(5, n)), iotest.ErrReader(fault)))
			if err != nil {
				t.Fatal(err)
			}
			for err == nil {
				_, err = c.Next()
			}
			if !errors.Is(err, fault) || err == io.EOF { //nolint:errorlint // the bare io.EOF is what it must not be
				t.Errorf("after %d bytes: %v instead of %v", n, err, fault)
			}
			if _, again := c.Next(); again == nil || again.Error() != err.Error() {
				t.Errorf("after %d bytes, again: %v instead of %v", n, again, err)
			}
			c.Close()
		}
	}
	c, _ := testKeys(1).NewCutter(&nothing{})
	if _, err := c.Next(); !errors.Is(err, io.ErrNoProgress) {
		t.Errorf("a reader that gives nothing: %v", err)
	}
}

type nothing struct{}

func (*nothing) Read([]byte) (int, error) { return 0, nil }

func TestKeysThatWereNotDerived(t *testing.T) {
	if _, err := (Keys{}).NewCutter(bytes.NewReader(nil)); !errors.Is(err, errKeys) {
		t.Errorf("cutting without keys: %v", err)
	}
	for _, key := range [][]byte{nil, {}, make([]byte, 16), make([]byte, 33)} {
		if _, err := newChunker(bytes.NewReader(nil), key, make([]byte, Max)); !errors.Is(err, errKeys) {
			t.Errorf("a key of %d bytes: %v", len(key), err)
		}
	}
}

func TestClosedCutter(t *testing.T) {
	c, _ := testKeys(1).NewCutter(bytes.NewReader(noise(1, 5<<20)))
	if _, err := c.Next(); err != nil {
		t.Fatal(err)
	}
	c.Close()
	c.Close()
	if _, err := c.Next(); !errors.Is(err, errClosed) {
		t.Errorf("after Close: %v", err)
	}
}

func BenchmarkCutter(b *testing.B) {
	for _, size := range []int{4 << 10, 64 << 20} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			k, data := testKeys(1), noise(1, size)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				c, err := k.NewCutter(bytes.NewReader(data))
				for err == nil {
					_, err = c.Next()
				}
				c.Close()
			}
		})
	}
}
