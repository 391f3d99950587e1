package fusefs

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"slipway/internal/journal"
)

// churn does random operations on a few names in a few directories until the time is over; most of them fail.
func churn(mnt string, seed uint64, until time.Time) {
	r := rand.New(rand.NewPCG(seed, 1))
	name := func() string {
		return filepath.Join(mnt, fmt.Sprintf("d%d", r.IntN(3)), fmt.Sprintf("n%d", r.IntN(6)))
	}
	for time.Now().Before(until) {
		switch r.IntN(10) {
		case 0:
			_ = os.Mkdir(name(), 0o755)
		case 1, 2:
			if f, err := os.OpenFile(name(), os.O_RDWR|os.O_CREATE, 0o644); err == nil {
				_, _ = f.WriteString("content")
				_ = f.Close()
			}
		case 3, 4:
			_ = os.Remove(name())
		case 5, 6:
			_ = unix.Renameat2(unix.AT_FDCWD, name(), unix.AT_FDCWD, name(), uint(r.IntN(3))) // plain, NOREPLACE, EXCHANGE
		case 7:
			_ = os.Link(name(), name())
		case 8:
			_ = os.Symlink("x", name())
		case 9:
			_, _ = os.ReadDir(filepath.Dir(name()))
		}
	}
}

// names reduces a listing to what the order of records decides: who lies where, and with how many names. Times and sizes come
// with the last record of an inode, and those of operations that exclude each other nowhere may change places.
func names(all map[string]seen) map[string]string {
	out := map[string]string{}
	for path, s := range all {
		out[path] = fmt.Sprintf("%v type %o links %d to %q", s.Ident, s.Attr.Mode&unix.S_IFMT, s.Attr.Nlink, s.Target)
	}
	return out
}

// TestManyAtOnce: whatever several processes do at the same time in the same directories, the journal says what came of it,
// and the mount shows it.
func TestManyAtOnce(t *testing.T) {
	for mode, change := range map[string]func(*childOptions){"passthrough": func(*childOptions) {}, "served": served} {
		t.Run(mode, func(t *testing.T) {
			f := mounted(t, change)
			for i := range 3 {
				must(t, os.Mkdir(f.path(fmt.Sprintf("d%d", i)), 0o755))
			}
			until := time.Now().Add(1500 * time.Millisecond)
			var g errgroup.Group
			for seed := range 6 {
				g.Go(func() error { churn(f.mnt, uint64(seed), until); return nil })
			}
			must(t, g.Wait())
			poll(t, "every open for writing released", func() bool { return f.openForWrite() == 0 })
			records := f.records()
			if diff := cmp.Diff(names(listDisk(t, f.source)), names(fold(records).list())); diff != "" {
				t.Errorf("after %d records the source (-) and the journal (+) differ:\n%s", len(records), diff)
			}
			if diff := cmp.Diff(stats(t, f.source), stats(t, f.mnt)); diff != "" {
				t.Errorf("source (-) and mount (+) differ:\n%s", diff)
			}
			for _, r := range records {
				if r.Op == journal.OpGap {
					t.Errorf("a gap: %s", r.Name)
				}
			}
		})
	}
}
