// Package journal is the mount's log of operations, on local disk: the mount process appends to it before the kernel gets its
// answer, the spooler reads it, and neither knows of the other. The format, and how an unfinished record is told from a torn
// one, is in docs/format-journal.md.
//
// A journal directory holds one directory for each instance (one life of a mount process), and each of these a lock file, held
// with flock(2) while the writer lives, and the files of records, each named after the number of record bytes before it:
//
//	<dir>/00000007-9f86d081884c7d65/lock
//	<dir>/00000007-9f86d081884c7d65/0000000000000000.journal
//	<dir>/00000007-9f86d081884c7d65/0000000001000213.journal
//
// What is true after a crash. Of the mount process, at any instant: every record whose Append returned is there and whole,
// except behind a gap that nobody was told of yet; the last record may be torn, and readers pass over it with an OpGap. Of the
// machine: anything may be missing, as nothing is ever fsynced. Both end the instance, and the start of the next is a gap that
// the spooler closes by comparing the tree; so the journal saves work, and nothing is lost with it. Files are only ever appended
// to: a byte that a reader has seen stays as it is.
package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrWait says that no whole record follows now and the writer lives, or no newer instance has begun; look again when the
// directory changes.
var ErrWait = errors.New("no further record yet")

// ErrLost says that the position asked for is not in this journal (trimmed, torn, or another instance): a gap, walk the source.
var ErrLost = errors.New("position is not in the journal")

// ErrVersion says that a journal file was written by another version of this program.
var ErrVersion = errors.New("unknown version of the journal format")

const (
	lockName   = "lock"
	nextName   = "next" // a file of records that has no whole header yet
	fileSuffix = ".journal"
	newPrefix  = "new-" // an instance that is being made
	oldPrefix  = "old-" // an instance that is being removed
)

// instance is one life of a writer.
type instance struct {
	serial uint64
	id     uint64
}

func (i instance) name() string { return fmt.Sprintf("%08d-%016x", i.serial, i.id) }

func (i instance) isZero() bool { return i == instance{} }

// compare orders instances; two of one serial (a journal put together by hand) have some order.
func (i instance) compare(j instance) int {
	if i.serial != j.serial {
		if i.serial < j.serial {
			return -1
		}
		return 1
	}
	if i.id != j.id {
		if i.id < j.id {
			return -1
		}
		return 1
	}
	return 0
}

// parseInstance reads a directory's name; anything that is not one in its canonical form is not an instance.
func parseInstance(name string) (instance, bool) {
	s, id, ok := strings.Cut(name, "-")
	if !ok {
		return instance{}, false
	}
	var i instance
	var err1, err2 error
	i.serial, err1 = strconv.ParseUint(s, 10, 64)
	i.id, err2 = strconv.ParseUint(id, 16, 64)
	return i, err1 == nil && err2 == nil && i.serial > 0 && i.name() == name
}

// instances lists the instances below dir in order; a directory that is not there has none.
func instances(dir string) ([]instance, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list journal: %w", err)
	}
	var all []instance
	for _, e := range entries {
		if i, ok := parseInstance(e.Name()); ok {
			all = append(all, i)
		}
	}
	slices.SortFunc(all, instance.compare)
	return all, nil
}

func fileName(start int64) string { return fmt.Sprintf("%016x%s", start, fileSuffix) }

// starts lists the files of records of one instance, each by the record bytes before it, in order.
func starts(instDir string) ([]int64, error) {
	entries, err := os.ReadDir(instDir)
	if err != nil {
		return nil, fmt.Errorf("list journal instance: %w", err)
	}
	var all []int64
	for _, e := range entries {
		hex, ok := strings.CutSuffix(e.Name(), fileSuffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(hex, 16, 64)
		if err == nil && n >= 0 && fileName(n) == e.Name() {
			all = append(all, n)
		}
	}
	slices.Sort(all)
	return all, nil
}

// recordBytes is how much of a file of that size is behind its header.
func recordBytes(size int64) int64 { return max(0, size-headerSize) }

// End returns the position behind the last byte written so far by anyone: what was answered before the call lies before it,
// or behind a gap that is still to be told. Zero where there is no journal.
func End(dir string) (Position, error) {
	all, err := instances(dir)
	if err != nil || len(all) == 0 {
		return Position{}, err
	}
	newest := all[len(all)-1]
	p := Position{Serial: newest.serial, Instance: newest.id}
	instDir := filepath.Join(dir, newest.name())
	files, err := starts(instDir)
	if err != nil || len(files) == 0 {
		return p, err
	}
	last := files[len(files)-1]
	info, err := os.Stat(filepath.Join(instDir, fileName(last)))
	if err != nil {
		return Position{}, fmt.Errorf("find end of journal: %w", err)
	}
	p.Offset = last + recordBytes(info.Size())
	return p, nil
}

// isAlive tells whether the writer that holds this lock file's flock lives. The probe takes a shared lock for a moment; the
// writer got its own before anyone could see the instance, so it is never in its way.
func isAlive(lock *os.File) (bool, error) {
	err := flock(lock, unix.LOCK_SH|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("probe journal lock: %w", err)
	}
	if err := flock(lock, unix.LOCK_UN); err != nil {
		return false, fmt.Errorf("drop journal lock: %w", err)
	}
	return false, nil
}

func flock(f *os.File, how int) error {
	for {
		err := unix.Flock(int(f.Fd()), how)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
