package warm

import (
	"context"
	"errors"
	"fmt"

	"slipway/internal/batch"
	"slipway/internal/catalog"
	"slipway/internal/chunk"
	"slipway/internal/restore"
	"slipway/internal/restore/chain"
	"slipway/internal/restore/content"
)

// maxName is the longest name that a local file system takes.
const maxName = 255

// change is the net change from what is applied to a batch: states, of which the newest holds.
type change struct {
	batch   *batch.Batch
	entries map[name]batch.FileID // 0: gone
	inodes  map[batch.FileID]*batch.Inode
	full    bool                  // entries and inodes are the whole difference to the tree
	omitted bool                  // the tree has entries that were left out, so the next change has to be found from the whole tree again
	lacked  map[batch.FileID]bool // the directory did not have them as they should be
	noRoot  bool                  // nothing is known of the root's attributes
	content *content.Reader
}

// errFull means that the batches since the applied one do not tell the change.
var errFull = errors.New("the whole tree has to be compared")

// next finds out what to apply: nil if there is nothing newer.
func (t *Tree) next(ctx context.Context, line *chain.Line, m *catalog.Meta) (*change, error) {
	choice, err := line.Choose(ctx, chain.At{}, len(line.Slots))
	if err != nil {
		return nil, err
	}
	if !newer(choice.Batch, m) {
		return nil, nil
	}
	if m.Head > 0 && m.Complete {
		c, err := since(ctx, line, choice, m)
		if !errors.Is(err, errFull) {
			return c, err
		}
		t.opt.Log.Info("warm tree is compared as a whole", "batch", choice.Batch.Envelope.Last, "applied", m.Head, "cause", err)
	}
	return t.whole(ctx, line, m)
}

// newer tells whether a batch is one to go on to: complete, and after the applied one.
func newer(b *batch.Batch, m *catalog.Meta) bool {
	e := &b.Envelope
	return e.Complete && (e.Epoch > m.Epoch || e.Epoch == m.Epoch && e.Last > m.Head)
}

// since merges the batches after the applied one.
func since(ctx context.Context, line *chain.Line, choice chain.Choice, m *catalog.Meta) (*change, error) {
	c := &change{batch: choice.Batch, entries: make(map[name]batch.FileID), inodes: make(map[batch.FileID]*batch.Inode)}
	var secret *chunk.Secret
	reached := false
	err := line.Back(ctx, choice, func(e *batch.Envelope, body *batch.Body) (bool, error) {
		if e.Full || e.First <= m.Head { // what a full batch does not name is gone, and nothing says so
			return true, nil
		}
		if secret == nil {
			secret = body.Secret
		}
		c.merge(body)
		reached = e.First == m.Head+1 && e.Prev != nil && *e.Prev == m.HeadDigest
		return e.First == m.Head+1, nil
	})
	var hole *chain.HoleError
	if errors.As(err, &hole) || err == nil && !reached {
		return nil, fmt.Errorf("%w: the batches do not reach back to batch %d as it was applied", errFull, m.Head)
	}
	if err != nil {
		return nil, err
	}
	c.content = reader(line, secret)
	return c, nil
}

func reader(line *chain.Line, secret *chunk.Secret) *content.Reader {
	if secret == nil {
		return content.NewReader(line.Reader, nil)
	}
	k := chunk.DeriveKeys(*secret)
	return content.NewReader(line.Reader, &k)
}

// merge takes what an older batch says and no newer one did.
func (c *change) merge(body *batch.Body) {
	for i := range body.Entries {
		k := name{body.Entries[i].Parent, body.Entries[i].Name}
		if _, known := c.entries[k]; !known {
			c.entries[k] = body.Entries[i].ID
		}
	}
	for i := range body.Inodes {
		if in := &body.Inodes[i]; c.inodes[in.ID] == nil {
			own := *in
			c.inodes[in.ID] = &own
		}
	}
}

// whole folds the tree and takes what differs from the applied one.
func (t *Tree) whole(ctx context.Context, line *chain.Line, m *catalog.Meta) (*change, error) {
	tree, err := restore.FromLine(ctx, line, restore.At{})
	if err != nil {
		return nil, err
	}
	if !newer(tree.Batch, m) { // the newest could not be read
		return nil, nil
	}
	c := &change{
		batch: tree.Batch, entries: make(map[name]batch.FileID), inodes: make(map[batch.FileID]*batch.Inode),
		full: true, noRoot: tree.NoRoot(), content: tree.Content(),
	}
	err = tree.Each(func(parent batch.FileID, n string, in *batch.Inode, err error) error {
		if err == nil && len(n) > maxName {
			err = restore.ErrName
		}
		if err != nil {
			t.opt.Log.Error("entry is left out of the warm tree", "directory", parent, "name", n, "error", err)
			c.omitted = true
			return nil
		}
		if parent != 0 {
			c.entries[name{parent, n}] = in.ID
		}
		c.inodes[in.ID] = in
		return nil
	})
	if err != nil {
		return nil, err
	}
	c.closed()
	return c, t.cat.View(c.gone)
}

// closed leaves out what lies in directories that were left out.
func (c *change) closed() {
	if !c.omitted {
		return
	}
	for again := true; again; {
		again = false
		named := map[batch.FileID]bool{batch.Root: true}
		for _, id := range c.entries {
			named[id] = true
		}
		for k := range c.entries {
			if !named[k.Parent] {
				delete(c.entries, k)
				again = true
			}
		}
		for id := range c.inodes {
			if !named[id] {
				delete(c.inodes, id)
			}
		}
	}
}

// gone adds the entries that the applied tree has and the new one has not.
func (c *change) gone(tx *catalog.Tx) error {
	return tx.Inodes(func(in *catalog.Inode) error {
		if !isDir(&in.Inode) {
			return nil
		}
		return tx.Entries(in.ID, func(n string, _ batch.FileID) error {
			if _, stays := c.entries[name{in.ID, n}]; !stays {
				c.entries[name{in.ID, n}] = 0
			}
			return nil
		})
	})
}

// again adds the files that the directory lacks, to be tried once more.
func (c *change) again(tx *catalog.Tx) error {
	c.lacked = make(map[batch.FileID]bool)
	return tx.EachPending(func(id batch.FileID, _ catalog.Pending) error {
		c.lacked[id] = true
		if c.inodes[id] != nil {
			return nil
		}
		in, ok, err := tx.Inode(id)
		if ok {
			c.inodes[id] = &in.Inode
		}
		return err
	})
}
