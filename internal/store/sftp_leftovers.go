package store

import (
	"os"
	"path"
	"sync"
	"sync/atomic"

	"slipway/internal/durable"

	"github.com/pkg/sftp"
)

// leftovers are temporary files of attempts whose connection was lost. The server may still hold requests of that
// connection, the rename among them: coming late, it would put an old progress file over a newer one, or something that
// we have emptied meanwhile under an object's name. So each is renamed first, which makes the late rename fail.
type leftovers struct {
	count atomic.Int32 // of names, to look without the lock
	mu    sync.Mutex   // held while sweeping: nobody writes before it is done
	names []string
}

func (l *leftovers) add(temp string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.names = append(l.names, temp)
	l.count.Store(int32(len(l.names)))
}

// sweep makes the leftovers harmless and frees their space. It returns an error only when the connection is lost.
func (l *leftovers) sweep(c *conn) error {
	if l.count.Load() == 0 {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.names) > 0 {
		old := l.names[len(l.names)-1]
		fresh := path.Join(path.Dir(old), durable.TempName())
		err := c.call(usual, func() error { return c.sftp.Rename(old, fresh) })
		if err == nil {
			err = c.discard(fresh)
		}
		if c.lost() {
			return err
		}
		// Refused: it is not there, or the account renames nothing, and then there is no late rename to fear either.
		l.names = l.names[:len(l.names)-1]
		l.count.Store(int32(len(l.names)))
	}
	return nil
}

// giveUp frees the space of a temporary file after err, now or, when the connection is lost, later.
func (c *conn) giveUp(temp string, err error) error {
	if !c.lost() {
		_ = c.discard(temp) // if the account lets us; otherwise it stays and means nothing
	}
	if c.lost() {
		c.left.add(temp)
	}
	return err
}

// discard removes a temporary file that no request is under way for, or empties it where the account removes nothing.
func (c *conn) discard(temp string) error {
	err := c.call(usual, func() error { return c.sftp.Remove(temp) })
	if err == nil || c.lost() {
		return err
	}
	var f *sftp.File
	err = c.call(usual, func() error {
		f, err = c.sftp.OpenFile(temp, os.O_WRONLY|os.O_TRUNC)
		return err
	})
	c.release(f)
	return err
}
