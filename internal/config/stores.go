package config

import (
	"context"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/goccy/go-yaml/token"
	"golang.org/x/time/rate"

	"slipway/internal/store"
)

// destination reads a store that is sent to.
func destination(s *Store) reader { return object(storeFields(s)...) }

// replica reads a replica peer: a store with the peer's public key.
func replica(s *Store) reader {
	return object(append(storeFields(s), field{"key", text(&s.Key, checkKey), ""})...)
}

func storeFields(s *Store) []field {
	return []field{
		{"name", text(&s.Name, checkName), ""},
		{"url", text(&s.URL, checkURL), "url: sftp://user@host/data, or a directory"},
		{"limit", text(&s.Limit, checkLimit), ""},
		{"connections", number(&s.Connections, 1, 64), ""},
	}
}

func sshBlock(s *SSH) reader {
	return object(
		field{"key", text(&s.Key, checkPath), "key: FILE, the private key for the accounts"},
		field{"known_hosts", text(&s.KnownHosts, checkPath), ""},
	)
}

// needsSSH asks for an ssh block where a store lies behind SSH.
func (d *document) needsSSH(stores []Store) {
	for _, st := range stores {
		if strings.HasPrefix(st.URL, "sftp://") && d.at["ssh"] == nil {
			d.fault(nil, "add ssh: {key: FILE, known_hosts: FILE}", "store %q is reached over SFTP, and there is no ssh: block", st.Name)
			return
		}
	}
}

// distinct finds stores of one name, or at one place.
func (d *document) distinct(seen map[string]string, path string, s Store) {
	if s.Name != "" {
		if before, ok := seen[s.Name]; ok {
			d.fault(d.either(path+".name", path), "give each store a name of its own", "%s: the name %q is also that of %s", path, s.Name, before)
		}
		seen[s.Name] = path
	}
	if s.URL != "" {
		if before, ok := seen["at "+s.URL]; ok {
			d.fault(d.either(path+".url", path), "name another place, or remove one", "%s lies where %s lies", path, before)
		}
		seen["at "+s.URL] = path
	}
}

func (d *document) repeated(key string, values []string) {
	seen := map[string]bool{}
	for i, v := range values {
		if v != "" && seen[v] {
			d.fault(d.at[fmt.Sprintf("%s[%d]", key, i)], "remove one", "%s: the same value a second time", key)
		}
		seen[v] = true
	}
}

// either returns the place of the first of these keys that the file has.
func (d *document) either(paths ...string) *token.Token {
	for _, p := range paths {
		if at := d.at[p]; at != nil {
			return at
		}
	}
	return nil
}

// below tells whether path is dir or lies in it.
func below(path, dir string) bool {
	if !filepath.IsAbs(dir) {
		return false
	}
	rel, err := filepath.Rel(dir, path)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, "../")
}

var nameGrammar = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

func checkName(s string) (problem, fix string) {
	if !nameGrammar.MatchString(s) {
		return fmt.Sprintf("%q is not a name", s), "letters, digits, dot, underscore and hyphen, 63 at most, the first a letter or digit"
	}
	return "", ""
}

func checkPath(s string) (problem, fix string) {
	switch {
	case strings.HasPrefix(s, "~"):
		return fmt.Sprintf("%q: ~ means nothing to a daemon", s), "write the whole path"
	case !filepath.IsAbs(s):
		return fmt.Sprintf("%q is not an absolute path", s), "write the whole path, from / on"
	case filepath.Clean(s) != s:
		return fmt.Sprintf("%q is not the shortest form of the path", s), "write " + filepath.Clean(s)
	}
	return "", ""
}

func checkURL(s string) (problem, fix string) {
	fix = "write sftp://user@host:port/abs/path, or an absolute directory"
	if err := store.CheckURL(s); err != nil {
		return err.Error(), fix
	}
	if !strings.HasPrefix(s, "sftp://") && !filepath.IsAbs(s) {
		return fmt.Sprintf("%q is not an absolute directory", s), fix
	}
	return "", ""
}

func checkLimit(s string) (problem, fix string) {
	if _, err := ParseLimit(s); err != nil {
		return err.Error(), `write "50MiB/s", "off" or "08:00,512K 18:00,10M 23:00,off"`
	}
	return "", ""
}

// checkKey tells whether s is an Ed25519 public key in authorized_keys form; whose it is, is not decided here.
func checkKey(s string) (problem, fix string) {
	fields := strings.Fields(s)
	if len(fields) >= 2 && fields[0] == "ssh-ed25519" {
		blob, err := base64.StdEncoding.DecodeString(fields[1])
		if err == nil && len(blob) == 51 && string(blob[4:15]) == "ssh-ed25519" {
			return "", ""
		}
	}
	return "not an Ed25519 public key", "write the line of the node's node.key.pub: \"ssh-ed25519 AAAA…\""
}

// StoreOptions turns the ssh block and a store's own keys into options.
func StoreOptions(s SSH, st Store) (store.Options, error) {
	opt := store.Options{KeyFile: s.Key, KnownHosts: KnownHosts(s), Connections: st.Connections}
	if st.Limit != "" {
		l, err := ParseLimit(st.Limit)
		if err != nil {
			return store.Options{}, fmt.Errorf("store %s: %w", st.Name, err)
		}
		if !l.IsZero() {
			opt.Limit = NewThrottle(l, time.Now)
		}
	}
	return opt, nil
}

// KnownHosts returns the files of pinned host keys: the one named, else those of the default places that exist.
func KnownHosts(s SSH) []string {
	if s.KnownHosts != "" {
		return []string{s.KnownHosts}
	}
	var found []string
	for _, f := range []string{"/etc/slipway/known_hosts", "/etc/ssh/ssh_known_hosts"} {
		if _, err := os.Stat(f); err == nil {
			found = append(found, f)
		}
	}
	return found
}

// Throttle holds senders to a Limit, following its timetable. Safe for concurrent use.
type Throttle struct {
	limit Limit
	now   func() time.Time

	mu      sync.Mutex
	limiter *rate.Limiter // its rate and burst are those of the present entry
}

// NewThrottle returns a Throttle by the given clock.
func NewThrottle(l Limit, now func() time.Time) *Throttle {
	return &Throttle{limit: l, now: now, limiter: rate.NewLimiter(rate.Inf, 0)}
}

// WaitN waits until n more bytes may be sent. It looks at the timetable again at least every quarter of a second's worth of
// bytes, so that a change of rate is not waited out at the old one.
func (t *Throttle) WaitN(ctx context.Context, n int) error {
	for n > 0 {
		part, delay := t.reserve(n)
		n -= part
		if delay <= 0 {
			continue
		}
		timer := time.NewTimer(delay)
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-timer.C:
		}
	}
	return ctx.Err()
}

// reserve takes a part of n from the present rate and says how long to wait before it may go.
func (t *Throttle) reserve(n int) (part int, delay time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	allowed := t.limit.At(t.now())
	if allowed == 0 {
		t.limiter.SetLimit(rate.Inf)
		return n, 0
	}
	burst := max(int(allowed/4), 1)
	if t.limiter.Limit() != rate.Limit(allowed) {
		t.limiter.SetLimit(rate.Limit(allowed))
		t.limiter.SetBurst(burst)
	}
	part = min(n, burst)
	return part, t.limiter.ReserveN(time.Now(), part).Delay()
}

// ParseStore reads a store as the command line names it: [NAME=]URL.
func ParseStore(s string) Store {
	if name, url, ok := strings.Cut(s, "="); ok && nameGrammar.MatchString(name) {
		return Store{Name: name, URL: url}
	}
	return Store{URL: s}
}
