package storetest

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"slipway/internal/store"

	"golang.org/x/sync/errgroup"
)

func testBadNames(t *testing.T, s store.Store) {
	bad := []string{"", "/", "/abs", "a/", "a//b", ".", "..", "../up", "a/../b", "a/./b", ".hidden", "a/.tmp", "sp ace", "nul\x00",
		"new\nline", "ä", "a\\b", "a:b", "*", strings.Repeat("x", 256), strings.Repeat("abcdefgh/", 200) + "x"}
	for _, name := range bad {
		_, readErr := s.Read(t.Context(), name, max)
		_, statErr := s.Stat(t.Context(), name)
		calls := map[string]error{
			"publish": s.Publish(t.Context(), name, nil),
			"create":  s.CreateExclusive(t.Context(), name, nil),
			"replace": s.Replace(t.Context(), name, nil),
			"read":    readErr,
			"stat":    statErr,
		}
		if name != "" {
			_, calls["list"] = s.List(t.Context(), name)
		}
		for verb, err := range calls {
			if !errors.Is(err, store.ErrName) {
				t.Errorf("%s %.40q: %v", verb, name, err)
			}
		}
	}
	if got := names(t, s, ""); len(got) != 0 {
		t.Fatalf("made all the same: %v", got)
	}
	mustPublish(t, s, strings.Repeat("x", 255), nil)
}

func testCancelled(t *testing.T, s store.Store) {
	mustPublish(t, s, "there", nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, readErr := s.Read(ctx, "there", max)
	_, statErr := s.Stat(ctx, "there")
	_, listErr := s.List(ctx, "")
	for verb, err := range map[string]error{
		"publish": s.Publish(ctx, "object", nil),
		"create":  s.CreateExclusive(ctx, "object", nil),
		"replace": s.Replace(ctx, "object", nil),
		"read":    readErr,
		"stat":    statErr,
		"list":    listErr,
	} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", verb, err)
		}
	}
	_, err := s.Stat(t.Context(), "object")
	mustBe(t, err, store.ErrNotExist)
}

func testBig(t *testing.T, s store.Store) {
	for i, size := range []int{8 << 20, 8<<20 + 1, 255 << 10, 32<<10 - 1, 2 << 20, 2<<20 + 1} {
		name := fmt.Sprintf("shards/3f/3fa%d.shard", i)
		data := bytesOf(i, size)
		mustPublish(t, s, name, data)
		mustHold(t, s, name, data)
	}
}

func testParallel(t *testing.T, s store.Store) {
	group, ctx := errgroup.WithContext(t.Context())
	for i := range 32 {
		group.Go(func() error {
			data := bytesOf(i, i*10_007)
			name := fmt.Sprintf("shards/%02x/%02x.shard", i%5, i)
			if err := s.Publish(ctx, name, data); err != nil {
				return err
			}
			got, err := s.Read(ctx, name, max)
			if err == nil && string(got) != string(data) {
				err = fmt.Errorf("%s came back different", name)
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
}

func testSub(t *testing.T, s store.Store) {
	volume := store.Sub(s, "projects")
	deeper := store.Sub(volume, "batches")
	data := bytesOf(7, 100)
	mustPublish(t, volume, "batches/x", data)
	mustHold(t, deeper, "x", data)
	mustHold(t, s, "projects/batches/x", data)
	if got := names(t, volume, ""); len(got) != 1 || got[0] != "batches" {
		t.Fatalf("list: %v", got)
	}
	if got := names(t, volume, "batches"); len(got) != 1 || got[0] != "x" {
		t.Fatalf("list below: %v", got)
	}
	if info, err := deeper.Stat(t.Context(), "x"); err != nil || info.Name != "x" {
		t.Fatalf("stat: %+v, %v", info, err)
	}
	if err := volume.Replace(t.Context(), "r", data); err != nil {
		t.Fatal(err)
	}
	if err := volume.CreateExclusive(t.Context(), "r", data); !errors.Is(err, store.ErrExist) {
		t.Fatal(err)
	}
	if err := volume.Close(); err != nil {
		t.Fatal(err)
	}
	mustHold(t, s, "projects/r", data) // closing a part closes nothing
	for _, dir := range []string{"..", "a/", "/", "."} {
		mustBe(t, store.Sub(s, dir).Publish(t.Context(), "x", nil), store.ErrName)
	}
	whole, local := store.LocalPath(s)
	part, partLocal := store.LocalPath(deeper)
	if local != partLocal || local && part != filepath.Join(whole, "projects/batches") {
		t.Fatalf("local paths %q and %q", whole, part)
	}
}

func testRemove(t *testing.T, s store.Store) {
	mustPublish(t, s, batch, nil)
	err := s.Remove(t.Context(), batch)
	if _, local := store.LocalPath(s); !local {
		mustBe(t, err, store.ErrReadSide)
		mustHold(t, s, batch, nil)
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Stat(t.Context(), batch)
	mustBe(t, err, store.ErrNotExist)
	for _, absent := range []string{batch, "absent/below"} {
		if err := s.Remove(t.Context(), absent); err != nil {
			t.Fatalf("absent: %v", err)
		}
	}
	mustBe(t, s.Remove(t.Context(), "../up"), store.ErrName)
}

func testSpace(t *testing.T, s store.Store) {
	free, total, err := store.Space(t.Context(), s)
	if err != nil || total == 0 || free > total {
		t.Fatalf("%d of %d bytes free, %v", free, total, err)
	}
	if weak := store.Weak(s); len(weak) != 0 {
		t.Fatalf("weak: %v", weak)
	}
}

func testClosed(t *testing.T, s store.Store) {
	mustPublish(t, s, batch, nil)
	for range 2 {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, local := store.LocalPath(s); local {
		return // holds nothing
	}
	if err := s.Publish(t.Context(), "object", nil); err == nil {
		t.Fatal("published through a closed store")
	}
}
