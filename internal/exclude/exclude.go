// Package exclude says which names the configuration leaves out of a backup. It holds a list of patterns and nothing else: no
// state, nothing that a crash could change.
package exclude

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
)

// List decides what `exclude:` leaves out: patterns in the language of gitignore(5), relative to the volume. It is our own
// because the Go libraries for it either translate to regular expressions with known differences from git, or bring a whole
// git along; the language is small, and its corners are in the tests, checked against git itself.
type List struct {
	rules []rule
	sum   string
}

// rule is one pattern.
type rule struct {
	line    int // in the list, from 1
	negated bool
	dirOnly bool
	base    bool   // no slash in it: matches the last component anywhere
	glob    string // slash-separated, without a leading slash
}

// New reads a list of patterns; comments and empty lines count as lines. nil, which excludes nothing, for an empty one.
func New(patterns []string) (*List, error) {
	x := &List{}
	for i, p := range patterns {
		r, ok, err := parse(p)
		if err != nil {
			return nil, fmt.Errorf("exclude pattern %d %q: %w", i+1, p, err)
		}
		if ok {
			r.line = i + 1
			x.rules = append(x.rules, r)
		}
	}
	if len(x.rules) == 0 {
		return nil, nil
	}
	sum := sha256.Sum256([]byte(strings.Join(patterns, "\n")))
	x.sum = hex.EncodeToString(sum[:])
	return x, nil
}

func parse(p string) (rule, bool, error) {
	var r rule
	p = trimTrailingSpace(strings.TrimSuffix(p, "\r"))
	if p == "" || p[0] == '#' {
		return r, false, nil
	}
	if p[0] == '!' {
		r.negated, p = true, p[1:]
	}
	if strings.HasSuffix(p, "/") {
		r.dirOnly, p = true, p[:len(p)-1]
	}
	r.base = !strings.Contains(p, "/")
	r.glob = strings.TrimPrefix(p, "/")
	if r.glob == "" {
		return r, false, nil // "/", "!": match nothing, as in git
	}
	return r, true, checkGlob(r.glob)
}

// trimTrailingSpace removes spaces at the end that no backslash quotes.
func trimTrailingSpace(p string) string {
	end := 0
	for i := 0; i < len(p); i++ {
		if p[i] == '\\' && i+1 < len(p) {
			i++
			end = i + 1
		} else if p[i] != ' ' {
			end = i + 1
		}
	}
	return p[:end]
}

// Match tells whether path (relative to the volume) is left out, and by which line. What lies below an excluded directory is
// excluded with it, whatever later patterns say.
func (x *List) Match(path string, isDir bool) (line int, excluded bool) {
	if x == nil {
		return 0, false
	}
	path = strings.Trim(path, "/")
	for i := 0; i < len(path); i++ {
		if path[i] == '/' {
			if line, excluded = x.matchAt(path[:i], true); excluded {
				return line, true
			}
		}
	}
	return x.matchAt(path, isDir)
}

// MatchAt is Match for the path alone, without the directories above it.
func (x *List) MatchAt(path string, isDir bool) bool {
	if x == nil {
		return false
	}
	_, excluded := x.matchAt(strings.Trim(path, "/"), isDir)
	return excluded
}

// matchAt looks at this path alone, not at the directories above it. The last pattern that matches decides.
func (x *List) matchAt(path string, isDir bool) (line int, excluded bool) {
	if path == "" || path == "." {
		return 0, false
	}
	base := path[strings.LastIndexByte(path, '/')+1:]
	for i := len(x.rules) - 1; i >= 0; i-- {
		r := &x.rules[i]
		if r.dirOnly && !isDir {
			continue
		}
		subject := path
		if r.base {
			subject = base
		}
		if globMatch(r.glob, subject) {
			if r.negated {
				return 0, false
			}
			return r.line, true
		}
	}
	return 0, false
}

// Digest names the list: a tree sealed under another one has to be looked at again. Empty when nothing is excluded.
func (x *List) Digest() string {
	if x == nil {
		return ""
	}
	return x.sum
}
