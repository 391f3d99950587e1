package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
)

// Powers names what the account on a store may do though slipway never does it: "remove", "change attributes" (a length is one), "link".
// Whoever steals its key can do it too. Local directories have no account.
//
// Nothing is touched: each is tried on an object that is not there. OpenSSH refuses a request that the account may not make (-P) before it looks.
func Powers(ctx context.Context, s Store) ([]string, error) {
	d, ok := s.(described)
	if !ok {
		return nil, nil
	}
	return d.powers(ctx)
}

// nowhere is a directory that no store has.
const nowhere = ".slipway-nothing-is-here"

func (s *sftpStore) powers(ctx context.Context) (open []string, err error) {
	err = s.with(ctx, "try what the account may do", "", 0, func(_ context.Context, c *conn) error {
		open = nil
		name := path.Join(c.root, nowhere, "object")
		for _, p := range []struct {
			name    string
			request func() error
		}{
			{"remove", func() error { return c.sftp.Remove(name) }},
			{"change attributes", func() error { return c.sftp.Chmod(name, 0o600) }},
			{"link", func() error { return c.sftp.Symlink(name, name+".link") }},
			{"link", func() error { return c.sftp.Link(name, name+".link") }},
		} {
			err := c.call(usual, p.request)
			switch {
			case errors.Is(err, fs.ErrNotExist):
				if len(open) == 0 || open[len(open)-1] != p.name {
					open = append(open, p.name)
				}
			case err == nil:
				return fmt.Errorf("%s %s was carried out, though it is not there", p.name, name)
			case !isAnswer(err):
				return err
			}
		}
		return nil
	})
	return open, err
}
