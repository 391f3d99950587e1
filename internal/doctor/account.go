package doctor

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"path"
	"strings"
	"time"

	"slipway/internal/config"
	"slipway/internal/store"
)

// maxSkew is how far a store's clock may be off (docs/limits.md).
const maxSkew = 5 * time.Minute

// account tries what the account on a store may do: reach it by the pinned host key, write, read back what was written, tell the space.
func account(ctx context.Context, r *report, ssh config.SSH, st config.Store, node string, volumes []string) {
	check := "store " + st.Name
	opt, err := config.StoreOptions(ssh, st)
	if err != nil {
		r.fault(check, "", "%v", err)
		return
	}
	s, err := store.Open(st.URL, opt)
	if err != nil {
		r.fault(check, "see the URL in the configuration", "%v", err)
		return
	}
	defer func() { _ = s.Close() }()
	began := time.Now()
	if _, err := s.List(ctx, ""); err != nil {
		r.fault(check, fixFor(err), "reach %s: %v", st.URL, err)
		return
	}
	r.ok(check, "reached %s in %d ms", st.URL, time.Since(began).Milliseconds())
	if weak := store.Weak(s); len(weak) > 0 {
		r.warn(check, "OpenSSH's sftp-server has all of them", "the server lacks %s: what it acknowledges may not survive a power cut there", strings.Join(weak, ", "))
	}
	if free, total, err := store.Space(ctx, s); err == nil {
		roomy(r, check, st.Name, int64(free), int64(total))
	}
	powers(ctx, r, check, s)
	for _, v := range volumes {
		trial(ctx, r, check, s, path.Join(v, "doctor", node))
	}
}

// powers warns of an account that may do what slipway never does.
func powers(ctx context.Context, r *report, check string, s store.Store) {
	if _, local := store.LocalPath(s); local {
		return
	}
	open, err := store.Powers(ctx, s)
	switch {
	case err != nil:
		r.warn(check, "see the log of sshd there", "it could not be found out what the account may do: %v", err)
	case len(open) > 0:
		r.warn(check, "ForceCommand internal-sftp with -P remove,rmdir,setstat,fsetstat,lsetstat,symlink,hardlink, as README shows",
			"the account may %s, which slipway never does: whoever steals its key may too", strings.Join(open, ", "))
	default:
		r.ok(check, "the account can neither remove, nor change attributes, nor link")
	}
}

// trial writes an object, reads it, and compares clocks by its time.
func trial(ctx context.Context, r *report, check string, s store.Store, name string) {
	data := make([]byte, 4096)
	_, _ = rand.Read(data) // never fails
	began := time.Now()
	if err := s.Replace(ctx, name, data); err != nil {
		r.fault(check, fixFor(err), "write %s: %v", name, err)
		return
	}
	took := time.Since(began)
	got, err := s.Read(ctx, name, 1<<20)
	if err == nil && !bytes.Equal(got, data) {
		err = errors.New("it is not what was written")
	}
	if err != nil {
		r.fault(check, "see the disk of that host", "read %s back: %v", name, err)
		return
	}
	r.ok(check, "%s written, made durable and read back: %d ms", name, took.Milliseconds())
	info, err := s.Stat(ctx, name)
	if err != nil {
		r.fault(check, fixFor(err), "ask for %s: %v", name, err)
		return
	}
	if skew := time.Until(info.ModTime); skew.Abs() > maxSkew {
		r.warn(check, "set the wrong one right: chrony or systemd-timesyncd", "its clock and this one's differ by %s", skew.Round(time.Second).Abs())
	}
}

// fixFor says what to do about a class of error.
func fixFor(err error) string {
	if do := store.Remedy(err); do != "" {
		return do
	}
	return "see that the host is up and sshd answers"
}
