// Package claim reads and writes claims: files claims/<epoch>-<term> in a volume's directory on the cache, one for each takeover of
// sending, created exclusively and never changed. The newest says whose turn it is to send.
//
// After a crash a claim is there whole or not at all. It is no fence: an old sender may still write, which harms nothing, because
// batches and shards are immutable. Claims only save work, and whoever reads one treats it as a stranger's words: bounded and checked.
package claim

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"slipway/internal/batch"
	"slipway/internal/store"
)

// Limits of a claim.
const (
	Format   = 1
	MaxSize  = 16 << 10 // bytes of the file
	maxText  = 1024     // bytes of a reason
	maxAvoid = 64
	// A term further above the number of claims than this was not reached by takeovers: it is forged, and passed over.
	maxLeap = 1 << 20
)

// Classes of errors.
var (
	// ErrFormat means: not a claim of a known version, or one that cannot be true.
	ErrFormat = errors.New("not a claim of a known version")
	// ErrTaken means: another claim has the number.
	ErrTaken = errors.New("the term is claimed by another")
)

// Claim says who sends a volume in one term, and why.
type Claim struct {
	Format   int            `json:"format"` // 1
	VolumeID batch.VolumeID `json:"volume_id"`
	Epoch    batch.Epoch    `json:"epoch"`
	Term     batch.Term     `json:"term"`
	Node     string         `json:"node"`             // the sender of this term
	By       string         `json:"by"`               // who made the claim: the node itself, or where the operator's command ran
	Nonce    string         `json:"nonce"`            // tells whose it is after a lost reply
	Reason   string         `json:"reason"`           // in words
	Prefer   string         `json:"prefer,omitempty"` // an operator's pin; carried on by later claims until released
	Avoid    []string       `json:"avoid,omitempty"`  // drained nodes, likewise
	At       time.Time      `json:"at"`               // the maker's clock; a label
}

// New returns a claim that was not made yet, with a nonce of its own.
func New(volume batch.VolumeID, e batch.Epoch, t batch.Term, node, by, reason string, now time.Time) Claim {
	var nonce [16]byte
	_, _ = rand.Read(nonce[:])
	reason = strings.ToValidUTF8(reason, "?") // JSON would make it longer
	if len(reason) > maxText {
		reason = strings.ToValidUTF8(reason[:maxText], "")
	}
	return Claim{
		Format: Format, VolumeID: volume, Epoch: e, Term: t, Node: node, By: by, Nonce: hex.EncodeToString(nonce[:]),
		Reason: reason, At: now.UTC().Round(0),
	}
}

// Path returns "claims/<epoch>-<term>".
func Path(e batch.Epoch, t batch.Term) string { return fmt.Sprintf("claims/%d-%d", e, t) }

// ParsePath is the reverse of Path; it refuses every other spelling.
func ParsePath(name string) (batch.Epoch, batch.Term, error) {
	first, second, _ := strings.Cut(strings.TrimPrefix(name, "claims/"), "-")
	e, err1 := strconv.ParseUint(first, 10, 32)
	t, err2 := strconv.ParseUint(second, 10, 32)
	if err := errors.Join(err1, err2); err != nil {
		return 0, 0, fmt.Errorf("parse claim's name %.60q: %w", name, ErrFormat)
	}
	if Path(batch.Epoch(e), batch.Term(t)) != name || e == 0 || batch.Epoch(e) > batch.MaxEpoch {
		return 0, 0, fmt.Errorf("parse claim's name %.60q: %w", name, ErrFormat)
	}
	return batch.Epoch(e), batch.Term(t), nil
}

// Decode reads a claim's bytes and checks them.
func Decode(data []byte) (Claim, error) {
	if len(data) > MaxSize {
		return Claim{}, fmt.Errorf("%d bytes are too many: %w", len(data), ErrFormat)
	}
	var c Claim
	if err := json.Unmarshal(data, &c); err != nil {
		return Claim{}, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	return c, c.check()
}

func (c *Claim) check() error {
	switch {
	case c.Format != Format:
		return fmt.Errorf("format %d, this slipway reads %d: %w", c.Format, Format, ErrFormat)
	case !batch.ValidName(c.Node), !batch.ValidName(c.By), c.Prefer != "" && !batch.ValidName(c.Prefer):
		return fmt.Errorf("a node's name is not one: %w", ErrFormat)
	case c.Epoch < 1 || c.Epoch > batch.MaxEpoch || len(c.Reason) > maxText || len(c.Nonce) != 32 || len(c.Avoid) > maxAvoid:
		return fmt.Errorf("it cannot be true: %w", ErrFormat)
	}
	if slices.ContainsFunc(c.Avoid, func(n string) bool { return !batch.ValidName(n) }) {
		return fmt.Errorf("a drained node's name is not one: %w", ErrFormat)
	}
	return nil
}

// Read reads one claim; store.ErrNotExist when there is none.
func Read(ctx context.Context, s store.Store, e batch.Epoch, t batch.Term) (Claim, error) {
	data, err := s.Read(ctx, Path(e, t), MaxSize)
	if err != nil {
		return Claim{}, fmt.Errorf("read claim %d-%d: %w", e, t, err)
	}
	c, err := Decode(data)
	if err == nil && (c.Epoch != e || c.Term != t) {
		err = fmt.Errorf("inside it is claim %d-%d: %w", c.Epoch, c.Term, ErrFormat)
	}
	if err != nil {
		return Claim{}, fmt.Errorf("read claim %d-%d: %w", e, t, err)
	}
	return c, nil
}

// Create makes the claim. ErrTaken: somebody else has its number. After a lost reply it may be there or come to be: the same call
// again finds out, by the nonce.
func Create(ctx context.Context, s store.Store, c Claim) error {
	if err := c.check(); err != nil {
		return fmt.Errorf("create claim %d-%d: %w", c.Epoch, c.Term, err)
	}
	data, err := json.MarshalIndent(c, "", " ")
	if err != nil {
		return fmt.Errorf("encode claim %d-%d: %w", c.Epoch, c.Term, err)
	}
	err = s.CreateExclusive(ctx, Path(c.Epoch, c.Term), append(data, '\n'))
	if err == nil {
		return nil
	}
	if !errors.Is(err, store.ErrExist) && !errors.Is(err, store.ErrTemporary) {
		return fmt.Errorf("create claim %d-%d: %w", c.Epoch, c.Term, err)
	}
	there, readErr := Read(ctx, s, c.Epoch, c.Term)
	switch {
	case readErr == nil && there.Nonce == c.Nonce:
		return nil
	case readErr == nil || errors.Is(err, store.ErrExist):
		return fmt.Errorf("create claim %d-%d: %w", c.Epoch, c.Term, ErrTaken)
	}
	return fmt.Errorf("create claim %d-%d: %w", c.Epoch, c.Term, err)
}

// Newest returns the claim of the highest term in an epoch; false: there is none, and the owner sends in term 0. Claims that are
// damaged, of another volume or forged are passed over; they are among the errors, and the valid ones count all the same.
func Newest(ctx context.Context, s store.Store, volume batch.VolumeID, e batch.Epoch) (Claim, bool, error) {
	terms, err := list(ctx, s, e)
	if err != nil {
		return Claim{}, false, err
	}
	var faults []error
	for _, t := range slices.Backward(terms) {
		if uint64(t) > uint64(len(terms))+maxLeap {
			faults = append(faults, fmt.Errorf("claim %d-%d of %d claims is forged: %w", e, t, len(terms), ErrFormat))
			continue
		}
		c, err := Read(ctx, s, e, t)
		if err == nil && c.VolumeID != volume {
			err = fmt.Errorf("claim %d-%d is of another volume, %s: %w", e, t, c.VolumeID, ErrFormat)
		}
		if err == nil {
			return c, true, errors.Join(faults...)
		}
		if errors.Is(err, store.ErrTemporary) || ctx.Err() != nil {
			return Claim{}, false, err
		}
		faults = append(faults, err)
	}
	return Claim{}, false, errors.Join(faults...)
}

// list returns the terms of an epoch's claims, ascending; whatever else lies there is passed over.
func list(ctx context.Context, s store.Store, e batch.Epoch) ([]batch.Term, error) {
	infos, err := s.List(ctx, "claims")
	if err != nil {
		return nil, fmt.Errorf("list claims: %w", err)
	}
	var terms []batch.Term
	for _, i := range infos {
		epoch, t, err := ParsePath("claims/" + path.Base(i.Name))
		if err == nil && epoch == e && !i.Dir {
			terms = append(terms, t)
		}
	}
	slices.Sort(terms)
	return terms, nil
}

// After returns a term that nothing has yet, the lowest above t: a number whose claim cannot be read is taken all the same, and so is
// one under whose name a directory or a link lies, which a store does not list.
func After(ctx context.Context, s store.Store, e batch.Epoch, t batch.Term) (batch.Term, error) {
	terms, err := list(ctx, s, e)
	if err != nil {
		return 0, err
	}
	for t < math.MaxUint32 {
		t++
		if _, taken := slices.BinarySearch(terms, t); taken {
			continue
		}
		_, err := s.Stat(ctx, Path(e, t))
		switch {
		case errors.Is(err, store.ErrNotExist):
			return t, nil
		case errors.Is(err, store.ErrTemporary) || ctx.Err() != nil:
			return 0, fmt.Errorf("look for claim %d-%d: %w", e, t, err)
		}
	}
	return 0, fmt.Errorf("claim a term of epoch %d: %w", e, ErrTaken)
}

// Highest returns the highest epoch that any claim names; 0: there is none.
func Highest(ctx context.Context, s store.Store) (batch.Epoch, error) {
	infos, err := s.List(ctx, "claims")
	if err != nil {
		return 0, fmt.Errorf("list claims: %w", err)
	}
	var high batch.Epoch
	for _, i := range infos {
		if e, _, err := ParsePath("claims/" + path.Base(i.Name)); err == nil {
			high = max(high, e)
		}
	}
	return high, nil
}
