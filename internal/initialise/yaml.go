package initialise

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"slipway/internal/config"
)

// yaml returns the configuration to write: every key with a line of why, those that need no value as comments.
func (o *Options) yaml(recipient string) []byte {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("# slipway: volume %s on node %s. `slipway config check -c %s` checks this file, `man slipway.yml` explains it.", o.Volume, o.Node, o.Config)
	line("volume: %s    # what the stores call it", scalar(o.Volume))
	line("node: %s    # this machine among the volume's nodes", scalar(o.Node))
	line("source: %s    # plain files; they stay where they are", scalar(o.Source))
	line("mount: %s    # where programs work; may be the source itself", scalar(o.Mount))
	line("state: %s    # journal, catalog, keys: never below the source", scalar(o.State))
	line("")
	line("# Who may read what is sealed. The identity is not needed on this machine.")
	line("recipients:")
	line("  - %s", recipient)
	line("  # - age1…    # a second one, kept elsewhere: without an identity nothing can be restored")
	line("")
	line("# Where it goes. Each store may have a limit: 10MiB/s (or a timetable) and connections: 4 as well.")
	line("cache: %s    # takes every change at once", entry(o.Cache, "cache"))
	stores(&b, "backups", o.Backups, "what the cache host ships to: named here for restores, and for what is said of them")
	stores(&b, "replicas", o.Replicas, "peers that go on sending from a copy of their own when this node cannot")
	if o.needsSSH() {
		line("ssh:")
		line("  key: %s    # opens the accounts on all stores", scalar(o.sshKey()))
		line("  known_hosts: %s    # their hosts' keys; no others are believed", scalar(o.knownHosts()))
	} else {
		line("# ssh: {key: %s, known_hosts: %s}    # for stores behind SSH", scalar(o.sshKey()), scalar(o.knownHosts()))
	}
	line("")
	line("# What holds unless it is set.")
	for _, d := range defaults {
		line("# %-25s # %s", d.key+": "+d.value, d.why)
	}
	line("")
	line("# What is not there unless it is set; these are examples.")
	line("# spool: {dir: %s/spool, cap: 50GiB}    # the node's own store; else that directory, and a tenth of its disk", o.State)
	for _, e := range examples {
		line("# %s: %s    # %s", e.key, e.value, e.why)
	}
	return []byte(b.String())
}

// optional is a key that is written as a comment.
type optional struct{ key, value, why string }

var (
	defaults = []optional{
		{"settle", "200ms", "a file is read when it has been quiet for so long"},
		{"max_age", "5s", "and at the latest so long after its first change"},
		{"open_interval", "30s", "a file held open: again so long after the last time"},
		{"batch_interval", "1s", "the shortest time between two batches"},
		{"min_replicas", "0", "how many replicas make a batch \"replicated\""},
		{"stale_after", "5s", "a sender without news for so long is taken for dead"},
		{"stall_after", "5s", "and one that delivers nothing for so long for stalled"},
		{"step", "1s", "each further node waits so much longer before it takes over"},
		{"prefer_after", "1m", "so long this node has to reach the cache before it sends again"},
		{"allow_other", "true", "users other than the one that mounts may enter"},
	}
	examples = []optional{
		{"exclude", `["*.tmp", "/scratch/"]`, "gitignore's patterns: journaled, never sealed"},
		{"copies", "2", "how many backup hosts make a batch \"stored\"; else as the cache host says"},
		{"rpo", "15m", "status warns when a change takes longer to be on the cache"},
		{"durability", `[{path: "db/", stage: cached}]`, "there fsync waits until the change is that far"},
		{"durability_timeout", "10s", "and at most so long: then EIO"},
		{"hooks", `{stalled: [/usr/local/bin/page-me], behind_rpo: [/usr/local/bin/page-me]}`, "commands run when something goes wrong"},
		{"heartbeat", `{url: "https://example.org/ping", every: 1m}`, "asked while all is well"},
		{"http", `{listen: "127.0.0.1:9847"}`, "status page, metrics and health"},
		{"peer_config", "/etc/slipway/peer.yml", "a replica peer run beside the mount: this node holds other nodes' volumes too"},
	}
)

// stores writes a list of stores; without any, an example.
func stores(b *strings.Builder, key string, list []config.Store, why string) {
	one := strings.TrimSuffix(key, "s")
	if len(list) == 0 {
		fmt.Fprintf(b, "# %s: [{name: %s1, url: \"sftp://slipway@host/data\"}]    # %s\n", key, one, why)
		return
	}
	fmt.Fprintf(b, "%s:    # %s\n", key, why)
	for i, s := range list {
		fmt.Fprintf(b, "  - %s\n", entry(s, fmt.Sprintf("%s%d", one, i+1)))
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
