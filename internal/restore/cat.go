package restore

import (
	"context"
	"fmt"
	"io"
	"strings"

	"slipway/internal/restore/object"
)

// Cat writes the content of a regular file into w, holes as zeros.
func (t *Tree) Cat(ctx context.Context, path string, w io.Writer) error {
	names, err := split(path)
	if err != nil {
		return err
	}
	in, err := t.lookup(names)
	if err != nil {
		return fmt.Errorf("cat %w", err)
	}
	path = strings.Join(names, "/")
	switch {
	case isDir(in):
		return fmt.Errorf("cat %q: %w", path, ErrIsDir)
	case !isReg(in):
		return fmt.Errorf("cat %q: %w: not a regular file", path, ErrPath)
	}
	c, _, _ := object.Content(in)
	if c == nil {
		return fmt.Errorf("cat %q: %w", path, ErrPending)
	}
	if err := t.content.Copy(ctx, c, w); err != nil {
		return fmt.Errorf("cat %q: %w", path, err)
	}
	return nil
}
