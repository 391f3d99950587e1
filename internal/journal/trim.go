package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Trim removes the files that hold only records before upto, and dead instances older than upto's. The instance of upto stays,
// and its last file with it, so that upto can be opened again and serials never start anew.
//
// Dying in the middle leaves a journal without its oldest part, or a directory under a name that the next Create removes.
func (r *Reader) Trim(upto Position) error {
	all, err := instances(r.dir)
	if err != nil {
		return err
	}
	for i, inst := range all {
		switch {
		case inst.serial < upto.Serial && i < len(all)-1:
			err = removeInstance(r.dir, inst)
		case inst.serial == upto.Serial && inst.id == upto.Instance:
			err = trimFiles(filepath.Join(r.dir, inst.name()), upto.Offset)
		}
		if err != nil {
			return fmt.Errorf("trim journal instance %s: %w", inst.name(), err)
		}
	}
	return nil
}

// removeInstance takes a dead instance away in one step, then removes it.
func removeInstance(dir string, inst instance) error {
	from, to := filepath.Join(dir, inst.name()), filepath.Join(dir, oldPrefix+inst.name())
	lock, err := os.Open(filepath.Join(from, lockName))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err == nil {
		defer func() { _ = lock.Close() }()
		if alive, err := isAlive(lock); alive || err != nil {
			return err
		}
	}
	if err := publish(from, to); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return os.RemoveAll(to)
}

// trimFiles removes the files that end at or before upto, oldest first, the last one never.
func trimFiles(instDir string, upto int64) error {
	files, err := starts(instDir)
	if err != nil {
		return err
	}
	for i := 0; i+1 < len(files) && files[i+1] <= upto; i++ {
		if err := os.Remove(filepath.Join(instDir, fileName(files[i]))); err != nil {
			return err
		}
	}
	return nil
}
