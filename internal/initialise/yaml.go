package initialise

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"slipway/internal/config"
)

// yaml returns the configuration to write.
func (o *Options) yaml(recipient string) []byte {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("# slipway: volume %s on node %s. `slipway config check -c %s` checks this file.", o.Volume, o.Node, o.Config)
	line("volume: %s", scalar(o.Volume))
	line("node: %s", scalar(o.Node))
	line("source: %s    # plain files; they stay where they are", scalar(o.Source))
	line("mount: %s    # where programs work; may be the source itself", scalar(o.Mount))
	line("state: %s    # journal, catalog, keys: never below the source", scalar(o.State))
	line("# spool: {dir: %s/spool, cap: 50GiB}    # the node's own store; cap: a tenth of its disk unless set", o.State)
	line("")
	line("# Who may read what is sealed. The identity is not needed on this machine.")
	line("recipients:")
	line("  - %s", recipient)
	line("  # - age1…    # a second one, kept elsewhere: without an identity nothing can be restored")
	line("")
	stores(&b, "replicas", o.Replicas)
	line("cache: %s", entry(o.Cache, "cache"))
	stores(&b, "backups", o.Backups)
	if o.needsSSH() {
		line("ssh:")
		line("  key: %s", scalar(o.sshKey()))
		line("  known_hosts: %s", scalar(o.knownHosts()))
	}
	line("")
	line("# exclude: [\"*.tmp\", \"/scratch/\"]    # gitignore's patterns: journaled, never sealed")
	line("# durability: [{path: \"db/**\", stage: cached}]    # there fsync waits until the cache has it")
	line("# settle: 200ms         # a file is sealed when it has been quiet for so long")
	line("# max_age: 5s           # and at the latest so long after its first change")
	line("# open_interval: 30s    # a file held open: again so long after its last capture")
	return []byte(b.String())
}

func stores(b *strings.Builder, key string, list []config.Store) {
	if len(list) == 0 {
		return
	}
	fmt.Fprintf(b, "%s:\n", key)
	for i, s := range list {
		fmt.Fprintf(b, "  - %s\n", entry(s, fmt.Sprintf("%s%d", strings.TrimSuffix(key, "s"), i+1)))
	}
}

func entry(s config.Store, fallback string) string {
	if s.Name == "" {
		s.Name = fallback
	}
	return fmt.Sprintf("{name: %s, url: %s}", scalar(s.Name), strconv.Quote(s.URL))
}

// scalar quotes what YAML would read as anything but this text.
func scalar(s string) string {
	for i, r := range s {
		plain := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r == '/' && i == 0 || i > 0 && strings.ContainsRune("/._-0123456789", r)
		if !plain {
			return strconv.Quote(s)
		}
	}
	switch strings.ToLower(s) {
	case "", "true", "false", "null", "yes", "no", "on", "off", "y", "n":
		return strconv.Quote(s)
	}
	return s
}

func (o *Options) needsSSH() bool {
	for _, s := range append(append([]config.Store{o.Cache}, o.Replicas...), o.Backups...) {
		if strings.HasPrefix(s.URL, "sftp://") {
			return true
		}
	}
	return o.SSHKey != ""
}

func (o *Options) sshKey() string {
	if o.SSHKey != "" {
		return o.SSHKey
	}
	return filepath.Join(filepath.Dir(o.Config), "keys", "ssh")
}

func (o *Options) knownHosts() string {
	if o.KnownHosts != "" {
		return o.KnownHosts
	}
	return filepath.Join(filepath.Dir(o.Config), "known_hosts")
}

// advise says what should not stay as it is and what to do next.
func (o *Options) advise(r *Result) {
	r.Warnings = []string{
		"one recipient only: when the identity file is lost, everything sealed is lost with it; add a second one under recipients:",
	}
	if st, err := os.Stat(o.Source); err != nil || !st.IsDir() {
		r.Warnings = append(r.Warnings, fmt.Sprintf("the source %s is not a directory yet", o.Source))
	}
	r.Next = append(r.Next, fmt.Sprintf("move %s to a safe place away from this machine: nothing can be restored without it", o.Identity))
	if o.needsSSH() {
		if _, err := os.Stat(o.sshKey()); err != nil {
			r.Next = append(r.Next, fmt.Sprintf("make the SSH key for the stores' accounts: ssh-keygen -t ed25519 -N '' -f %s", o.sshKey()))
		}
		if _, err := os.Stat(o.knownHosts()); err != nil {
			r.Next = append(r.Next, fmt.Sprintf("pin the stores' host keys in %s: ssh-keyscan shows them, their operators confirm them", o.knownHosts()))
		}
	}
	r.Next = append(r.Next,
		fmt.Sprintf("let the cache host know the owner; in its configuration: owners: {%s: [\"%s\"]}", o.Volume, r.PublicKey),
		fmt.Sprintf("slipway config check -c %s", o.Config),
		fmt.Sprintf("slipway mount -c %s", o.Config))
}
