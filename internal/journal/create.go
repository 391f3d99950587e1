package journal

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Create begins a new instance below dir (made 0700 if missing) and holds its flock. Nothing is fsynced: the journal must
// outlive the process, not the machine.
//
// The instance is made under another name and renamed when its lock is held and its first file has a header, so readers never
// see one that looks dead before it lives. Dying before the rename leaves a directory that the next Create removes.
func Create(dir string) (*Writer, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("create journal: %w", err)
	}
	guard, err := lockDir(dir)
	if err != nil {
		return nil, err
	}
	defer func() { _ = guard.Close() }()
	if err := sweep(dir); err != nil {
		return nil, err
	}
	inst, err := newInstance(dir)
	if err != nil {
		return nil, err
	}
	w := &Writer{instance: inst, seed: seed(inst.id), wake: make(chan struct{}, 1), queue: &group{done: make(chan struct{})}}
	if err := w.begin(dir); err != nil {
		return nil, errors.Join(fmt.Errorf("create journal instance: %w", err), w.abandon())
	}
	return w, nil
}

// lockDir keeps two Creates in one directory apart. It waits: the lock is held for a few system calls.
func lockDir(dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("create journal: %w", err)
	}
	if err := flock(f, unix.LOCK_EX); err != nil {
		return nil, errors.Join(fmt.Errorf("lock journal: %w", err), f.Close())
	}
	return f, nil
}

// newInstance chooses a serial above all there are, and a random id.
func newInstance(dir string) (instance, error) {
	all, err := instances(dir)
	if err != nil {
		return instance{}, err
	}
	inst := instance{serial: 1}
	if len(all) > 0 {
		inst.serial = all[len(all)-1].serial + 1
	}
	var id [8]byte
	_, _ = rand.Read(id[:]) // never fails: the program dies instead
	inst.id = binary.BigEndian.Uint64(id[:])
	return inst, nil
}

// begin makes the instance's directory, lock and first file, and then gives the directory its name.
func (w *Writer) begin(dir string) error {
	w.dir = filepath.Join(dir, newPrefix+w.instance.name())
	if err := os.Mkdir(w.dir, 0o700); err != nil {
		return err
	}
	var err error
	w.lock, err = os.OpenFile(filepath.Join(w.dir, lockName), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if err := flock(w.lock, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return err
	}
	if err := w.rotate(); err != nil {
		return err
	}
	final := filepath.Join(dir, w.instance.name())
	if err := publish(w.dir, final); err != nil {
		return err
	}
	w.dir = final
	return nil
}

// abandon undoes a begin that ended half way.
func (w *Writer) abandon() error {
	if w.file != nil {
		_ = w.file.Close()
	}
	if w.lock != nil {
		_ = w.lock.Close()
	}
	return os.RemoveAll(w.dir)
}

// sweep removes what a Create or a Trim that died left behind. Under the lock of dir nobody else is creating.
func sweep(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("list journal: %w", err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), newPrefix) || strings.HasPrefix(e.Name(), oldPrefix) {
			if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
				return fmt.Errorf("remove journal leftover: %w", err)
			}
		}
	}
	return nil
}
