// Package state names what a node keeps below its state directory, and reads and writes the volume's identity there.
//
//	node.key        the node's Ed25519 key (0600), node.key.pub beside it
//	volume.json     volume name and id
//	volume.secret   the volume's secret (0600)
//	peers/          the replica peers' public keys, recorded at first contact
//	journal/        what the mount process wrote and the spooler has not sealed yet
//	catalog.db      the tree as last sealed, and the chunk index
//	spool/          the node's own store, unless the configuration puts it elsewhere
//	superseded.json who owns the volume in this node's place, once another node was promoted
//	lock            held by the supervisor
//	control.sock    answers of the running daemon
//	status.json     its last answer
//	alerts.json     what hooks were told
//	drills.json     how the last drill of each backup host went; drill.lock is held by one
//	doctor.lock     held while doctor makes a round trip
//
// After a crash: volume.json and volume.secret are whole or absent; without them the node cannot seal.
package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"slipway/internal/batch"
	"slipway/internal/durable"
)

// Dir is a node's state directory.
type Dir string

// ErrNotInitialised means that the state directory has no volume; `slipway init` makes it.
var ErrNotInitialised = errors.New("state directory holds no volume: run slipway init")

// NodeKey is the node's signing key.
func (d Dir) NodeKey() string { return filepath.Join(string(d), "node.key") }

// Secret is the volume's secret.
func (d Dir) Secret() string { return filepath.Join(string(d), "volume.secret") }

// Journal is the directory of the operations log.
func (d Dir) Journal() string { return filepath.Join(string(d), "journal") }

// Catalog is the bbolt file.
func (d Dir) Catalog() string { return filepath.Join(string(d), "catalog.db") }

// Spool is the node's own store where the configuration names none.
func (d Dir) Spool() string { return filepath.Join(string(d), "spool") }

// Lock is held by the supervisor.
func (d Dir) Lock() string { return filepath.Join(string(d), "lock") }

// MountLog is what a daemon says that mount(8) started; each start begins it anew.
func (d Dir) MountLog() string { return filepath.Join(string(d), "mount.log") }

// Peers holds the replica peers' public keys as recorded at first contact.
func (d Dir) Peers() string { return filepath.Join(string(d), "peers") }

func (d Dir) volumeFile() string { return filepath.Join(string(d), "volume.json") }

// Volume is the identity of the volume that a primary owns.
type Volume struct {
	Format int            `json:"format"`
	Name   string         `json:"volume"`
	ID     batch.VolumeID `json:"volume_id"`
}

// WriteVolume notes a new volume; fs.ErrExist if there is one.
func (d Dir) WriteVolume(v Volume) error {
	v.Format = 1
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode volume identity: %w", err)
	}
	return durable.CreateExclusive(d.volumeFile(), append(data, '\n'), 0o600)
}

// ReadVolume reads it; ErrNotInitialised if there is none.
func (d Dir) ReadVolume() (Volume, error) {
	data, err := os.ReadFile(d.volumeFile())
	if errors.Is(err, fs.ErrNotExist) {
		return Volume{}, fmt.Errorf("%s: %w", d, ErrNotInitialised)
	}
	if err != nil {
		return Volume{}, fmt.Errorf("read volume identity: %w", err)
	}
	var v Volume
	if err := json.Unmarshal(data, &v); err != nil {
		return Volume{}, fmt.Errorf("read volume identity %s: %w", d.volumeFile(), err)
	}
	if v.Format != 1 {
		return Volume{}, fmt.Errorf("read volume identity %s: format %d is newer than this slipway", d.volumeFile(), v.Format)
	}
	return v, nil
}
