package chain

import (
	"context"
	"slices"
	"time"

	"slipway/internal/batch"
)

// Branch is a run of batches that the main line has left behind: its owner sealed them while another node had begun the next epoch
// without them. Each is read by Source.Epoch, from the stores that have it.
type Branch struct {
	Epoch       batch.Epoch
	Node        string
	First, Last batch.Seq
	SealedAt    time.Time    // of its last batch
	Counts      batch.Counts // of all its batches
	Stores      []string     // that list its last batch
}

// Branches returns the branches of epochs that count, oldest first. A batch that no store has sound is among the faults, and its
// branch does not count it.
func (l *Line) Branches(ctx context.Context) ([]Branch, error) {
	var list []Branch
	for i := range l.Side {
		s := &l.Side[i]
		if l.keys[s.Epoch] == "" || !l.leftBehind(s) {
			continue
		}
		b, err := l.Batch(ctx, s)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err != nil {
			continue
		}
		e := &b.Envelope
		if n := len(list); n == 0 || list[n-1].Epoch != e.Epoch {
			list = append(list, Branch{Epoch: e.Epoch, Node: e.Node, First: e.First})
		}
		branch := &list[len(list)-1]
		branch.Last, branch.SealedAt, branch.Stores = e.Last, e.SealedAt, l.listedBy(s)
		branch.Counts.Files += e.Counts.Files
		branch.Counts.Bytes += e.Counts.Bytes
		branch.Counts.Removals += e.Counts.Removals
	}
	return list, nil
}

// leftBehind tells whether a later epoch begins at or before a slot; what else is beside the line are files that stand for a range.
func (l *Line) leftBehind(s *Slot) bool {
	next := slices.IndexFunc(l.Slots, func(m Slot) bool { return m.Epoch > s.Epoch })
	return next >= 0 && l.Slots[next].First <= s.Last
}

func (l *Line) listedBy(s *Slot) []string {
	var names []string
	for _, i := range s.stores {
		names = append(names, l.src.Stores[i].Name)
	}
	return names
}
