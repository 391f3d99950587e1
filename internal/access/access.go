// Package access opens the stores that a reading command names: on its command line, or through a configuration. It also
// gathers who may have written the volume: from the identity file, from the configuration, never from a store.
//
// It only reads, so a crash leaves nothing.
package access

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"slipway/internal/config"
	"slipway/internal/keys"
	"slipway/internal/restore"
	"slipway/internal/restore/chain"
	"slipway/internal/state"
	"slipway/internal/store"
)

// ErrUsage says that what was asked for cannot be done with what was given.
var ErrUsage = errors.New("unusable argument")

// Request says where a volume is to be read from.
type Request struct {
	From     []string       // [NAME=]URL; none: the configuration's stores
	Volume   string         // "": the only one there is
	Identity string         // file; "" where nothing is decrypted
	SSH      config.SSH     // a field that is not set is the configuration's
	Config   *config.Config // may be nil
}

// Volume is a volume opened for reading.
type Volume struct {
	restore.Source
	Name  string
	roots []store.Store
}

// Close frees the connections.
func (v *Volume) Close() error {
	var errs []error
	for _, s := range v.roots {
		errs = append(errs, s.Close())
	}
	return errors.Join(errs...)
}

// Open opens the stores and finds the volume in them. Stores that do not hold it are left out, as long as one does;
// those that do not answer are among the faults then.
func Open(ctx context.Context, r Request) (*Volume, error) {
	v := &Volume{Name: r.Volume}
	list, err := r.stores()
	if err != nil {
		return nil, err
	}
	if s := r.ssh(); behindSSH(r.From) && (s.Key == "" || len(config.KnownHosts(s)) == 0) {
		return nil, fmt.Errorf("%w: a store behind SSH needs --ssh-key and --known-hosts, or the ssh: block of a configuration", ErrUsage)
	}
	if err := v.trust(r); err != nil {
		return nil, err
	}
	var roots []chain.NamedStore
	for _, s := range list {
		opt, err := config.StoreOptions(r.ssh(), s)
		if err != nil {
			return nil, errors.Join(err, v.Close())
		}
		root, err := store.Open(s.URL, opt)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("open store %s: %w", s.Name, err), v.Close())
		}
		v.roots = append(v.roots, root)
		roots = append(roots, chain.NamedStore{Name: s.Name, Store: root})
	}
	if v.Name == "" && r.Config != nil && r.Config.Primary != nil {
		v.Name = r.Config.Primary.Volume
	}
	found, err := chain.Locate(ctx, roots, v.Name)
	if err != nil {
		return nil, errors.Join(err, v.Close())
	}
	v.Stores, v.Name, v.Silent = found.Stores, found.Volume, found.Silent
	v.owners(r)
	return v, nil
}

// trust reads the identity.
func (v *Volume) trust(r Request) error {
	if r.Identity == "" {
		return nil
	}
	id, err := keys.LoadIdentity(r.Identity)
	if err != nil {
		return err
	}
	v.IDs = id.Identities
	for _, lines := range id.Owners {
		v.Owners = append(v.Owners, lines...)
	}
	return nil
}

// owners adds the keys that the configuration trusts.
func (v *Volume) owners(r Request) {
	if c := r.Config; c != nil && c.Cache != nil {
		v.Owners = append(v.Owners, c.Cache.Owners[v.Name]...)
	}
	if c := r.Config; c != nil && c.Peer != nil {
		v.Owners = append(v.Owners, c.Peer.Owners[v.Name]...)
	}
	if c := r.Config; c != nil && c.Receive != nil {
		v.Owners = append(v.Owners, c.Receive.Owners[v.Name]...)
	}
	if c := r.Config; c != nil && c.Primary != nil {
		if signer, err := keys.LoadNodeKey(state.Dir(c.Primary.State).NodeKey()); err == nil {
			v.Owners = append(v.Owners, keys.PublicLine(signer))
		}
	}
	slices.Sort(v.Owners)
	v.Owners = slices.Compact(v.Owners)
}

// stores returns the stores to read, nearest first.
func (r Request) stores() ([]config.Store, error) {
	if len(r.From) > 0 {
		return named(r.From)
	}
	switch c := r.Config; {
	case c == nil:
		return nil, fmt.Errorf("%w: no store is named: give --from, or a configuration with -c", ErrUsage)
	case c.Primary != nil:
		p := c.Primary
		list := []config.Store{{Name: p.Node, URL: p.Spool.Dir}}
		list = append(append(list, p.Replicas...), p.Cache)
		return append(list, p.Backups...), nil
	case c.Peer != nil:
		p := c.Peer
		return append(append([]config.Store{{Name: p.Name, URL: p.Store}}, p.Replicas...), p.Cache), nil
	case c.Receive != nil:
		return []config.Store{{Name: c.Receive.Name, URL: c.Receive.Store}}, nil
	default:
		return append([]config.Store{{Name: c.Cache.Name, URL: c.Cache.Store}}, c.Cache.Ship.To...), nil
	}
}

// NeedsSSH tells whether a store named lies behind SSH and the flags do not say how to reach it.
func (r Request) NeedsSSH() bool {
	return behindSSH(r.From) && (r.SSH.Key == "" || r.SSH.KnownHosts == "")
}

func behindSSH(from []string) bool {
	for _, f := range from {
		if strings.HasPrefix(config.ParseStore(f).URL, "sftp://") {
			return true
		}
	}
	return false
}

func named(from []string) ([]config.Store, error) {
	var list []config.Store
	seen := map[string]bool{}
	for _, f := range from {
		s := config.ParseStore(f)
		if err := store.CheckURL(s.URL); err != nil {
			return nil, fmt.Errorf("%w: --from: %w", ErrUsage, err)
		}
		if s.Name == "" {
			s.Name = s.URL
		}
		if seen[s.Name] {
			return nil, fmt.Errorf("%w: --from names %s twice", ErrUsage, s.Name)
		}
		seen[s.Name] = true
		list = append(list, s)
	}
	return list, nil
}

// ssh returns the keys to use: those given, else the configuration's.
func (r Request) ssh() config.SSH {
	s := r.SSH
	if r.Config != nil {
		if s.Key == "" {
			s.Key = r.Config.SSH().Key
		}
		if s.KnownHosts == "" {
			s.KnownHosts = r.Config.SSH().KnownHosts
		}
	}
	return s
}

// OwnStore returns the request for a node's own store alone.
func OwnStore(c *config.Config) Request {
	dir, volume := "", ""
	switch {
	case c.Primary != nil:
		dir, volume = c.Primary.Spool.Dir, c.Primary.Volume
	case c.Peer != nil:
		dir = c.Peer.Store
	case c.Receive != nil:
		dir = c.Receive.Store
	default:
		dir = c.Cache.Store
	}
	return Request{From: []string{dir}, Volume: volume, Config: c}
}

// Exists tells whether a configuration file is there.
func Exists(path string) bool {
	_, err := os.Stat(filepath.Clean(path))
	return err == nil
}

// Evicts tells whether a store may drop shards that others hold: a node's own store and the cache do.
func (r Request) Evicts(name string) bool {
	if r.Config == nil {
		return false
	}
	if p := r.Config.Primary; p != nil {
		return name == p.Node || name == p.Cache.Name || name == p.Spool.Dir
	}
	if p := r.Config.Peer; p != nil {
		return name == p.Name || name == p.Store || name == p.Cache.Name
	}
	if r.Config.Receive != nil {
		return false
	}
	return name == r.Config.Cache.Name || name == r.Config.Cache.Store
}
