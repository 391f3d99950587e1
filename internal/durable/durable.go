// Package durable has the verbs by which everything this project keeps on a local disk comes into being: create
// exclusively, create idempotently, overwrite, make directories, remove. Each returns only when its effect is on the disk.
//
// After a crash, at any instant, a name either holds the whole content that one verb gave it or it is as it was before.
// What may be left besides are files under temporary names (IsTemp), which mean nothing and may be removed by anybody
// who knows that no writer is alive.
//
// The steps are always the same: exclusive temporary name in the target's own directory, write, fsync, rename, fsync of
// the directory. An fsync that failed is never repeated: the kernel may have dropped the pages and marked them clean, so
// the temporary file is thrown away and the caller begins again from the source.
package durable

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ErrDiffers says that the name is taken by another content (or by something that is not a regular file).
var ErrDiffers = errors.New("exists with other content")

// ErrLocked says that another process has the lock.
var ErrLocked = errors.New("locked by another process")

// CreateExclusive makes path with data and returns fs.ErrExist (wrapped) if it is there. After a crash: whole or absent
// under that name.
func CreateExclusive(path string, data []byte, perm os.FileMode) error {
	return in(path, func(d *Dir, name string) error { return d.CreateExclusive(name, data, perm) })
}

// CreateIdempotent is CreateExclusive, but present and equal is success (the directory is fsynced all the same);
// present and different is ErrDiffers.
func CreateIdempotent(path string, data []byte, perm os.FileMode) error {
	return in(path, func(d *Dir, name string) error { return d.CreateIdempotent(name, data, perm) })
}

// Overwrite replaces path's content in one step: after a crash the old or the new.
func Overwrite(path string, data []byte, perm os.FileMode) error {
	return in(path, func(d *Dir, name string) error { return d.Overwrite(name, data, perm) })
}

// Remove removes path and fsyncs its directory; absent is success.
func Remove(path string) error {
	err := in(path, func(d *Dir, name string) error { return d.Remove(name) })
	if errors.Is(err, fs.ErrNotExist) {
		return nil // the directory itself is absent
	}
	return err
}

// WriteTemp writes and fsyncs data under a temporary name in dir, fsyncs dir, and returns the path of that file. After a
// crash it is there for PublishTemp, whole, from the moment this has returned.
func WriteTemp(dir string, data []byte, perm os.FileMode) (string, error) {
	d, err := OpenDir(dir)
	if err != nil {
		return "", err
	}
	name, err := d.writeTemp(data, perm)
	if err == nil {
		if err = d.Sync(); err != nil {
			d.discard(name)
		}
	}
	if err := errors.Join(err, d.Close()); err != nil {
		return "", err
	}
	return filepath.Join(dir, name), nil
}

// PublishTemp renames what WriteTemp made to path without replacing and fsyncs the directory. It may be repeated after a
// crash: a path with the same content is success, and so is a path that is there when the temporary file is not, since
// the rename that came before took it away. Another content is ErrDiffers, and the temporary file stays.
func PublishTemp(temp, path string) error {
	from, err := OpenDir(filepath.Dir(temp))
	if err != nil {
		return err
	}
	err = in(path, func(d *Dir, name string) error { return d.publishFrom(from, filepath.Base(temp), name) })
	return errors.Join(err, from.Close())
}

// MkdirAll makes path and what lacks above it, each fsynced into its parent before the next is made, so that after a
// crash a directory that exists has all above it.
func MkdirAll(path string, perm os.FileMode) error {
	st, err := os.Stat(path)
	if err == nil && !st.IsDir() {
		return fmt.Errorf("make directory %s: %w", path, unix.ENOTDIR)
	}
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if parent := filepath.Dir(path); parent != path {
		if err := MkdirAll(parent, perm); err != nil {
			return err
		}
	}
	return in(path, func(d *Dir, name string) error { return d.Mkdir(name, perm) })
}

// SyncDir fsyncs a directory.
func SyncDir(path string) error {
	d, err := OpenDir(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Lock takes an exclusive flock on path (made if missing) without waiting; ErrLocked if another process has it. It is
// held until the file is closed, and not longer than the process lives.
func Lock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	err = retryInterrupted(func() error { return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) })
	if err == nil {
		return f, nil
	}
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = ErrLocked
	}
	return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
}

const (
	tempPrefix = ".tmp-"
	tempDigits = 32
)

// TempName returns a new temporary name; no two calls return the same one.
func TempName() string {
	var b [tempDigits / 2]byte
	rand.Read(b[:])
	return tempPrefix + hex.EncodeToString(b[:])
}

// IsTemp tells whether a base name is one of this package's temporary names.
func IsTemp(name string) bool {
	digits, ok := strings.CutPrefix(name, tempPrefix)
	return ok && len(digits) == tempDigits && strings.Trim(digits, "0123456789abcdef") == ""
}

// RemoveTemps removes the temporary files in dir that were last written before the given time. The caller knows that no
// writer needs that long, or that none is alive.
func RemoveTemps(dir string, before time.Time) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, entry := range entries {
		if !IsTemp(entry.Name()) {
			continue
		}
		st, err := entry.Info()
		if err == nil && st.ModTime().Before(before) && st.Mode().IsRegular() {
			err = os.Remove(filepath.Join(dir, entry.Name()))
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// in opens path's directory for the time of f, before anything is written: the fsync at the end concerns that very
// directory, whatever is renamed meanwhile.
func in(path string, f func(d *Dir, name string) error) error {
	d, err := OpenDir(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(f(d, filepath.Base(path)), d.Close())
}
