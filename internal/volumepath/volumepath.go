// Package volumepath turns paths as people type them into paths relative to a volume.
//
// It keeps nothing, so a crash leaves nothing.
package volumepath

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"slipway/internal/config"
)

// ErrOutside says that a path does not lie in the volume.
var ErrOutside = errors.New("path lies outside the volume")

// Of returns a path relative to the volume: given as seen in the mount or in the source, absolute or from the working
// directory. "" is the volume itself.
func Of(p *config.Primary, path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("find %q: %w", path, err)
	}
	candidates := []string{abs}
	// A link on the way may lead into the volume; the last part is taken as it is, since a link there is itself the file.
	if dir, err := filepath.EvalSymlinks(filepath.Dir(abs)); err == nil {
		candidates = append(candidates, filepath.Join(dir, filepath.Base(abs)))
	}
	for _, c := range candidates {
		for _, root := range []string{p.Mount, p.Source} {
			rel, err := filepath.Rel(root, c)
			if err != nil || rel == ".." || strings.HasPrefix(rel, "../") {
				continue
			}
			if rel == "." {
				rel = ""
			}
			return rel, nil
		}
	}
	return "", fmt.Errorf("%s: %w %s (%s)", abs, ErrOutside, p.Volume, p.Mount)
}

// All is Of for several paths; none: the whole volume.
func All(p *config.Primary, paths []string) ([]string, error) {
	var list []string
	for _, path := range paths {
		rel, err := Of(p, path)
		if err != nil {
			return nil, err
		}
		if rel == "" {
			return nil, nil
		}
		list = append(list, rel)
	}
	return list, nil
}
