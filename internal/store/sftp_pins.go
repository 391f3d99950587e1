package store

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"

	"github.com/skeema/knownhosts"
	"golang.org/x/crypto/ssh"
	xknownhosts "golang.org/x/crypto/ssh/knownhosts"
)

// pins are the host keys that known_hosts files hold for one address. They are read for every connection, so that an
// operator's change counts at once.
type pins struct {
	addr  string
	files []string
	db    *knownhosts.HostKeyDB

	accepted bool  // the server has shown a pinned key
	refused  error // or another one: ErrHostKey
}

func readPins(files []string, addr string) (*pins, error) {
	if len(files) == 0 {
		return nil, fmt.Errorf("%w: no known_hosts file is configured (ssh: {known_hosts: FILE}, --known-hosts)", ErrHostKey)
	}
	var present []string
	for _, file := range files {
		if _, err := os.Stat(file); err == nil || !errors.Is(err, fs.ErrNotExist) {
			present = append(present, file)
		}
	}
	db, err := knownhosts.NewDB(present...)
	if err != nil {
		return nil, fmt.Errorf("%w: read known hosts: %w", ErrHostKey, err)
	}
	return &pins{addr: addr, files: files, db: db}, nil
}

// algorithms returns the kinds of keys that are pinned, or nil for any: the key shown is then refused, but named.
func (p *pins) algorithms() []string { return p.db.HostKeyAlgorithms(p.addr) }

// check is the callback of the SSH handshake.
func (p *pins) check(hostname string, remote net.Addr, key ssh.PublicKey) error {
	err := p.db.HostKeyCallback()(hostname, remote, key)
	if err == nil {
		p.accepted = true
		return nil
	}
	p.refused = p.explain(err, key)
	return p.refused
}

func (p *pins) explain(err error, key ssh.PublicKey) error {
	line := knownhosts.Line([]string{p.addr}, key)
	var wrong *xknownhosts.KeyError
	var revoked *xknownhosts.RevokedError
	switch {
	case errors.As(err, &revoked):
		return fmt.Errorf("%w: the key of %s is revoked in %s:%d", ErrHostKey, p.addr, revoked.Revoked.Filename,
			revoked.Revoked.Line)
	case errors.As(err, &wrong) && len(wrong.Want) > 0:
		return fmt.Errorf("%w: %s shows %s, which is not the key in %s:%d; if the host has a new key, replace that line by:\n%s",
			ErrHostKey, p.addr, ssh.FingerprintSHA256(key), wrong.Want[0].Filename, wrong.Want[0].Line, line)
	case errors.As(err, &wrong):
		return fmt.Errorf("%w: none is pinned for %s in %s; if %s is its key, add this line:\n%s", ErrHostKey, p.addr,
			strings.Join(p.files, ", "), ssh.FingerprintSHA256(key), line)
	}
	return fmt.Errorf("%w: %w", ErrHostKey, err)
}

// otherKind is for a server that has no key of a pinned kind, and so shows none.
func (p *pins) otherKind(offered []string) error {
	return fmt.Errorf("%w: %s has keys of the kinds %s only, and %s pins others; ask the host's operator for its key "+
		"(ssh-keyscan prints it)", ErrHostKey, p.addr, strings.Join(offered, ", "), strings.Join(p.files, ", "))
}
