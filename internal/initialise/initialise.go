// Package initialise makes a new volume: its configuration, the node key, the volume's identity and secret, and a new age
// identity. It contacts nobody.
//
// After a crash: every file it made is whole. The configuration comes last, so while it is missing the same command may be
// given again; a node key and a volume that the state directory already holds are kept. The age identity is the one file
// that a second run refuses to meet: nobody may have to wonder which of two holds the key.
package initialise

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"filippo.io/age"

	"slipway/internal/batch"
	"slipway/internal/config"
	"slipway/internal/durable"
	"slipway/internal/keys"
	"slipway/internal/state"
)

// ErrExists says that a file which init makes is there already, and is never written over.
var ErrExists = errors.New("exists already, and is never written over")

// Options are what init is told.
type Options struct {
	Config     string // path of the configuration to write
	Volume     string
	Node       string // default: the host's name
	Source     string
	Mount      string // default: the source
	State      string // default: /var/lib/slipway/VOLUME
	Identity   string // default: ./slipway-VOLUME.identity
	SSHKey     string // default: keys/ssh beside the configuration
	KnownHosts string // default: known_hosts beside the configuration
	Cache      config.Store
	Backups    []config.Store
	Replicas   []config.Store
}

// Result says what was made and what is left to do.
type Result struct {
	Volume    string   `json:"volume"`
	VolumeID  string   `json:"volume_id"`
	Node      string   `json:"node"`
	Config    string   `json:"config"`
	State     string   `json:"state"`
	NodeKey   string   `json:"node_key"`
	PublicKey string   `json:"public_key"`
	Identity  string   `json:"identity"`
	Recipient string   `json:"recipient"`
	Warnings  []string `json:"warnings"`
	Next      []string `json:"next"`
}

// Init makes everything that a new volume needs on its primary node.
func Init(o Options) (*Result, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	for _, path := range []string{o.Config, o.Identity} {
		if _, err := os.Lstat(path); err == nil {
			return nil, fmt.Errorf("%s %w", path, ErrExists)
		}
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	return o.write()
}

// complete sets what was not said, and makes paths absolute.
func (o *Options) complete() error {
	if o.Node == "" {
		host, err := os.Hostname()
		if err != nil {
			return fmt.Errorf("name this node: %w", err)
		}
		o.Node = host
	}
	if o.Mount == "" {
		o.Mount = o.Source
	}
	if o.State == "" {
		o.State = "/var/lib/slipway/" + o.Volume
	}
	if o.Identity == "" {
		o.Identity = "slipway-" + o.Volume + ".identity"
	}
	for _, p := range []*string{&o.Config, &o.Source, &o.Mount, &o.State, &o.Identity, &o.SSHKey, &o.KnownHosts} {
		if *p == "" {
			continue
		}
		abs, err := filepath.Abs(*p)
		if err != nil {
			return fmt.Errorf("find %s: %w", *p, err)
		}
		*p = abs
	}
	return nil
}

// check lets the configuration's own rules judge what was asked for, before anything is written.
func (o *Options) check() error {
	stand, err := age.GenerateX25519Identity() // stands in for the one that is made when all is well
	if err != nil {
		return err
	}
	_, err = config.Parse(o.Config, o.yaml(stand.Recipient().String()))
	return err
}

// write makes the files. Dying before the last one leaves no configuration, and the command may be given again (after the
// identity of the first try was moved away).
func (o *Options) write() (*Result, error) {
	dir := state.Dir(o.State)
	if err := durable.MkdirAll(o.State, 0o700); err != nil {
		return nil, fmt.Errorf("make state directory: %w", err)
	}
	public, err := o.nodeKey(dir)
	if err != nil {
		return nil, err
	}
	id, err := o.volume(dir)
	if err != nil {
		return nil, err
	}
	recipient, err := keys.NewIdentity(o.Identity, o.Node, public)
	if err != nil {
		return nil, fmt.Errorf("make identity: %w", err)
	}
	if err := durable.MkdirAll(filepath.Dir(o.Config), 0o755); err != nil {
		return nil, fmt.Errorf("write configuration: %w", err)
	}
	if err := durable.CreateExclusive(o.Config, o.yaml(recipient), 0o640); err != nil {
		return nil, fmt.Errorf("write configuration: %w", err)
	}
	r := &Result{
		Volume: o.Volume, VolumeID: id, Node: o.Node, Config: o.Config, State: o.State,
		NodeKey: dir.NodeKey(), PublicKey: public, Identity: o.Identity, Recipient: recipient,
	}
	o.advise(r)
	return r, nil
}

// nodeKey makes the node's key, or takes the one that is there, and returns the public line.
func (o *Options) nodeKey(dir state.Dir) (string, error) {
	if err := keys.NewNodeKey(dir.NodeKey(), o.Node); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", fmt.Errorf("make node key: %w", err)
	}
	signer, err := keys.LoadNodeKey(dir.NodeKey())
	if err != nil {
		return "", fmt.Errorf("read node key: %w", err)
	}
	return keys.PublicLine(signer), nil
}

// volume makes the volume's secret and identity, or takes those that are there. The secret comes first: a volume.json
// without it would be a volume that cannot seal.
func (o *Options) volume(dir state.Dir) (string, error) {
	if v, err := dir.ReadVolume(); err == nil {
		if v.Name != o.Volume {
			return "", fmt.Errorf("state directory %s belongs to volume %q: name another with --state", dir, v.Name)
		}
		_, err := keys.LoadSecret(dir.Secret())
		return v.ID.String(), err
	} else if !errors.Is(err, state.ErrNotInitialised) {
		return "", err
	}
	if _, err := keys.NewSecret(dir.Secret()); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", fmt.Errorf("make volume secret: %w", err)
	}
	var id batch.VolumeID
	_, _ = rand.Read(id[:]) // never fails
	return id.String(), dir.WriteVolume(state.Volume{Name: o.Volume, ID: id})
}

// Identity makes one more age identity, never over an existing file, and returns its recipient. With a primary's
// configuration the file notes the owner's public key.
func Identity(path string, owner *config.Primary) (recipient string, err error) {
	if owner != nil {
		signer, err := keys.LoadNodeKey(state.Dir(owner.State).NodeKey())
		if err != nil {
			return "", fmt.Errorf("note the owner: %w", err)
		}
		return keys.NewIdentity(path, owner.Node, keys.PublicLine(signer))
	}
	id, err := age.GenerateX25519Identity()
	if err != nil {
		return "", fmt.Errorf("make identity: %w", err)
	}
	recipient = id.Recipient().String()
	text := fmt.Sprintf("# created: %s\n# public key: %s\n%s\n", time.Now().UTC().Format(time.RFC3339), recipient, id)
	if err := durable.CreateExclusive(path, []byte(text), 0o600); err != nil {
		return "", fmt.Errorf("make identity %s: %w", path, err)
	}
	return recipient, nil
}
