package store

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"slipway/internal/durable"
)

const (
	maxName    = 1024 // bytes of a whole name
	maxElement = 255  // bytes between slashes
)

// CheckName tells what is wrong with the name of an object: ErrName. Elements do not begin with a dot, which keeps "..",
// hidden files and temporary names out of the store's name space.
func CheckName(name string) error {
	if len(name) > maxName {
		return fmt.Errorf("%w: longer than %d bytes: %.40q…", ErrName, maxName, name)
	}
	for element := range strings.SplitSeq(name, "/") {
		if !validElement(element) {
			return fmt.Errorf("%w: %q", ErrName, name)
		}
	}
	return nil
}

// checkDir is CheckName for List, where "" is the store itself.
func checkDir(dir string) error {
	if dir == "" {
		return nil
	}
	return CheckName(dir)
}

func validElement(s string) bool {
	if s == "" || len(s) > maxElement || s[0] == '.' {
		return false
	}
	for i := range len(s) {
		c := s[i]
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		if !letter && c != '.' && c != '_' && c != '-' {
			return false
		}
	}
	return true
}

// IsTemp tells whether a base name is a temporary name of either kind of store.
func IsTemp(base string) bool { return durable.IsTemp(base) }

// isShard tells whether an object is named by its content, so that an equal size is enough to call it equal.
func isShard(name string) bool {
	return strings.HasSuffix(name, ".shard") && slices.Contains(strings.Split(path.Dir(name), "/"), "shards")
}

// accept reduces a directory as the store's machine told it to what List promises, sorted.
func accept(found []Info) []Info {
	kept := slices.DeleteFunc(found, func(i Info) bool { return !validElement(i.Name) || i.Size < 0 })
	slices.SortFunc(kept, func(a, b Info) int { return strings.Compare(a.Name, b.Name) })
	return slices.CompactFunc(kept, func(a, b Info) bool { return a.Name == b.Name })
}
