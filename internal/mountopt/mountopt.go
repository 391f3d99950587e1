// Package mountopt reads the words after mount(8)'s -o.
//
// It changes nothing, so a crash leaves nothing.
package mountopt

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Options are what slipway makes of them.
type Options struct {
	Set, Clear uint64 // MOUNT_ATTR_* of mount_setattr(2) to be added and taken away
	Remount    bool
	Config     string // the configuration file, "" where none is named
}

// attr is one option that the kernel enforces by itself.
type attr struct{ set, clear uint64 }

var attrs = map[string]attr{
	"ro":          {set: unix.MOUNT_ATTR_RDONLY},
	"rw":          {clear: unix.MOUNT_ATTR_RDONLY},
	"nosuid":      {set: unix.MOUNT_ATTR_NOSUID},
	"suid":        {clear: unix.MOUNT_ATTR_NOSUID},
	"nodev":       {set: unix.MOUNT_ATTR_NODEV},
	"dev":         {clear: unix.MOUNT_ATTR_NODEV},
	"noexec":      {set: unix.MOUNT_ATTR_NOEXEC},
	"exec":        {clear: unix.MOUNT_ATTR_NOEXEC},
	"nodiratime":  {set: unix.MOUNT_ATTR_NODIRATIME},
	"diratime":    {clear: unix.MOUNT_ATTR_NODIRATIME},
	"noatime":     {set: unix.MOUNT_ATTR_NOATIME, clear: unix.MOUNT_ATTR__ATIME},
	"strictatime": {set: unix.MOUNT_ATTR_STRICTATIME, clear: unix.MOUNT_ATTR__ATIME},
	"relatime":    {set: unix.MOUNT_ATTR_RELATIME, clear: unix.MOUNT_ATTR__ATIME},
	"atime":       {set: unix.MOUNT_ATTR_RELATIME, clear: unix.MOUNT_ATTR__ATIME},
}

// ignored are for others than the file system, or what slipway does in any case (the spellings of libfuse).
var ignored = []string{
	"defaults", "auto", "noauto", "nofail", "_netdev", "user", "users", "async",
	"allow_other", "default_permissions", "kernel_cache",
	"fsname=", "subtype=", "max_read=", "attr_timeout=", "entry_timeout=", "comment=", "x-",
}

// Parse reads a list separated by commas; of two that exclude each other the later one counts. An option it does not know is an error.
func Parse(list string) (Options, error) {
	var o Options
	for word := range strings.SplitSeq(list, ",") {
		if path, ok := strings.CutPrefix(word, "config="); ok {
			o.Config = path
			continue
		}
		a, ok := attrs[word]
		switch {
		case ok:
			o.Set, o.Clear = o.Set&^a.clear|a.set, o.Clear&^a.set|a.clear
		case word == "remount":
			o.Remount = true
		case word != "" && !isIgnored(word):
			return Options{}, fmt.Errorf("mount option %q is not known to slipway", word)
		}
	}
	return o, nil
}

func isIgnored(word string) bool {
	return slices.ContainsFunc(ignored, func(i string) bool {
		if strings.HasSuffix(i, "=") || i == "x-" {
			return strings.HasPrefix(word, i)
		}
		return word == i
	})
}

// Restrict returns those of a mount's present options, as /proc/self/mountinfo shows them, that Parse understands.
func Restrict(shown string) Options {
	var kept []string
	for word := range strings.SplitSeq(shown, ",") {
		if _, ok := attrs[word]; ok {
			kept = append(kept, word)
		}
	}
	o, _ := Parse(strings.Join(kept, ",")) // all of them are known
	return o
}
