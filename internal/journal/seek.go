package journal

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// seek goes to a position that was reached before.
func (r *Reader) seek(from Position) error {
	inst := instance{serial: from.Serial, id: from.Instance}
	if err := r.openInstance(inst); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("find journal instance %s: %w", inst.name(), ErrLost)
		}
		return err
	}
	files, err := starts(r.instDir)
	if err != nil {
		return err
	}
	var start int64 = -1
	for _, s := range files {
		if s <= from.Offset {
			start = s
		}
	}
	if start < 0 {
		return fmt.Errorf("find offset %d of journal instance %s: %w", from.Offset, inst.name(), ErrLost)
	}
	if err := r.openFile(start); err != nil {
		return err
	}
	end, err := r.fileEnd()
	if err != nil {
		return err
	}
	if from.Offset > end {
		return fmt.Errorf("find offset %d of journal instance %s, which ends at %d: %w", from.Offset, inst.name(), end, ErrLost)
	}
	r.at = from.Offset
	return nil
}

// nextFile goes on in the file of the same instance that begins at start.
func (r *Reader) nextFile(start int64) error {
	end := r.at
	if err := r.openFile(start); err != nil {
		return err
	}
	if start != end && r.gap == "" {
		r.gap = "missing journal file"
	}
	return nil
}

// nextInstance goes on in the instance after the present one, if there is one. While the present one lives it is not asked.
func (r *Reader) nextInstance() (bool, error) {
	all, err := instances(r.dir)
	if err != nil {
		return false, err
	}
	for _, i := range all {
		if i.compare(r.instance) <= 0 {
			continue
		}
		found, err := r.enterInstance(i)
		if found || err != nil {
			return found, err
		}
	}
	return false, nil
}

// enterInstance goes to the beginning of i; false where somebody has just removed it.
func (r *Reader) enterInstance(i instance) (bool, error) {
	first := r.instance.isZero()
	err := r.openInstance(i)
	if err == nil {
		var files []int64
		files, err = starts(r.instDir)
		if err == nil && len(files) == 0 {
			return false, nil
		}
		if err == nil {
			err = r.openFile(files[0])
		}
		if err == nil && files[0] != 0 && !first && r.gap == "" {
			r.gap = "missing journal file"
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// openInstance leaves what was open and makes i the present instance, no file of it open yet.
func (r *Reader) openInstance(i instance) error {
	instDir := filepath.Join(r.dir, i.name())
	lock, err := os.Open(filepath.Join(instDir, lockName))
	if err != nil {
		return fmt.Errorf("open journal instance: %w", err)
	}
	if err := r.Close(); err != nil {
		_ = lock.Close()
		return err
	}
	r.instance, r.instDir, r.seed, r.lock, r.dead = i, instDir, seed(i.id), lock, false
	return nil
}

// openFile makes the file that begins at start the present one. A damaged header is a gap; its records are read all the same,
// each proves itself.
func (r *Reader) openFile(start int64) error {
	f, err := os.Open(filepath.Join(r.instDir, fileName(start)))
	if err != nil {
		return fmt.Errorf("open journal file: %w", err)
	}
	header := make([]byte, headerSize)
	n, err := f.ReadAt(header, 0)
	if err == nil || errors.Is(err, io.EOF) {
		err = checkHeader(header[:n], r.instance, start)
	}
	if err != nil && !errors.Is(err, errDamaged) {
		return errors.Join(fmt.Errorf("open journal file %s: %w", f.Name(), err), f.Close())
	}
	r.gap = ""
	if err != nil {
		r.gap = "damaged header of a journal file"
	}
	if r.file != nil {
		_ = r.file.Close()
	}
	r.file, r.start, r.at, r.final, r.buf = f, start, start, false, nil
	return nil
}
