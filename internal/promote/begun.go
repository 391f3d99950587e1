package promote

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"slipway/internal/durable"
	"slipway/internal/restore"
)

// sourceFile names the directory into which a promotion has begun to bring the files back: the next call finishes what it began, and
// writes into no other.
func (r *run) sourceFile() string { return filepath.Join(string(r.home), "promote.source") }

// begun tells whether what lies in the source was put there by an earlier call.
func (r *run) begun() (bool, error) {
	data, err := os.ReadFile(r.sourceFile())
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return string(data) == r.opt.Source, err
}

// begin notes the directory before anything is written into it.
func (r *run) begin() error {
	return durable.Overwrite(r.sourceFile(), []byte(r.opt.Source), 0o600)
}

// nothingElse refuses what an earlier call brought back and the head does not have any more: it would become part of the volume again.
func (r *run) nothingElse(tree *restore.Tree) error {
	has := map[string]bool{}
	if err := tree.Walk("", func(row restore.Row) error {
		has[row.Path] = true
		return nil
	}); err != nil {
		return err
	}
	return filepath.WalkDir(r.opt.Source, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(r.opt.Source, path)
		if err != nil || rel == "." || has[rel] {
			return err
		}
		return fmt.Errorf("%s is not in batch %d: %w; remove it, or with --force it becomes part of the volume", path, tree.Seq, ErrSource)
	})
}
