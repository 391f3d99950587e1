// Package restore rebuilds a volume's tree, as it was at one moment, from any stores: it lists it, writes single files out,
// and puts it below a target directory that it never leaves.
//
// A restore works by directory descriptors and single names, never through a symbolic link, so that neither a hostile tree
// nor somebody who swaps directories while it runs leads it outside. A file is written under a temporary name beside its
// place, gets all its attributes there, and is renamed; directories get theirs last, the deepest first.
//
// What is true after a crash: every file under its own name is whole, unless the machine itself went down before the
// restore's final sync. The target then still holds the marker of that run (markerName) with the boot id of its time, and
// the next run writes again what it would otherwise take for equal by size and times. Temporary files are recognised by
// their names and removed by the next run, which finishes what the first began.
package restore

import (
	"context"
	"time"

	"slipway/internal/restore/chain"
)

type (
	// Source is a set of stores of one volume, nearest first.
	Source = chain.Source
	// NamedStore is a store and the name to use in messages.
	NamedStore = chain.NamedStore
	// At chooses the moment: the newest complete batch at or before it. Zero: the newest.
	At = chain.At
	// Fault is an object that could not be used as one store has it, and was read from another if one had it.
	Fault = chain.Fault
	// Moment is a batch as a listing shows it.
	Moment = chain.Moment
)

// History lists the moments that can be restored, oldest first, and the damage met on the way.
func History(ctx context.Context, src Source) ([]Moment, []Fault, error) {
	l, err := chain.Open(ctx, src)
	if err != nil {
		return nil, nil, err
	}
	moments, err := l.History(ctx)
	return moments, l.Faults(), err
}

// Options of a restore.
type Options struct {
	Target    string
	Paths     []string                // relative to the volume; none: everything
	Overwrite bool                    // replace existing files that differ
	NoSpecial bool                    // leave devices, FIFOs and sockets out
	NoSUID    bool                    // without set-user-id, set-group-id and file capabilities
	DryRun    bool                    // only say what would be done
	Progress  func(done, total int64) // bytes; called from several goroutines, one at a time
}

// Result lists what happened.
type Result struct {
	Files, Bytes int64
	Same         int64     // already there and equal
	Skipped      int64     // special files left out by NoSpecial
	Kept         []string  // existing and different, kept
	Earlier      []string  // content was moving when it was sealed: its last clean content is there instead
	Unclean      []string  // content was moving when it was sealed, and there is no clean one
	Failed       []Failure // not restored, or not whole
}

// Failure is a path that could not be restored (whole), and why. An empty path: all files.
type Failure struct {
	Path string
	Err  error
}

// Partial tells whether something that was asked for is not there as it was.
func (r *Result) Partial() bool { return len(r.Kept)+len(r.Unclean)+len(r.Failed) > 0 }

// Head says which moment a tree is.
type Head struct {
	Volume   string
	VolumeID string
	Node     string
	Epoch    uint32
	Seq      uint64
	SealedAt time.Time
}
