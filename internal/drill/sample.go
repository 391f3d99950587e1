package drill

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"slipway/internal/restore"
)

// draw chooses regular files by the seed: half of them of the newest batch, the rest of the whole tree, as many as fit into the bytes. Where none
// fits, the smallest is taken: something is to be proved.
func draw(ctx context.Context, tree *restore.Tree, o *Options) ([]restore.Row, error) {
	newest, err := tree.Newest(ctx)
	if err != nil {
		return nil, err
	}
	var late, all []restore.Row
	if err := tree.Walk("", func(row restore.Row) error {
		if row.Mode&unix.S_IFMT != unix.S_IFREG || row.State == "pending" || row.State == "unclean" || row.Err != nil {
			return nil
		}
		if newest[row.ID] {
			late = append(late, row)
		}
		all = append(all, row)
		return ctx.Err()
	}); err != nil {
		return nil, err
	}
	random := rand.New(rand.NewPCG(o.Seed, 0))
	s := sample{left: o.Bytes, taken: map[string]bool{}}
	s.take(random, late, (o.Files+1)/2)
	s.take(random, all, o.Files)
	if len(s.rows) == 0 && len(all) > 0 {
		least := all[0]
		for _, row := range all {
			if row.Size < least.Size {
				least = row
			}
		}
		s.rows = append(s.rows, least)
	}
	return s.rows, nil
}

type sample struct {
	rows  []restore.Row
	left  int64 // bytes
	taken map[string]bool
}

// take fills up to n files.
func (s *sample) take(random *rand.Rand, from []restore.Row, n int) {
	for _, i := range random.Perm(len(from)) {
		row := from[i]
		if len(s.rows) >= n {
			return
		}
		if !s.taken[row.Path] && row.Size <= s.left {
			s.rows, s.left, s.taken[row.Path] = append(s.rows, row), s.left-row.Size, true
		}
	}
}

// compare looks at the files themselves, where they are here and have not changed since they were sealed.
func compare(ctx context.Context, source, dir string, sample []restore.Row, r *Result) error {
	root, err := os.OpenRoot(source)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // the configuration was copied to another host
	}
	if err != nil {
		return fmt.Errorf("compare with %s: %w", source, err)
	}
	defer func() { _ = root.Close() }()
	for _, row := range sample {
		if err := ctx.Err(); err != nil {
			return err
		}
		same, compared := equal(root, filepath.Join(dir, "restored", row.Path), row)
		if compared {
			r.Compared++
		}
		if compared && !same {
			r.problem(row.Path, "is not what lies in "+source+", where it has not changed since it was sealed, or was changed with its times set back")
		}
	}
	return nil
}

// equal compares a restored file with the one in the source. One that is gone, has changed, or changes meanwhile is not compared; one that was
// not restored is told already.
func equal(root *os.Root, restored string, row restore.Row) (same, compared bool) {
	unchanged := func(f *os.File) bool {
		st, err := f.Stat()
		return err == nil && st.Mode().IsRegular() && st.Size() == row.Size && st.ModTime().Equal(row.Mtime)
	}
	named, err := root.Lstat(row.Path) // a Root follows links that stay inside
	if err != nil || !named.Mode().IsRegular() {
		return false, false
	}
	// A FIFO may take the name meanwhile: without O_NONBLOCK its opening would wait for a writer.
	ours, err := root.OpenFile(row.Path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return false, false
	}
	defer func() { _ = ours.Close() }()
	theirs, err := os.Open(restored)
	if err != nil || row.State != "" || !unchanged(ours) {
		return false, false
	}
	defer func() { _ = theirs.Close() }()
	same, err = alike(ours, theirs)
	return same, err == nil && unchanged(ours)
}

func alike(a, b io.Reader) (bool, error) {
	x, y := make([]byte, 256<<10), make([]byte, 256<<10)
	for {
		n, err := io.ReadFull(a, x)
		m, err2 := io.ReadFull(b, y)
		if !bytes.Equal(x[:n], y[:m]) {
			return false, nil
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return errors.Is(err2, err), nil
		}
		if err := errors.Join(err, err2); err != nil {
			return false, err
		}
	}
}
