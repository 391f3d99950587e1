package warm

import (
	"bytes"
	"encoding/gob"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"slipway/internal/batch"
	"slipway/internal/catalog"
	"slipway/internal/durable"
)

// step is what is left to do in the directory once the catalog has the new tree. Each part of it may be done twice.
type step struct {
	Staging string         // name of the staging directory in the root
	Make    []batch.FileID // new files, staged before the commit
	Mkdir   []batch.FileID // new directories, likewise
	Hold    []move         // objects that get further names: given one in the staging directory
	Detach  []move         // names that go: files and kept directories, then directories to remove, the deepest first
	Attach  []move         // names that come, those of one object one after another
	Attr    []attr         // objects that get attributes, and directories whose times were moved
	NoRoot  bool           // the root's attributes are not known
}

// move is one name of an object that goes or comes.
type move struct {
	ID     batch.FileID
	At     name
	Was    seen   // what is to be found there, if anything
	Dir    bool   // is a directory
	Kept   bool   // goes to the staging directory, not away
	Staged string // comes from there
}

// attr is an object to give its attributes, and the extended ones that it loses.
type attr struct {
	ID   batch.FileID
	Gone []string
}

func (s *step) empty() bool {
	return len(s.Make)+len(s.Mkdir)+len(s.Hold)+len(s.Detach)+len(s.Attach)+len(s.Attr) == 0
}

// touched returns every object that the step does something with.
func (s *step) touched() map[batch.FileID]bool {
	all := make(map[batch.FileID]bool)
	for _, list := range [][]batch.FileID{s.Make, s.Mkdir} {
		for _, id := range list {
			all[id] = true
		}
	}
	for _, list := range [][]move{s.Hold, s.Detach, s.Attach} {
		for i := range list {
			all[list[i].ID] = true
		}
	}
	for i := range s.Attr {
		all[s.Attr[i].ID] = true
	}
	return all
}

// What the catalog's HeadTemp says of a step: which part of it is next.
const (
	stageDetach = "detach"
	stageAttach = "attach"
)

const stepFile = "step"

func (t *Tree) stepPath() string { return filepath.Join(t.opt.State, stepFile) }

// save writes the step down. It counts when the catalog says that there is one.
func (t *Tree) save(s *step) error {
	var buf bytes.Buffer
	if err := gob.NewEncoder(&buf).Encode(s); err != nil {
		return fmt.Errorf("write step: %w", err)
	}
	return durable.Overwrite(t.stepPath(), buf.Bytes(), 0o600)
}

func (t *Tree) load() (*step, error) {
	data, err := os.ReadFile(t.stepPath())
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrState, err)
	}
	s := &step{}
	if err := gob.NewDecoder(bytes.NewReader(data)).Decode(s); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrState, err)
	}
	return s, nil
}

// Finish ends a step that was cut off after its commit. With none it does nothing.
func (t *Tree) Finish() error {
	m, err := t.meta()
	if err != nil {
		return err
	}
	if m.HeadTemp == "" {
		return t.unsave()
	}
	s, err := t.load()
	if err != nil {
		return err
	}
	if err := t.finish(s, m.HeadTemp); err != nil {
		return fmt.Errorf("finish step to batch %d: %w", m.Head, err)
	}
	return nil
}

func (t *Tree) unsave() error {
	if err := durable.Remove(t.stepPath()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove step: %w", err)
	}
	return nil
}

// mark notes which part of the step is next.
func (t *Tree) mark(stage string) error {
	return t.cat.Update(func(tx *catalog.Tx) error {
		m, err := tx.Meta()
		if err != nil {
			return err
		}
		m.HeadTemp = stage
		return tx.SetMeta(m)
	})
}
