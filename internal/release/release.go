// Package release says which slipway this is. It keeps nothing, so a crash leaves nothing.
package release

import "runtime/debug"

// Version and commit are set when a package is built (-ldflags "-X slipway/internal/release.Version=…"). Packages are built without
// Go's own stamp of the commit: the same sources have to give the same bytes in any checkout.
var (
	Version = "development"
	commit  = ""
)

// Commit is the commit that was built; empty: unknown.
func Commit() string {
	if commit != "" {
		return commit
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				return s.Value
			}
		}
	}
	return ""
}
