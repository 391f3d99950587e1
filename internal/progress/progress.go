// Package progress reads and writes progress files, progress/<node>.json in a volume's directory of a store: what a sender has
// delivered, told every second to every node that holds a replica. And it judges from them whether a sender works.
//
// A progress file is a hint, never trusted: bounded in size, checked, and harmless when it is stale, ahead, forged or replayed, since
// where delivery stands is always read at the cache. After a crash a file is the old one or the new one, whole.
package progress

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"slipway/internal/batch"
	"slipway/internal/store"
)

// Limits of a progress file.
const (
	Format  = 1
	MaxSize = 64 << 10 // bytes of the file
	maxText = 1024     // bytes of an error or a reason
)

// IdleEvery is how often the owner of a volume with replica peers tells its progress when it has nothing to send, or another node
// sends for it: who wants to take the volume over sees by it that the owner lives.
const IdleEvery = 5 * time.Second

// ErrFormat means: not a progress file of a known version, or one that cannot be true.
var ErrFormat = errors.New("not a progress file of a known version")

// State is what a sender does.
type State string

// The states.
const (
	Sending State = "sending"
	Idle    State = "idle"  // nothing is undelivered, or another node sends
	Failing State = "error" // it cannot deliver, and says why
)

// Progress is what a sender tells.
type Progress struct {
	Format    int            `json:"format"` // 1
	VolumeID  batch.VolumeID `json:"volume_id"`
	Volume    string         `json:"volume"`
	Node      string         `json:"node"`
	Run       string         `json:"run"`    // of the writer's process: each begins its numbers anew
	Number    uint64         `json:"number"` // of the file, by the writer, from 1
	Epoch     batch.Epoch    `json:"epoch"`
	Term      batch.Term     `json:"term"`
	Head      batch.Seq      `json:"head"`      // newest batch that the sender holds
	Delivered batch.Seq      `json:"delivered"` // newest batch on the cache, as the sender knows
	Batch     batch.Seq      `json:"batch"`     // on its way; 0: none
	Shards    int            `json:"shards"`    // delivered, of those that travel with it
	Of        int            `json:"of"`
	Bytes     int64          `json:"bytes"` // acknowledged on the wire in this run
	Rate      float64        `json:"rate"`  // bytes a second lately
	State     State          `json:"state"`
	Error     string         `json:"error,omitempty"`
	Reason    string         `json:"reason,omitempty"` // why this copy is sent, in words
	At        time.Time      `json:"at"`               // the writer's clock; a label
}

// Path returns "progress/<node>.json".
func Path(node string) string { return "progress/" + node + ".json" }

// Read reads one node's progress; store.ErrNotExist when there is none. s is the volume's part of a store.
func Read(ctx context.Context, s store.Store, node string) (Progress, error) {
	if !batch.ValidName(node) {
		return Progress{}, fmt.Errorf("read progress: %q is not a node's name", node)
	}
	data, err := s.Read(ctx, Path(node), MaxSize)
	if err != nil {
		return Progress{}, fmt.Errorf("read progress of %s: %w", node, err)
	}
	p, err := Decode(data)
	if err == nil && p.Node != node {
		err = fmt.Errorf("it speaks of %q: %w", p.Node, ErrFormat)
	}
	if err != nil {
		return Progress{}, fmt.Errorf("read progress of %s: %w", node, err)
	}
	return p, nil
}

// ReadAll reads every progress file of a volume; damaged ones are returned as errors joined, the others all the same.
func ReadAll(ctx context.Context, s store.Store) ([]Progress, error) {
	return store.ReadAll(ctx, s, "progress", Read)
}

// Write replaces the node's progress. Dying before it returns leaves the old one or the new one.
func Write(ctx context.Context, s store.Store, p Progress) error {
	p.Format = Format
	p.Error, p.Reason = clip(p.Error), clip(p.Reason)
	if err := p.check(); err != nil {
		return fmt.Errorf("write progress of %s: %w", p.Node, err)
	}
	data, err := json.MarshalIndent(p, "", " ")
	if err != nil {
		return fmt.Errorf("encode progress of %s: %w", p.Node, err)
	}
	if err := s.Replace(ctx, Path(p.Node), append(data, '\n')); err != nil {
		return fmt.Errorf("write progress of %s: %w", p.Node, err)
	}
	return nil
}

// Decode reads a progress file's bytes and checks them.
func Decode(data []byte) (Progress, error) {
	if len(data) > MaxSize {
		return Progress{}, fmt.Errorf("%d bytes are too many: %w", len(data), ErrFormat)
	}
	var p Progress
	if err := json.Unmarshal(data, &p); err != nil {
		return Progress{}, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	return p, p.check()
}

func (p *Progress) check() error {
	switch {
	case p.Format != Format:
		return fmt.Errorf("format %d, this slipway reads %d: %w", p.Format, Format, ErrFormat)
	case !batch.ValidName(p.Node) || !batch.ValidName(p.Volume) || p.Run == "" || len(p.Run) > 64 || p.Number == 0:
		return fmt.Errorf("it does not say whose it is: %w", ErrFormat)
	case p.State != Sending && p.State != Idle && p.State != Failing:
		return fmt.Errorf("state %.20q: %w", p.State, ErrFormat)
	case p.Shards < 0 || p.Of < p.Shards || p.Bytes < 0 || !(p.Rate >= 0) || math.IsInf(p.Rate, 0) || len(p.Error) > maxText || len(p.Reason) > maxText,
		p.Epoch > batch.MaxEpoch || p.Head > batch.MaxSeq || p.Delivered > batch.MaxSeq || p.Batch > batch.MaxSeq:
		return fmt.Errorf("it cannot be true: %w", ErrFormat)
	}
	return nil
}

// Fresher tells whether p was written after q: in one run by their numbers, in different runs by the writer's clock.
func (p Progress) Fresher(q Progress) bool {
	if p.Run == q.Run {
		return p.Number > q.Number
	}
	return p.At.After(q.At)
}

func clip(s string) string {
	s = strings.ToValidUTF8(s, "?")
	if len(s) > maxText {
		s = strings.ToValidUTF8(s[:maxText-3], "") + "..."
	}
	return s
}
