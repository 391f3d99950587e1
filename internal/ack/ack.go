// Package ack reads and writes a volume's acks: one small JSON file a store, acks/<store>.json, that says how far that store
// has got. The daemon beside a store writes its own, and the shipper writes one for each backup host; the sender, status and
// wait read them.
//
// After a crash: an acks file is the old one or the new one, whole. What it says is a hint that is never above what is durable
// at the store it speaks of, because it is written after that; it may be behind by what was done since. Whoever reads it treats
// it as a stranger's words: bounded in size, checked, and never a reason to remove the only copy of anything.
package ack

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"
	"time"

	"slipway/internal/batch"
	"slipway/internal/config"
	"slipway/internal/store"
)

// Limits of an acks file.
const (
	Format     = 1
	MaxSize    = 1 << 20 // bytes of the file
	MaxRecent  = 256
	MaxRefused = 256
	maxText    = 1024 // bytes of an error, a name or a reason
)

// ErrFormat means: not an acks file of a known version, or one that cannot be true.
var ErrFormat = errors.New("not an acks file of a known version")

// Refusal is an object that failed its checks and was set aside.
type Refusal struct {
	Name   string    `json:"name"`
	Reason string    `json:"reason"`
	At     time.Time `json:"at"`
}

// Refused is the state of a store that is not what it should be: an operator is needed there.
const Refused = "refused"

// Mark says when a head was reached.
type Mark struct {
	Seq batch.Seq `json:"seq"`
	At  time.Time `json:"at"`
}

// Wait says why nothing goes to a backup host now, for people.
type Wait struct {
	From  batch.Seq  `json:"from"`            // this batch and those behind it
	For   string     `json:"for"`             // in words
	Until *time.Time `json:"until,omitempty"` // when it goes if nothing else happens; nil: nobody knows
}

// Acks is the file acks/<store>.json: how far one store has got. Written by the daemon beside the store and, for each backup
// host, by the shipper; a hint that is never above what is durable there.
type Acks struct {
	Format     int            `json:"format"` // 1
	VolumeID   batch.VolumeID `json:"volume_id"`
	Store      string         `json:"store"`
	Kind       string         `json:"kind"` // "cache", "backup", "replica", "received"
	URL        string         `json:"url,omitempty"`
	Copies     int            `json:"copies,omitempty"` // the cache's file: how many backup hosts make "stored"
	Epoch      batch.Epoch    `json:"epoch"`
	Head       batch.Seq      `json:"head"` // last batch of the unbroken, checked prefix
	HeadDigest batch.Digest   `json:"head_digest"`
	Verified   batch.Seq      `json:"verified"` // read back and compared up to here
	Full       bool           `json:"full,omitempty"`
	Error      string         `json:"error,omitempty"`
	State      string         `json:"state,omitempty"`   // with an error: Refused, or "" for a store that is away
	Refused    []Refusal      `json:"refused,omitempty"` // the newest, at most MaxRefused
	Waits      *Wait          `json:"waits,omitempty"`   // a backup host's file: what holds the next batch back
	Rate       float64        `json:"rate,omitempty"`    // a backup host's file: bytes a second that it confirmed when this was written, while a batch is on its way
	At         time.Time      `json:"at"`
	Recent     []Mark         `json:"recent,omitempty"` // the last heads with the time each was reached, newest last, at most MaxRecent
}

var grammar = regexp.MustCompile(`^[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}$`)

// Path returns "acks/<store>.json".
func Path(storeName string) string { return "acks/" + storeName + ".json" }

// Read reads one store's acks; bounded, checked; store.ErrNotExist when there are none. s is the volume's part of a store.
func Read(ctx context.Context, s store.Store, storeName string) (Acks, error) {
	if !grammar.MatchString(storeName) {
		return Acks{}, fmt.Errorf("read acks: %q is not a store's name", storeName)
	}
	data, err := s.Read(ctx, Path(storeName), MaxSize)
	if err != nil {
		return Acks{}, fmt.Errorf("read acks of %s: %w", storeName, err)
	}
	a, err := Decode(data)
	if err == nil && a.Store != storeName {
		err = fmt.Errorf("they speak of %q: %w", a.Store, ErrFormat)
	}
	if err != nil {
		return Acks{}, fmt.Errorf("read acks of %s: %w", storeName, err)
	}
	return a, nil
}

// ReadAll reads every acks file of a volume; damaged ones are returned as errors joined, the others all the same.
func ReadAll(ctx context.Context, s store.Store) ([]Acks, error) {
	return store.ReadAll(ctx, s, "acks", Read)
}

// Write replaces the store's acks. Dying before it returns leaves the old ones or the new ones.
func Write(ctx context.Context, s store.Store, a Acks) error {
	a.Format = Format
	a.Error = clip(a.Error)
	if a.Waits != nil {
		a.Waits = &Wait{a.Waits.From, clip(a.Waits.For), a.Waits.Until}
	}
	a.Recent = newest(a.Recent, MaxRecent)
	a.Refused = append([]Refusal(nil), newest(a.Refused, MaxRefused)...)
	for i := range a.Refused {
		a.Refused[i].Name, a.Refused[i].Reason = clip(a.Refused[i].Name), clip(a.Refused[i].Reason)
	}
	if err := a.check(); err != nil {
		return fmt.Errorf("write acks of %s: %w", a.Store, err)
	}
	data, err := json.MarshalIndent(a, "", " ")
	if err != nil {
		return fmt.Errorf("encode acks of %s: %w", a.Store, err)
	}
	if err := s.Replace(ctx, Path(a.Store), append(data, '\n')); err != nil {
		return fmt.Errorf("write acks of %s: %w", a.Store, err)
	}
	return nil
}

// Decode reads an acks file's bytes and checks them.
func Decode(data []byte) (Acks, error) {
	if len(data) > MaxSize {
		return Acks{}, fmt.Errorf("%d bytes are too many: %w", len(data), ErrFormat)
	}
	var version struct {
		Format int `json:"format"`
	}
	if err := json.Unmarshal(data, &version); err != nil {
		return Acks{}, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	if version.Format != Format {
		return Acks{}, fmt.Errorf("format %d, this slipway reads %d: %w", version.Format, Format, ErrFormat)
	}
	var a Acks
	if err := json.Unmarshal(data, &a); err != nil {
		return Acks{}, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	return a, a.check()
}

// check refuses what no honest writer writes.
func (a *Acks) check() error {
	switch {
	case !grammar.MatchString(a.Store):
		return fmt.Errorf("%.80q is not a store's name: %w", a.Store, ErrFormat)
	case len(a.Recent) > MaxRecent || len(a.Refused) > MaxRefused || len(a.Error) > maxText || len(a.State) > maxText,
		a.Waits != nil && len(a.Waits.For) > maxText:
		return fmt.Errorf("it is longer than it may be: %w", ErrFormat)
	case !(a.Rate >= 0) || math.IsInf(a.Rate, 0):
		return fmt.Errorf("a rate of %v cannot be: %w", a.Rate, ErrFormat)
	case a.Verified > a.Head:
		return fmt.Errorf("verified %d lies above the head %d: %w", a.Verified, a.Head, ErrFormat)
	}
	for i, m := range a.Recent {
		if m.Seq > a.Head || i > 0 && (m.Seq <= a.Recent[i-1].Seq || m.At.Before(a.Recent[i-1].At)) {
			return fmt.Errorf("its recent heads are out of order: %w", ErrFormat)
		}
	}
	return nil
}

// Advance moves the head and notes the time in Recent. A head never goes back by it: an older one changes nothing.
func (a *Acks) Advance(e batch.Epoch, seq batch.Seq, d batch.Digest, now time.Time) {
	if seq <= a.Head || e < a.Epoch {
		return
	}
	if n := len(a.Recent); n > 0 && now.Before(a.Recent[n-1].At) {
		now = a.Recent[n-1].At // the clock was set back; the order of the marks is what readers rely on
	}
	a.Epoch, a.Head, a.HeadDigest = e, seq, d
	recent := newest(a.Recent, MaxRecent-1)
	// A copy: the slice before may be in a snapshot that somebody else is writing out.
	a.Recent = append(append(make([]Mark, 0, len(recent)+1), recent...), Mark{Seq: seq, At: now})
}

// Rewind puts the head back, where a store turned out to hold less than it did: it was reset or put back to an older state.
// Readers raise an alarm at a head that went back, and fill it up again.
func (a *Acks) Rewind(e batch.Epoch, seq batch.Seq, d batch.Digest) {
	if seq >= a.Head {
		return
	}
	a.Epoch, a.Head, a.HeadDigest = e, seq, d
	a.Verified = min(a.Verified, seq)
	for len(a.Recent) > 0 && a.Recent[len(a.Recent)-1].Seq > seq {
		a.Recent = a.Recent[:len(a.Recent)-1]
	}
}

// Refuse notes an object that was set aside. The same name again replaces its older note.
func (a *Acks) Refuse(r Refusal) {
	kept := make([]Refusal, 0, len(a.Refused)+1)
	for _, old := range a.Refused {
		if old.Name != r.Name {
			kept = append(kept, old)
		}
	}
	a.Refused = newest(append(kept, r), MaxRefused)
}

// ReachedAt returns when the store's head reached seq, if the marks still go back so far.
func (a *Acks) ReachedAt(seq batch.Seq) (time.Time, bool) {
	if seq > a.Head || len(a.Recent) == MaxRecent && a.Recent[0].Seq > seq {
		return time.Time{}, false
	}
	for _, m := range a.Recent {
		if m.Seq >= seq {
			return m.At, true
		}
	}
	return time.Time{}, false
}

// Word returns the state of the store as status shows it: "ok", "down", "full" or "refused". A state that this slipway does not
// know is that of a store which is away.
func (a *Acks) Word() string {
	switch {
	case a.Full:
		return "full"
	case a.Error == "":
		return "ok"
	case a.State == Refused:
		return "refused"
	}
	return "down"
}

// overdue is how far clocks may differ without anybody saying so.
const overdue = 5 * time.Minute

// WordAt is Word, but "waiting" for a store that lacks nothing but what is held back by a condition or an operator. When the time has
// passed at which that ends by itself, and nothing has come of it, it is no reason any more.
func (a *Acks) WordAt(now time.Time) string {
	word := a.Word()
	if w := a.Waits; word == "ok" && w != nil && (w.Until == nil || now.Before(w.Until.Add(overdue))) {
		return "waiting"
	}
	return word
}

// WaitsAt says what a store waits for that WordAt calls waiting, and in what time that ends; "" otherwise.
func (a *Acks) WaitsAt(now time.Time) string {
	if a.WordAt(now) != "waiting" {
		return ""
	}
	text := a.Waits.For
	if at := a.Waits.Until; at != nil {
		text += ", in " + config.FormatDuration(max(0, at.Sub(now)).Round(time.Second))
	}
	return text
}

// TellRateEvery is how often a rate is written anew while a batch is on its way.
const TellRateEvery = 10 * time.Second

// RateAt is Rate as long as it is told anew; 0 once nobody has for a while, or for longer than clocks differ.
func (a *Acks) RateAt(now time.Time) float64 {
	if now.Sub(a.At) > 3*TellRateEvery+overdue {
		return 0
	}
	return a.Rate
}

func newest[T any](list []T, n int) []T {
	if len(list) > n {
		return list[len(list)-n:]
	}
	return list
}

func clip(s string) string {
	s = strings.ToValidUTF8(s, "?")
	if len(s) > maxText {
		s = strings.ToValidUTF8(s[:maxText-3], "") + "..."
	}
	return s
}

// Stored returns the newest batch that as many backup hosts have as the cache's acks ask for; 0: none, or nobody has said. all are
// the acks that lie on the cache.
func Stored(all []Acks) batch.Seq {
	need := 0
	var heads []batch.Seq
	for _, a := range all {
		switch a.Kind {
		case "cache":
			need = a.Copies
		case "backup":
			heads = append(heads, a.Head)
		}
	}
	if need <= 0 || len(heads) < need {
		return 0
	}
	slices.Sort(heads)
	return heads[len(heads)-need]
}
