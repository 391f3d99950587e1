// Package storetest is the conformance suite of stores: what every kind of store does alike. It opens stores through the
// function it is given and keeps nothing, so that after a crash nothing of it is left.
package storetest

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"slipway/internal/store"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"
)

const (
	batch = "batches/00000001/00000000/000000000042-000000000042.batch"
	claim = "claims/00000001-000003"
	max   = 16 << 20
)

// cases are what Run runs, in this order.
var cases = []struct {
	name string
	run  func(t *testing.T, s store.Store)
}{
	{"publish", testPublish},
	{"publish empty", testPublishEmpty},
	{"publish twice", testPublishTwice},
	{"publish other content", testPublishOther},
	{"publish under a file", testPublishUnderFile},
	{"publish over a directory", testPublishOverDirectory},
	{"never half visible", testNeverHalf},
	{"create exclusively", testExclusive},
	{"create exclusively at once", testExclusiveAtOnce},
	{"publish at once", testPublishAtOnce},
	{"replace", testReplace},
	{"replace while read", testReplaceWhileRead},
	{"read bound", testReadBound},
	{"read absent", testReadAbsent},
	{"read directory", testReadDirectory},
	{"sum", testSum},
	{"stat", testStat},
	{"list", testList},
	{"list absent", testListAbsent},
	{"many names", testManyNames},
	{"bad names", testBadNames},
	{"cancelled", testCancelled},
	{"big object", testBig},
	{"many in parallel", testParallel},
	{"sub", testSub},
	{"remove", testRemove},
	{"space", testSpace},
	{"closed", testClosed},
}

// Run runs the suite. open returns a store that is empty, and new for each call; the suite closes it.
func Run(t *testing.T, open func(t *testing.T) store.Store) {
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			s := open(t)
			defer func() {
				if err := s.Close(); err != nil {
					t.Errorf("close: %v", err)
				}
			}()
			c.run(t, s)
		})
	}
}

func bytesOf(seed, n int) []byte {
	data := make([]byte, n)
	chacha := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	_, _ = chacha.Read(data) // never fails
	return data
}

func mustPublish(t *testing.T, s store.Store, name string, data []byte) {
	t.Helper()
	if err := s.Publish(t.Context(), name, data); err != nil {
		t.Fatal(err)
	}
}

func mustHold(t *testing.T, s store.Store, name string, want []byte) {
	t.Helper()
	got, err := s.Read(t.Context(), name, max)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("%s holds %d bytes that differ from the %d published", name, len(got), len(want))
	}
}

func mustBe(t *testing.T, err, class error) {
	t.Helper()
	if !errors.Is(err, class) {
		t.Fatalf("got %v, want: %v", err, class)
	}
}

func names(t *testing.T, s store.Store, dir string) []string {
	t.Helper()
	found, err := s.List(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, i := range found {
		list = append(list, i.Name)
	}
	return list
}

func testPublish(t *testing.T, s store.Store) {
	data := bytesOf(1, 5000)
	mustPublish(t, s, batch, data)
	mustHold(t, s, batch, data)
	mustPublish(t, s, "volume.json", data) // in the store's own directory
	mustHold(t, s, "volume.json", data)
}

func testPublishEmpty(t *testing.T, s store.Store) {
	mustPublish(t, s, "empty", nil)
	mustHold(t, s, "empty", nil)
}

func testPublishTwice(t *testing.T, s store.Store) {
	for _, name := range []string{batch, "shards/3f/3fa9.shard"} {
		data := bytesOf(1, 5000)
		for range 3 {
			mustPublish(t, s, name, data)
		}
		mustHold(t, s, name, data)
	}
	if got := names(t, s, "shards/3f"); len(got) != 1 {
		t.Fatalf("beside the object: %v", got)
	}
}

func testPublishOther(t *testing.T, s store.Store) {
	data := bytesOf(1, 5000)
	mustPublish(t, s, batch, data)
	for _, other := range [][]byte{bytesOf(2, 5000), data[:4999], bytesOf(1, 5001), nil} {
		mustBe(t, s.Publish(t.Context(), batch, other), store.ErrDiffers)
	}
	mustHold(t, s, batch, data)
	mustPublish(t, s, "shards/3f/3fa9.shard", data)
	mustBe(t, s.Publish(t.Context(), "shards/3f/3fa9.shard", data[1:]), store.ErrDiffers)
}

func testPublishUnderFile(t *testing.T, s store.Store) {
	mustPublish(t, s, "file", nil)
	if err := s.Publish(t.Context(), "file/below", nil); err == nil {
		t.Fatal("an object below an object")
	}
	_, err := s.Read(t.Context(), "file/below", max)
	mustBe(t, err, store.ErrNotExist)
}

func testPublishOverDirectory(t *testing.T, s store.Store) {
	mustPublish(t, s, "dir/object", nil)
	mustBe(t, s.Publish(t.Context(), "dir", nil), store.ErrDiffers)
	mustBe(t, s.CreateExclusive(t.Context(), "dir", nil), store.ErrExist)
	if err := s.Replace(t.Context(), "dir", nil); err == nil {
		t.Fatal("a directory was replaced")
	}
	mustHold(t, s, "dir/object", nil)
}

// testNeverHalf looks for the object all the time while it is being published.
func testNeverHalf(t *testing.T, s store.Store) {
	data := bytesOf(3, 3<<20)
	group, ctx := errgroup.WithContext(t.Context())
	done := make(chan struct{})
	group.Go(func() error {
		defer close(done)
		return s.Publish(ctx, batch, data)
	})
	group.Go(func() error {
		for {
			got, err := s.Read(ctx, batch, max)
			if err == nil && !bytes.Equal(got, data) {
				return fmt.Errorf("seen half: %d bytes", len(got))
			}
			if err != nil && !errors.Is(err, store.ErrNotExist) {
				return err
			}
			found, err := s.List(ctx, "batches/00000001/00000000")
			if err != nil || len(found) > 1 || len(found) == 1 && found[0].Size != int64(len(data)) {
				return fmt.Errorf("listed half: %v, %w", found, err)
			}
			select {
			case <-done:
				return nil
			default:
			}
		}
	})
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	mustHold(t, s, batch, data)
}

func testExclusive(t *testing.T, s store.Store) {
	data := []byte("alpha")
	if err := s.CreateExclusive(t.Context(), claim, data); err != nil {
		t.Fatal(err)
	}
	for _, other := range []string{"alpha", "bravo", ""} {
		mustBe(t, s.CreateExclusive(t.Context(), claim, []byte(other)), store.ErrExist)
	}
	mustHold(t, s, claim, data)
}

func testExclusiveAtOnce(t *testing.T, s store.Store) {
	const writers = 12
	var results [writers]error
	var group errgroup.Group
	for i := range writers {
		group.Go(func() error {
			results[i] = s.CreateExclusive(t.Context(), claim, fmt.Appendf(nil, "node %d", i))
			return nil
		})
	}
	_ = group.Wait() // none returns an error
	winner := -1
	for i, err := range results {
		if err == nil && winner >= 0 {
			t.Fatalf("two winners: %d and %d", winner, i)
		}
		if err == nil {
			winner = i
		} else {
			mustBe(t, err, store.ErrExist)
		}
	}
	if winner < 0 {
		t.Fatal("no winner")
	}
	mustHold(t, s, claim, fmt.Appendf(nil, "node %d", winner))
}

// testPublishAtOnce has several senders do the same work.
func testPublishAtOnce(t *testing.T, s store.Store) {
	data := bytesOf(4, 100_000)
	var group errgroup.Group
	for range 8 {
		group.Go(func() error { return s.Publish(t.Context(), batch, data) })
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	mustHold(t, s, batch, data)
}

func testReplace(t *testing.T, s store.Store) {
	for _, data := range [][]byte{[]byte("first"), []byte("second, longer"), []byte("3"), nil} {
		if err := s.Replace(t.Context(), "progress/alpha.json", data); err != nil {
			t.Fatal(err)
		}
		mustHold(t, s, "progress/alpha.json", data)
	}
	if got := names(t, s, "progress"); len(got) != 1 {
		t.Fatalf("beside the object: %v", got)
	}
}

// testReplaceWhileRead reads versions of different lengths; each is whole.
func testReplaceWhileRead(t *testing.T, s store.Store) {
	const name, versions = "progress/alpha.json", 40
	version := func(i int) []byte { return bytes.Repeat([]byte{byte('a' + i%26)}, 1+i*37%500) }
	if err := s.Replace(t.Context(), name, version(0)); err != nil {
		t.Fatal(err)
	}
	group, ctx := errgroup.WithContext(t.Context())
	done := make(chan struct{})
	group.Go(func() error {
		defer close(done)
		for i := range versions {
			if err := s.Replace(ctx, name, version(i)); err != nil {
				return err
			}
		}
		return nil
	})
	group.Go(func() error {
		for {
			got, err := s.Read(ctx, name, max)
			if err != nil {
				return err
			}
			if len(got) == 0 || len(bytes.Trim(got, string(got[:1]))) != 0 {
				return fmt.Errorf("mixed: %q", got)
			}
			select {
			case <-done:
				return nil
			default:
			}
		}
	})
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	mustHold(t, s, name, version(versions-1))
}

func testReadBound(t *testing.T, s store.Store) {
	data := bytesOf(5, 1000)
	mustPublish(t, s, batch, data)
	if got, err := s.Read(t.Context(), batch, 1000); err != nil || len(got) != 1000 {
		t.Fatalf("at the bound: %d bytes, %v", len(got), err)
	}
	_, err := s.Read(t.Context(), batch, 999)
	mustBe(t, err, store.ErrTooLarge)
}

func testReadAbsent(t *testing.T, s store.Store) {
	mustPublish(t, s, "there", nil)
	for _, name := range []string{batch, "absent"} {
		_, err := s.Read(t.Context(), name, max)
		mustBe(t, err, store.ErrNotExist)
		_, err = s.Stat(t.Context(), name)
		mustBe(t, err, store.ErrNotExist)
	}
}

// testSum compares what is told without reading the whole with the whole.
func testSum(t *testing.T, s store.Store) {
	for _, size := range []int{0, 1, 256 << 10, 1<<20 + 1} {
		name := fmt.Sprintf("object%d", size)
		data := bytesOf(7, size)
		mustPublish(t, s, name, data)
		got, n, err := store.Sum(t.Context(), s, name, int64(size))
		if err != nil || n != int64(size) || got != sha256.Sum256(data) {
			t.Errorf("%s: %x of %d bytes, %v", name, got, n, err)
		}
	}
	_, _, err := store.Sum(t.Context(), s, "object1", 0)
	mustBe(t, err, store.ErrTooLarge)
	_, _, err = store.Sum(t.Context(), s, "absent", max)
	mustBe(t, err, store.ErrNotExist)
	mustPublish(t, s, "dir/object", nil)
	if _, _, err = store.Sum(t.Context(), s, "dir", max); err == nil {
		t.Error("a directory has a sum")
	}
}

func testReadDirectory(t *testing.T, s store.Store) {
	mustPublish(t, s, "dir/object", nil)
	_, err := s.Read(t.Context(), "dir", max)
	if err == nil || errors.Is(err, store.ErrNotExist) || errors.Is(err, store.ErrTemporary) {
		t.Fatalf("reading a directory: %v", err)
	}
}

func testStat(t *testing.T, s store.Store) {
	before := time.Now()
	mustPublish(t, s, batch, bytesOf(6, 1234))
	info, err := s.Stat(t.Context(), batch)
	if err != nil {
		t.Fatal(err)
	}
	if age := info.ModTime.Sub(before); age < -2*time.Second || age > time.Minute {
		t.Errorf("modified at %v, published at %v", info.ModTime, before)
	}
	info.ModTime = time.Time{}
	if diff := cmp.Diff(store.Info{Name: batch, Size: 1234}, info); diff != "" {
		t.Error(diff)
	}
	dir, err := s.Stat(t.Context(), "batches")
	if err != nil || !dir.Dir || dir.Name != "batches" {
		t.Fatalf("directory: %+v, %v", dir, err)
	}
}

func testList(t *testing.T, s store.Store) {
	for _, name := range []string{"d/b", "d/a", "d/c/x", "d/B", "d/a-1", "d/10", "d/9"} {
		mustPublish(t, s, name, []byte(name))
	}
	found, err := s.List(t.Context(), "d")
	if err != nil {
		t.Fatal(err)
	}
	for i := range found {
		if found[i].ModTime.IsZero() {
			t.Errorf("%s has no time", found[i].Name)
		}
		found[i].ModTime = time.Time{}
		if found[i].Dir {
			found[i].Size = 0
		}
	}
	want := []store.Info{{Name: "10", Size: 4}, {Name: "9", Size: 3}, {Name: "B", Size: 3}, {Name: "a", Size: 3},
		{Name: "a-1", Size: 5}, {Name: "b", Size: 3}, {Name: "c", Dir: true}}
	if diff := cmp.Diff(want, found); diff != "" {
		t.Fatal(diff)
	}
	if got := names(t, s, ""); len(got) != 1 || got[0] != "d" {
		t.Fatalf("the store itself: %v", got)
	}
}

func testListAbsent(t *testing.T, s store.Store) {
	for _, dir := range []string{"", "absent", "absent/below"} {
		if got := names(t, s, dir); len(got) != 0 {
			t.Fatalf("%q: %v", dir, got)
		}
	}
	mustPublish(t, s, "file", nil)
	if got := names(t, s, "file"); len(got) != 0 {
		t.Fatalf("an object: %v", got)
	}
}

func testManyNames(t *testing.T, s store.Store) {
	const n = 300 // more than one answer of a server holds
	group, ctx := errgroup.WithContext(t.Context())
	group.SetLimit(8)
	for i := range n {
		group.Go(func() error { return s.Publish(ctx, fmt.Sprintf("d/%08d-with-a-rather-long-name", i), nil) })
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	if got := names(t, s, "d"); len(got) != n {
		t.Fatalf("%d of %d names", len(got), n)
	}
}
