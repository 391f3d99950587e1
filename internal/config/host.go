package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"slipway/internal/keys"
	"slipway/internal/state"
)

// Check looks at this machine: directories, keys, host keys, state. All faults at once, in the file's places; the error is
// *Faults. Nothing is contacted.
func (c *Config) Check() error {
	d := c.doc
	d.faults.Found = nil
	if p := c.Primary; p != nil {
		d.directory("source", p.Source, "make it, or name the directory with the files")
		d.directory("mount", p.Mount, "make it: mkdir "+p.Mount)
		d.peerConfig(p.PeerConfig)
	}
	if c.Cache != nil {
		d.directory("store", c.Cache.Store, "make it, with a directory for each account")
	}
	if c.Receive != nil {
		d.directory("store", c.Receive.Store, "make it, with a directory for each account")
	}
	if c.Peer != nil {
		d.directory("store", c.Peer.Store, "make it, with a directory for each account")
		if c.Peer.Warm != "" {
			d.directory("peer.warm", c.Peer.Warm, "make it: mkdir "+c.Peer.Warm)
		}
	}
	c.checkKeys()
	d.hooks(c.Hooks())
	return d.err()
}

// CheckKeys is Check without the directories, for a daemon that looks at those itself: a dead mount may lie over them.
func (c *Config) CheckKeys() error {
	c.doc.faults.Found = nil
	c.checkKeys()
	return c.doc.err()
}

func (c *Config) checkKeys() {
	d := c.doc
	if c.Primary != nil {
		d.nodeState(c.Primary)
	}
	if c.Peer != nil && c.Peer.Identity != "" {
		d.identity("peer.identity", c.Peer.Identity)
	}
	s := c.SSH()
	if s.Key == "" {
		return
	}
	d.secret("ssh.key", s.Key, "make it: ssh-keygen -t ed25519 -N '' -f "+s.Key)
	if len(KnownHosts(s)) == 0 {
		d.fault(d.at["ssh"], "add known_hosts: FILE", "no file of pinned host keys")
	}
	if s.KnownHosts != "" {
		if _, err := os.Stat(s.KnownHosts); err != nil {
			d.fault(d.at["ssh.known_hosts"], "pin the stores' host keys there: ssh-keyscan shows them, their operators confirm them", "known_hosts: %v", err)
		}
	}
}

func (d *document) directory(key, path, fix string) {
	st, err := os.Stat(path)
	switch {
	case errors.Is(err, unix.ENOTCONN): // a dead mount lies there; `slipway mount` replaces it
	case err != nil:
		d.fault(d.at[key], fix, "%s: %v", key, err)
	case !st.IsDir():
		d.fault(d.at[key], "name a directory", "%s: %s is not a directory", key, path)
	}
}

// peerConfig looks at the file of the peer that runs beside the mount.
func (d *document) peerConfig(path string) {
	if path == "" {
		return
	}
	c, err := Load(path)
	var faults *Faults
	switch {
	case errors.As(err, &faults):
		d.fault(d.at["peer_config"], "see `slipway config check -c "+path+"`", "peer_config: %s: %s", path, faults.Found[0].Message)
	case c.Peer == nil:
		d.fault(d.at["peer_config"], "name that of a replica peer, which has store: and peer:", "peer_config: %s is the configuration of a %s", path, c.Role())
	}
}

func (d *document) secret(key, path, fix string) {
	_, err := keys.ReadSecretFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		d.fault(d.at[key], fix, "%s: %v", key, err)
	case errors.Is(err, keys.ErrMode):
		d.fault(d.at[key], "chmod 600 "+path, "%s: %v", key, err)
	case err != nil:
		d.fault(d.at[key], "see its owner and mode", "%s: %v", key, err)
	}
}

// identity looks at a file of age identities.
func (d *document) identity(key, path string) {
	before := len(d.faults.Found)
	d.secret(key, path, "put a copy of an identity there that the volumes' recipients belong to")
	if len(d.faults.Found) > before {
		return
	}
	if _, err := keys.LoadIdentity(path); err != nil {
		d.fault(d.at[key], "name an identity file, as `slipway keygen` writes it", "%s: %v", key, err)
	}
}

// nodeState looks for what `slipway init` made.
func (d *document) nodeState(p *Primary) {
	at := d.either("state", "volume")
	dir := state.Dir(p.State)
	v, err := dir.ReadVolume()
	switch {
	case err != nil:
		d.fault(at, "run `slipway init`, or name its state directory", "state: %v", err)
		return
	case v.Name != p.Volume:
		d.fault(at, "name the volume's own state directory", "state: %s belongs to volume %q", p.State, v.Name)
	}
	for _, f := range []string{dir.NodeKey(), dir.Secret()} {
		if _, err := keys.ReadSecretFile(f); err != nil {
			fix := "put it back from a copy: the volume cannot go on without it"
			if errors.Is(err, keys.ErrMode) {
				fix = fmt.Sprintf("chmod 600 %s", f)
			}
			d.fault(at, fix, "state: %v", err)
			return
		}
	}
	if _, err := keys.LoadNodeKey(dir.NodeKey()); err != nil {
		d.fault(at, "put the node key back from a copy: batches cannot be signed without it", "state: %v", err)
	}
	if _, err := keys.LoadSecret(dir.Secret()); err != nil {
		d.fault(at, "put the volume's secret back from a copy: nothing can be sealed without it", "state: %v", err)
	}
}
