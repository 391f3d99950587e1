package store

import (
	"context"
	"path"
	"path/filepath"
	"strings"
)

// Sub returns the part of s below dir (a volume's directory in a store). Closing it does not close s.
func Sub(s Store, dir string) Store {
	if dir == "" {
		return s
	}
	return sub{s: s, dir: dir}
}

// sub puts dir before every name. A dir outside the grammar makes every name one, so nothing is checked here; but an empty
// element must not vanish in joining, or a name that s refuses would pass.
type sub struct {
	s   Store
	dir string
}

func (b sub) join(name string) string { return b.dir + "/" + name }

func (b sub) Publish(ctx context.Context, name string, data []byte) error {
	return b.s.Publish(ctx, b.join(name), data)
}

func (b sub) CreateExclusive(ctx context.Context, name string, data []byte) error {
	return b.s.CreateExclusive(ctx, b.join(name), data)
}

func (b sub) Replace(ctx context.Context, name string, data []byte) error {
	return b.s.Replace(ctx, b.join(name), data)
}

func (b sub) Read(ctx context.Context, name string, max int64) ([]byte, error) {
	return b.s.Read(ctx, b.join(name), max)
}

func (b sub) Stat(ctx context.Context, name string) (Info, error) {
	info, err := b.s.Stat(ctx, b.join(name))
	info.Name = strings.TrimPrefix(info.Name, b.dir+"/")
	return info, err
}

func (b sub) List(ctx context.Context, dir string) ([]Info, error) {
	if dir == "" {
		return b.s.List(ctx, b.dir)
	}
	return b.s.List(ctx, b.join(dir))
}

func (b sub) Remove(ctx context.Context, name string) error { return b.s.Remove(ctx, b.join(name)) }

func (b sub) Close() error { return nil }

func (b sub) localPath() (string, bool) {
	dir, ok := LocalPath(b.s)
	if !ok {
		return "", false
	}
	return filepath.Join(dir, path.Clean("/"+b.dir)), true
}

func (b sub) weak() []string { return Weak(b.s) }

func (b sub) powers(ctx context.Context) ([]string, error) { return Powers(ctx, b.s) }

func (b sub) confirmed() int64 { return Confirmed(b.s) }

func (b sub) space(ctx context.Context) (free, total uint64, err error) { return Space(ctx, b.s) }
