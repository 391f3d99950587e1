package spooler

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"slipway/internal/batch"
	"slipway/internal/config"
	"slipway/internal/journal"
	"slipway/internal/keys"
	"slipway/internal/restore"
	"slipway/internal/source"
	"slipway/internal/state"
	"slipway/internal/store"
)

// rig is one volume whose journal is written by the test in the mount's place.
type rig struct {
	t      *testing.T
	cfg    *config.Primary
	ident  string
	src    string
	cache  string
	root   *os.File
	w      *journal.Writer
	cancel context.CancelFunc
	s      *Spooler
	skew   time.Duration // of the spooler's clock
}

func newRig(t *testing.T) *rig {
	t.Helper()
	dir := t.TempDir()
	r := &rig{t: t, src: filepath.Join(dir, "src"), cache: filepath.Join(dir, "cache"), ident: filepath.Join(dir, "identity")}
	stateDir := filepath.Join(dir, "state")
	for _, d := range []string{r.src, r.cache, stateDir} {
		check(t, os.Mkdir(d, 0o755))
	}
	st := state.Dir(stateDir)
	check(t, keys.NewNodeKey(st.NodeKey(), "alpha"))
	_, err := keys.NewSecret(st.Secret())
	check(t, err)
	check(t, st.WriteVolume(state.Volume{Name: "projects", ID: batch.NewVolumeID()}))
	signer, err := keys.LoadNodeKey(st.NodeKey())
	check(t, err)
	recipient, err := keys.NewIdentity(r.ident, "alpha", keys.PublicLine(signer))
	check(t, err)
	r.cfg = &config.Primary{
		Volume: "projects", Node: "alpha", Source: r.src, Mount: r.src, State: stateDir,
		Spool: config.Spool{Dir: st.Spool(), Cap: 1 << 30}, Recipients: []string{recipient},
		Cache: config.Store{Name: "cache1", URL: r.cache}, Copies: 1,
		Settle: 0, MaxAge: 5 * time.Second, OpenInterval: 30 * time.Second,
	}
	r.root, err = os.Open(r.src)
	check(t, err)
	t.Cleanup(func() { check(t, r.root.Close()) })
	return r
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// mount begins a new instance of the journal, as every start of the mount does.
func (r *rig) mount() {
	r.t.Helper()
	w, err := journal.Create(state.Dir(r.cfg.State).Journal())
	check(r.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	var g errgroup.Group
	g.Go(func() error { return w.Run(ctx) })
	r.w, r.cancel = w, func() {
		cancel()
		_ = g.Wait()
		check(r.t, w.Close())
	}
	r.t.Cleanup(func() { r.umount() })
	id, attr := r.stat("")
	w.Append(&journal.Record{Op: journal.OpStart, Node: id, Attr: attr})
}

func (r *rig) umount() {
	if r.cancel != nil {
		r.cancel()
		r.cancel = nil
	}
}

func (r *rig) stat(path string) (journal.Ident, journal.Attr) {
	r.t.Helper()
	if path == "" || path == "." {
		id, attr, err := source.Stat(int(r.root.Fd()), "")
		check(r.t, err)
		return id, attr
	}
	id, attr, err := source.Stat(int(r.root.Fd()), path)
	check(r.t, err)
	return id, attr
}

// open starts the spooler on the rig's state.
func (r *rig) open() {
	r.t.Helper()
	s, err := New(Options{Config: r.cfg, Source: r.root, BatchInterval: time.Nanosecond, Now: func() time.Time { return time.Now().Add(r.skew) }, Log: slog.New(slog.NewTextHandler(r.t.Output(), nil))})
	check(r.t, err)
	r.s = s
	r.t.Cleanup(func() { r.close() })
}

func (r *rig) close() {
	if r.s != nil {
		check(r.t, r.s.Close())
		r.s = nil
	}
}

// drain steps until nothing is pending and everything is sealed.
func (r *rig) drain() {
	r.t.Helper()
	v := r.s.vol
	quiet := 0
	r.steps(func() bool {
		if v.pending.Len() > 0 || v.mirror.Report().Unchecked > 0 || !v.sealer.Idle() {
			quiet = 0
		}
		quiet++
		return quiet > 3
	})
}

// steps makes steps until it is enough; the test is the worker.
func (r *rig) steps(enough func() bool) {
	r.t.Helper()
	reader := r.s.vol.pool.Reader()
	deadline := time.Now().Add(20 * time.Second)
	for !enough() {
		if time.Now().After(deadline) {
			r.t.Fatalf("not done: %d pending, %d unchecked", r.s.vol.pending.Len(), r.s.vol.mirror.Report().Unchecked)
		}
		_, err := r.s.Step(r.t.Context())
		check(r.t, err)
		for r.s.vol.pool.Once(r.t.Context(), reader, false) {
		}
	}
}

// ops are the mount's operations: they change the source and append the record.

func (r *rig) create(path string, data string) {
	r.t.Helper()
	full := filepath.Join(r.src, path)
	check(r.t, os.WriteFile(full, nil, 0o644))
	r.created(path)
	id, attr := r.stat(path)
	r.w.Append(&journal.Record{Op: journal.OpOpen, Node: id, Attr: attr})
	check(r.t, os.WriteFile(full, []byte(data), 0o644))
	id, attr = r.stat(path)
	r.w.Append(&journal.Record{Op: journal.OpRelease, Node: id, Attr: attr})
}

// create2 makes a file behind the journal's back.
func (r *rig) create2(path, data string) {
	r.t.Helper()
	check(r.t, os.WriteFile(filepath.Join(r.src, path), []byte(data), 0o644))
}

func restoreAt(seq batch.Seq) restore.At { return restore.At{Seq: seq} }

func (r *rig) write(path string, data string) {
	r.t.Helper()
	id, attr := r.stat(path)
	r.w.Append(&journal.Record{Op: journal.OpOpen, Node: id, Attr: attr})
	check(r.t, os.WriteFile(filepath.Join(r.src, path), []byte(data), 0o644))
	id, attr = r.stat(path)
	r.w.Append(&journal.Record{Op: journal.OpRelease, Node: id, Attr: attr})
}

func (r *rig) mkdir(path string) {
	r.t.Helper()
	check(r.t, os.Mkdir(filepath.Join(r.src, path), 0o755))
	r.created(path)
}

func (r *rig) symlink(target, path string) {
	r.t.Helper()
	check(r.t, os.Symlink(target, filepath.Join(r.src, path)))
	r.created(path)
}

func (r *rig) created(path string) {
	r.t.Helper()
	id, attr := r.stat(path)
	pid, pattr := r.stat(filepath.Dir(path))
	rec := &journal.Record{Op: journal.OpCreate, Node: id, Attr: attr, Parent: pid, ParentAttr: pattr, Name: filepath.Base(path)}
	if attr.Mode&unix.S_IFMT == unix.S_IFLNK {
		rec.Target, _ = os.Readlink(filepath.Join(r.src, path))
	}
	r.w.Append(rec)
}

func (r *rig) remove(path string) {
	r.t.Helper()
	id, attr := r.stat(path)
	check(r.t, os.Remove(filepath.Join(r.src, path)))
	attr.Nlink--
	if attr.Mode&unix.S_IFMT == unix.S_IFDIR {
		attr.Nlink = 0
	}
	pid, pattr := r.stat(filepath.Dir(path))
	r.w.Append(&journal.Record{Op: journal.OpUnlink, Node: id, Attr: attr, Parent: pid, ParentAttr: pattr, Name: filepath.Base(path)})
}

func (r *rig) rename(from, to string, flags uint) {
	r.t.Helper()
	rec := &journal.Record{Op: journal.OpRename, Name: filepath.Base(from), NewName: filepath.Base(to)}
	if oid, oattr, err := source.Stat(int(r.root.Fd()), to); err == nil {
		rec.Other, rec.OtherAttr = oid, oattr
	}
	check(r.t, unix.Renameat2(int(r.root.Fd()), from, int(r.root.Fd()), to, flags))
	rec.Node, rec.Attr = r.stat(to)
	rec.Parent, rec.ParentAttr = r.stat(filepath.Dir(from))
	rec.NewParent, rec.NewParentAttr = r.stat(filepath.Dir(to))
	if flags&unix.RENAME_EXCHANGE != 0 {
		rec.Flags |= journal.FlagExchange
	}
	r.w.Append(rec)
}

func (r *rig) link(from, to string) {
	r.t.Helper()
	check(r.t, os.Link(filepath.Join(r.src, from), filepath.Join(r.src, to)))
	id, attr := r.stat(to)
	pid, pattr := r.stat(filepath.Dir(to))
	r.w.Append(&journal.Record{Op: journal.OpLink, Node: id, Attr: attr, Parent: pid, ParentAttr: pattr, Name: filepath.Base(to)})
}

// restored restores the newest moment from the node's own store and compares it with the source.
func (r *rig) restored() {
	r.t.Helper()
	r.restoredFrom(r.cfg.Spool.Dir, restore.At{})
}

func (r *rig) restoredFrom(dir string, at restore.At) {
	r.t.Helper()
	got := r.restoreTo(dir, at)
	want := listing(r.t, r.src)
	have := listing(r.t, got)
	for p, w := range want {
		if have[p] != w {
			r.t.Errorf("%q: restored %q, want %q", p, have[p], w)
		}
		delete(have, p)
	}
	for p := range have {
		r.t.Errorf("%q: restored, but not in the source", p)
	}
}

func (r *rig) restoreTo(dir string, at restore.At) string {
	r.t.Helper()
	id, err := keys.LoadIdentity(r.ident)
	check(r.t, err)
	root, err := store.Open(dir, store.Options{})
	check(r.t, err)
	defer func() { check(r.t, root.Close()) }()
	tree, err := restore.Load(r.t.Context(), restore.Source{
		Stores: []restore.NamedStore{{Name: "own", Store: store.Sub(root, "projects")}},
		IDs:    id.Identities, Owners: id.Owners["alpha"],
	}, at)
	check(r.t, err)
	target := filepath.Join(r.t.TempDir(), "restored")
	res, err := tree.Restore(r.t.Context(), restore.Options{Target: target})
	check(r.t, err)
	if len(res.Failed) > 0 {
		r.t.Fatalf("restore: %v", res.Failed)
	}
	return target
}

// listing describes every file of a tree in a line: mode, mtime, content or target.
func listing(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	check(t, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		line := info.Mode().String() + " " + info.ModTime().Format(time.RFC3339Nano)
		switch {
		case info.Mode().IsRegular():
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			line += " " + string(data)
		case info.Mode()&os.ModeSymlink != 0:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			line += " -> " + target
		}
		out[rel] = line
		return nil
	}))
	return out
}
