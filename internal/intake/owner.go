package intake

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"slipway/internal/batch"
	"slipway/internal/durable"
)

// Pins is a directory of files <volume>.json: whose word counts for a volume that the configuration names no owners for.
type Pins string

type pin struct {
	Format int       `json:"format"` // 1
	Keys   []string  `json:"keys"`   // in the order in which they began; each but the first was named by the one before it
	Since  time.Time `json:"since"`  // of the last
}

func (p Pins) path(volume string) string { return filepath.Join(string(p), volume+".json") }

// Read returns the pinned keys, if there are any. A damaged pin is an error, not "none": it must not let a stranger in.
func (p Pins) Read(volume string) ([]string, error) {
	data, err := os.ReadFile(p.path(volume))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the pinned key of volume %s: %w", volume, err)
	}
	var f pin
	if err := json.Unmarshal(data, &f); err != nil || f.Format != 1 || len(f.Keys) == 0 {
		return nil, fmt.Errorf("read the pinned key of volume %s: %s is damaged: remove it to pin the next key seen, or name the owner in the configuration",
			volume, p.path(volume))
	}
	return f.Keys, nil
}

// Add notes whose word counts from now on. Dying before leaves the key before, which vouches for this one again.
func (p Pins) Add(volume, key string, now time.Time) error {
	keys, err := p.Read(volume)
	if err != nil || hasKey(keys, key) {
		return err
	}
	data, err := json.Marshal(pin{Format: 1, Keys: append(keys, bare(key)), Since: now})
	if err != nil {
		return fmt.Errorf("encode pin: %w", err)
	}
	if err := durable.MkdirAll(string(p), 0o700); err != nil {
		return fmt.Errorf("pin the key of volume %s: %w", volume, err)
	}
	if err := durable.Overwrite(p.path(volume), append(data, '\n'), 0o600); err != nil {
		return fmt.Errorf("pin the key of volume %s: %w", volume, err)
	}
	return nil
}

// bare returns a public key without its comment, so that two spellings of one key compare equal.
func bare(key string) string {
	if f := strings.Fields(key); len(f) >= 2 {
		return f[0] + " " + f[1]
	}
	return key
}

func hasKey(keys []string, key string) bool {
	return slices.ContainsFunc(keys, func(k string) bool { return bare(k) == bare(key) })
}

// trusted returns whose signature counts for a batch that is to continue the chain; pin: nobody is known, the batch's own key
// would be the first. Configured owners count always and alone. Otherwise it is the key of the epoch, and at the beginning of
// a new epoch also one that a signed envelope of the present owner named.
func (v *Volume) trusted(c *Chain, b *batch.Batch) (keys []string, pin bool, err error) {
	present := c.Present()
	same := present.Key != "" && b.Envelope.Epoch == present.Epoch
	switch {
	case same && (len(v.Owners) == 0 || hasKey(v.Owners, present.Key)):
		return []string{present.Key}, false, nil
	case len(v.Owners) > 0:
		return v.Owners, false, nil
	case present.Key != "":
		keys = []string{present.Key}
	default:
		if keys, err = v.Pins.Read(v.Name); err != nil {
			return nil, false, err
		}
		if len(keys) == 0 {
			return []string{b.Envelope.OwnerKey}, true, nil
		}
	}
	if !hasKey(keys, b.Envelope.OwnerKey) && v.named(present, b) {
		keys = append(keys, b.Envelope.OwnerKey)
	}
	return keys, false, nil
}

// named tells whether the batch carries a signed envelope of the present owner, of the present epoch, that names its key.
func (v *Volume) named(present Begin, b *batch.Batch) bool {
	if b.Envelope.NamedBy == "" || present.Key == "" {
		return false
	}
	by, err := batch.ParseSigned(b.Envelope.NamedBy)
	return err == nil && by.Verify([]string{present.Key}) == nil && by.Envelope.VolumeID == v.ID &&
		by.Envelope.Epoch == present.Epoch && hasKey(by.Envelope.NextKeys, b.Envelope.OwnerKey)
}
