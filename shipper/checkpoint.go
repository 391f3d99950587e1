package shipper

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"slipway/internal/ack"
	"slipway/internal/batch"
	"slipway/internal/durable"
	"slipway/internal/intake"
)

// checkpoint is <state>/volumes/<volume>.json: what a restart need not find out again. Unlike the acks, which lie where the
// volume's account can write, it is the shipper's own word.
type checkpoint struct {
	Format   int                   `json:"format"` // 1
	VolumeID batch.VolumeID        `json:"volume_id"`
	Chain    intake.Chain          `json:"chain"`
	Evicted  batch.Seq             `json:"evicted"` // the shards of no batch above have left the cache
	Gone     batch.Seq             `json:"gone"`    // those of all batches up to here have
	Sweep    []batch.Seq           `json:"sweep,omitempty"`
	Cache    ack.Acks              `json:"cache"`
	Hosts    map[string]hostRecord `json:"hosts"`
}

// hostRecord is what is remembered of one backup host.
type hostRecord struct {
	Acks ack.Acks   `json:"acks"`
	Due  []ack.Mark `json:"verify,omitempty"` // what is to be read back, and since when it has been there
}

const maxCheckpoint = 16 << 20

var errNewerState = errors.New("state was written by a newer slipway")

func (s *Shipper) checkpointPath(volume string) string {
	return filepath.Join(s.cfg.State, "volumes", volume+".json")
}

// readCheckpoint returns what was remembered of a volume, or nil. A damaged file is like none: everything is checked again.
func (s *Shipper) readCheckpoint(volume string) (*checkpoint, error) {
	name := s.checkpointPath(volume)
	info, err := os.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read state of volume %s: %w", volume, err)
	}
	if info.Size() > maxCheckpoint {
		return nil, fmt.Errorf("read state of volume %s: %s has %d bytes", volume, name, info.Size())
	}
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("read state of volume %s: %w", volume, err)
	}
	var p checkpoint
	if err := json.Unmarshal(data, &p); err != nil {
		s.log.Error("read state: everything will be checked again", "volume", volume, "file", name, "error", err)
		return nil, nil
	}
	if p.Format != 1 {
		return nil, fmt.Errorf("read state of volume %s: %s has format %d: %w", volume, name, p.Format, errNewerState)
	}
	return &p, nil
}

// writeCheckpoint replaces it. Dying before leaves the old one, and what was done since is found out again.
func (s *Shipper) writeCheckpoint(volume string, p checkpoint) error {
	p.Format = 1
	data, err := json.Marshal(p)
	if err != nil {
		return fmt.Errorf("encode state of volume %s: %w", volume, err)
	}
	name := s.checkpointPath(volume)
	if err := durable.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return fmt.Errorf("write state of volume %s: %w", volume, err)
	}
	if err := durable.Overwrite(name, data, 0o600); err != nil {
		return fmt.Errorf("write state of volume %s: %w", volume, err)
	}
	return nil
}
