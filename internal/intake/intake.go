// Package intake judges what arrives in a store that other machines write to: whose word it is, whether it continues what was
// checked before, and whether everything it needs has come too.
//
// It keeps one thing, the pins: the owners' keys seen first. After a crash a pin is there whole or not at all; without it, the
// next batch is judged as if it were the first, and by the same key. Moving a refused object aside is one rename; dying before
// it leaves the object to be refused again.
package intake

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"slipway/internal/batch"
	"slipway/internal/durable"
	"slipway/internal/shard"
	"slipway/internal/store"
)

// Volume is one volume's directory in a store on a local disk, and by whose word its batches are judged.
type Volume struct {
	Name   string
	Dir    string      // local path
	Store  store.Store // the same, as a store
	ID     batch.VolumeID
	Owners []string // configured keys, which count alone; none: the first key seen is pinned
	Pins   Pins
	Now    func() time.Time
}

// Refusal is an object that failed its checks. It will never pass them, so it is to be set aside.
type Refusal struct {
	Name   string // in the store
	Reason string // one word, for the file's name
	Cause  error
}

// Error says what is refused and why.
func (r *Refusal) Error() string {
	return fmt.Sprintf("%s is refused (%s): %v", path.Base(r.Name), r.Reason, r.Cause)
}

// Unwrap returns the cause.
func (r *Refusal) Unwrap() error { return r.Cause }

func refuse(name, reason, format string, args ...any) *Refusal {
	return &Refusal{Name: name, Reason: reason, Cause: fmt.Errorf(format, args...)}
}

// Missing says that a batch has come before its shards: it has not arrived yet.
type Missing struct {
	Seq    batch.Seq
	Digest shard.Digest // the first one
	Count  int
	Of     int
}

// Error says what is missing.
func (m *Missing) Error() string {
	return fmt.Sprintf("batch %d waits for %d of its %d shards, %s first", m.Seq, m.Count, m.Of, m.Digest)
}

// ErrForked means: two first batches of one epoch are there. Neither is taken until an operator has removed one.
var ErrForked = errors.New("two first batches of one epoch")

// ReceivedAt returns when an object arrived: its change time, which the kernel gives by this machine's clock and which, unlike
// the modification time, no sender can set to what it likes.
func (v *Volume) ReceivedAt(name string) time.Time {
	now := v.Now()
	var st unix.Stat_t
	if err := unix.Lstat(v.local(name), &st); err != nil {
		return now
	}
	if t := time.Unix(st.Ctim.Unix()); t.Before(now) {
		return t
	}
	return now
}

func (v *Volume) local(name string) string { return filepath.Join(v.Dir, filepath.FromSlash(name)) }

// Refused objects of one name are kept side by side up to this number; beyond it an object stays where it is.
const maxSameName = 100

// SetAside moves what failed its checks to refused/<name>.<reason>, where it is kept and never in the way. The sender finds
// the name free and may send the right object.
func (v *Volume) SetAside(r *Refusal) error {
	dir := filepath.Join(v.Dir, "refused")
	if err := durable.MkdirAll(dir, 0o770); err != nil {
		return fmt.Errorf("set %s aside: %w", r.Name, err)
	}
	to := filepath.Join(dir, path.Base(r.Name)+"."+r.Reason)
	err := durable.PublishTemp(v.local(r.Name), to)
	for n := 1; errors.Is(err, durable.ErrDiffers) && n < maxSameName; n++ {
		err = durable.PublishTemp(v.local(r.Name), fmt.Sprintf("%s.%d", to, n))
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // it may have gone by itself
		return fmt.Errorf("set %s aside: %w", r.Name, err)
	}
	return nil
}

// regular refuses what a hostile account may put under an object's name: a link, a pipe, a directory.
func (v *Volume) regular(name string) error {
	st, err := os.Lstat(v.local(name))
	if err == nil && !st.Mode().IsRegular() {
		return refuse(name, "type", "it is no regular file but %s", st.Mode().Type())
	}
	return nil // absent or out of reach: the store says so
}
