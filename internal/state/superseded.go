package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"slipway/internal/batch"
	"slipway/internal/durable"
)

// ErrSuperseded means: another node owns the volume now, named by this one when it was its peer.
var ErrSuperseded = errors.New("another node owns the volume now")

// Superseded says who owns the volume in this node's place.
type Superseded struct {
	Format int         `json:"format"` // 1
	Epoch  batch.Epoch `json:"epoch"`
	Node   string      `json:"node"`
	Key    string      `json:"key"`
	First  batch.Seq   `json:"first"` // batch of the epoch; what this node has sealed from there on is a side branch
	Store  string      `json:"store"` // where that was seen
	At     time.Time   `json:"at"`
}

// Error is the clear message.
func (s *Superseded) Error() string {
	return fmt.Sprintf("%v: %s, since epoch %d began with batch %d (seen at %s); what this node sealed from there on is a side branch in its own store, "+
		"and its files are where they were: bring over what the new owner lacks, and make this node a replica peer", ErrSuperseded, s.Node, s.Epoch, s.First, s.Store)
}

// Unwrap returns ErrSuperseded.
func (s *Superseded) Unwrap() error { return ErrSuperseded }

func (d Dir) supersededFile() string { return filepath.Join(string(d), "superseded.json") }

// WriteSuperseded notes it.
func (d Dir) WriteSuperseded(s Superseded) error {
	s.Format = 1
	data, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("encode who owns the volume now: %w", err)
	}
	return durable.Overwrite(d.supersededFile(), append(data, '\n'), 0o600)
}

// CheckSuperseded returns *Superseded as an error if that was noted. A note that cannot be read is an error, too: whoever goes on beside
// a new owner makes a fork.
func (d Dir) CheckSuperseded() error {
	data, err := os.ReadFile(d.supersededFile())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read who owns the volume: %w", err)
	}
	var s Superseded
	if err := json.Unmarshal(data, &s); err != nil || s.Format != 1 {
		return fmt.Errorf("read %s, which says who owns the volume in this node's place: it is damaged", d.supersededFile())
	}
	return &s
}
