package promote

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"filippo.io/age"

	"slipway/internal/config"
)

// yaml returns the primary's configuration. What only the former owner's had (backups, exclude, other recipients) is for the operator.
func (r *run) yaml() []byte {
	var b strings.Builder
	c := r.opt.Config
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("# slipway: volume %s on node %s, its owner by promotion. Compare recipients, backups and exclude with the former owner's.", r.opt.Volume, c.Node)
	line("volume: %s", strconv.Quote(r.opt.Volume))
	line("node: %s", strconv.Quote(c.Node))
	line("source: %s", strconv.Quote(r.opt.Source))
	line("mount: %s", strconv.Quote(r.opt.Mount))
	line("state: %s", strconv.Quote(string(r.home)))
	line("recipients:")
	for _, text := range r.recipients() {
		line("  - %s", text)
	}
	replicas := slices.Concat(c.Replicas, r.opt.Replicas)
	if len(replicas) > 0 {
		line("replicas:")
	}
	for _, s := range replicas {
		line("  - %s", config.StoreText(s))
	}
	line("cache: %s", config.StoreText(c.Cache))
	return []byte(b.String() + config.SSHText(c.SSH))
}

// recipients are the identity's own and those named besides.
func (r *run) recipients() (list []string) {
	for _, id := range r.id.Identities {
		switch id := id.(type) {
		case *age.X25519Identity:
			list = append(list, id.Recipient().String())
		case *age.HybridIdentity:
			list = append(list, id.Recipient().String())
		}
	}
	return append(list, r.opt.Recipients...)
}
