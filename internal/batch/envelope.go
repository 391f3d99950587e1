package batch

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"slipway/internal/shard"
)

// Object is a shard that an envelope introduces or abandons.
type Object struct {
	Digest shard.Digest `json:"digest"`
	Size   int64        `json:"size"`
}

// Peer is a replica peer of the volume.
type Peer struct {
	Name string `json:"name"`
	Key  string `json:"key"` // authorized_keys form: "ssh-ed25519 AAAA…"; empty while it is not known yet
}

// Counts are facts for people about what a batch changes.
type Counts struct {
	Files    int64 `json:"files"`
	Bytes    int64 `json:"bytes"`
	Removals int64 `json:"removals"`
}

// Envelope is line 2 of a batch file: all that may be known without an identity.
type Envelope struct {
	VolumeID   VolumeID  `json:"volume_id"`
	Volume     string    `json:"volume"`
	Node       string    `json:"node"`
	Epoch      Epoch     `json:"epoch"`
	First      Seq       `json:"first"`
	Last       Seq       `json:"last"`
	Prev       *Digest   `json:"prev,omitempty"` // digest of the previous batch file; none for the very first
	Base       Seq       `json:"base"`
	SealedAt   time.Time `json:"sealed_at"`
	OwnerKey   string    `json:"owner_key"` // authorized_keys form
	Peers      []Peer    `json:"peers,omitempty"`
	NextKeys   []string  `json:"next_keys,omitempty"` // keys that may own the volume next
	NamedBy    string    `json:"named_by,omitempty"`  // first batch of a later epoch: the signed envelope (lines 1-3) that named its key
	Introduces []Object  `json:"introduces,omitempty"`
	Abandons   []Object  `json:"abandons,omitempty"`
	BodySize   int64     `json:"body_size"`
	BodyDigest Digest    `json:"body_digest"`           // SHA-256 of every byte after the signature
	BodyShards []Object  `json:"body_shards,omitempty"` // a body above 8 MiB lies in these, in order; the body itself is then empty
	StandsFor  *Digest   `json:"stands_for,omitempty"`
	Counts     Counts    `json:"counts"`
	Full       bool      `json:"full,omitempty"` // the body holds the whole tree
	Complete   bool      `json:"complete"`
	Why        string    `json:"why,omitempty"`           // not complete: "adoption" or "gap"
	LastWhole  Seq       `json:"last_complete,omitempty"` // not complete: the last complete batch
}

// encode returns line 2, newline included.
func (e *Envelope) encode() ([]byte, error) {
	var buf bytes.Buffer
	w := json.NewEncoder(&buf)
	w.SetEscapeHTML(false) // keys and signatures stay as they are, for people and for jq
	if err := w.Encode(e); err != nil {
		return nil, fmt.Errorf("%w: %w", errEnvelope, err)
	}
	if buf.Len() > MaxEnvelope {
		return nil, fmt.Errorf("envelope has %d bytes, at most %d: %w", buf.Len(), MaxEnvelope, errEnvelope)
	}
	return buf.Bytes(), nil
}

// decodeEnvelope reads line 2. Only the one spelling that encode gives is taken: duplicate, misspelt or unknown keys and
// replaced characters would otherwise be read in two ways by two readers of one signature.
func decodeEnvelope(line []byte) (Envelope, error) {
	var e Envelope
	if err := json.Unmarshal(line, &e); err != nil {
		return Envelope{}, fmt.Errorf("read envelope: %w", err)
	}
	again, err := e.encode()
	if err != nil {
		return Envelope{}, fmt.Errorf("read envelope: %w", err)
	}
	if !bytes.Equal(again, line) {
		return Envelope{}, fmt.Errorf("read envelope: %w: not in canonical form", errEnvelope)
	}
	return e, e.check()
}

const maxPeers = 64

var errEnvelope = errors.New("envelope is not valid")

// check tells what is wrong with an envelope, for writer and reader alike.
func (e *Envelope) check() error {
	for _, part := range []func() string{e.wrongNames, e.wrongNumbers, e.wrongState, e.wrongObjects, e.wrongBody, e.wrongKeys} {
		if wrong := part(); wrong != "" {
			return fmt.Errorf("%w: %s", errEnvelope, wrong)
		}
	}
	return nil
}

func (e *Envelope) wrongNames() string {
	if e.VolumeID == (VolumeID{}) {
		return "no volume id"
	}
	if !ValidName(e.Volume) {
		return fmt.Sprintf("volume name %q", e.Volume)
	}
	if !ValidName(e.Node) {
		return fmt.Sprintf("node name %q", e.Node)
	}
	for _, p := range e.Peers {
		if !ValidName(p.Name) {
			return fmt.Sprintf("peer name %q", p.Name)
		}
	}
	return ""
}

// ValidName tells whether a volume, node or store may be called so: up to 63 letters, digits, dots, underscores and hyphens, a letter or
// digit first. Such a name is a file name everywhere and needs no quoting anywhere.
func ValidName(s string) bool {
	if s == "" || len(s) > 63 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !letter && (i == 0 || c != '.' && c != '_' && c != '-') {
			return false
		}
	}
	return true
}

func (e *Envelope) wrongNumbers() string {
	switch {
	case e.Epoch < 1 || e.Epoch > MaxEpoch:
		return fmt.Sprintf("epoch %d", e.Epoch)
	case e.First < 1 || e.Last < e.First || e.Last > MaxSeq:
		return fmt.Sprintf("sequence numbers %d-%d", e.First, e.Last)
	case e.Base < 1 || e.Base > e.Last:
		return fmt.Sprintf("base %d of batch %d-%d", e.Base, e.First, e.Last)
	case (e.First == 1) != (e.Prev == nil):
		return fmt.Sprintf("batch %d and a previous digest: exactly the very first has none", e.First)
	case e.Counts.Files < 0 || e.Counts.Bytes < 0 || e.Counts.Removals < 0:
		return "negative counts"
	}
	if _, offset := e.SealedAt.Zone(); offset != 0 || e.SealedAt.Year() < 1970 || e.SealedAt.Year() > 9999 {
		return fmt.Sprintf("sealing time %s", e.SealedAt)
	}
	return ""
}

func (e *Envelope) wrongState() string {
	if e.Complete && (e.Why != "" || e.LastWhole != 0) {
		return "complete, yet with a reason why not"
	}
	if !e.Complete && (!ValidName(e.Why) || e.LastWhole > e.Last) {
		return fmt.Sprintf("not complete, reason %q, last complete batch %d", e.Why, e.LastWhole)
	}
	return ""
}

func (e *Envelope) wrongObjects() string {
	if n := len(e.Introduces); n > MaxShards+MaxBodyShards {
		return fmt.Sprintf("%d shards introduced", n)
	}
	if n := len(e.Abandons); n > MaxAbandoned {
		return fmt.Sprintf("%d shards abandoned", n)
	}
	seen := make(map[shard.Digest]int64, len(e.Introduces)+len(e.Abandons))
	for _, list := range [][]Object{e.Introduces, e.Abandons} {
		for _, o := range list {
			if _, twice := seen[o.Digest]; twice {
				return fmt.Sprintf("shard %s named twice", o.Digest)
			}
			if o.Size < 1 || o.Size > shard.MaxSize {
				return fmt.Sprintf("shard %s of %d bytes", o.Digest, o.Size)
			}
			seen[o.Digest] = o.Size
		}
	}
	return ""
}

func (e *Envelope) wrongBody() string {
	if n := len(e.BodyShards); n > MaxBodyShards {
		return fmt.Sprintf("body in %d shards", n)
	}
	if (e.BodySize == 0) != (len(e.BodyShards) > 0) || e.BodySize < 0 || e.BodySize > shard.MaxSize {
		return fmt.Sprintf("body of %d bytes and %d shards", e.BodySize, len(e.BodyShards))
	}
	introduced := make(map[Object]bool, len(e.Introduces))
	for _, o := range e.Introduces {
		introduced[o] = true
	}
	for _, o := range e.BodyShards {
		if !introduced[o] {
			return fmt.Sprintf("body shard %s is not introduced, or named twice", o.Digest)
		}
		delete(introduced, o)
	}
	return ""
}

func (e *Envelope) wrongKeys() string {
	if len(e.Peers) > maxPeers || len(e.NextKeys) > maxPeers+1 {
		return fmt.Sprintf("%d peers, %d next keys", len(e.Peers), len(e.NextKeys))
	}
	if _, err := parseKey(e.OwnerKey); err != nil {
		return fmt.Sprintf("owner key: %v", err)
	}
	for _, k := range e.NextKeys {
		if _, err := parseKey(k); err != nil {
			return fmt.Sprintf("next key: %v", err)
		}
	}
	for _, p := range e.Peers {
		if _, err := parseKey(p.Key); p.Key != "" && err != nil {
			return fmt.Sprintf("key of peer %s: %v", p.Name, err)
		}
	}
	// Escaping an envelope inside an envelope doubles its quotes: the size bounds how deep this goes.
	if _, err := ParseSigned(e.NamedBy); e.NamedBy != "" && err != nil {
		return fmt.Sprintf("named_by: %v", err)
	}
	return ""
}
