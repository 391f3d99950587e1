package drill

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"golang.org/x/sys/unix"

	"slipway/internal/access"
	"slipway/internal/batch"
	"slipway/internal/config"
	"slipway/internal/control"
	"slipway/internal/durable"
	"slipway/internal/keys"
	"slipway/internal/restore"
	"slipway/internal/restore/volumetest"
)

func must(t *testing.T, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

var moment = time.Date(2026, 11, 23, 10, 0, 0, 5, time.UTC)

// rig is a volume on a backup host, and the primary whose files it holds.
type rig struct {
	*volumetest.Volume
	opt    Options
	source string
}

// newRig seals first 30 files, then the last two of them once more.
func newRig(t *testing.T) *rig {
	t.Helper()
	t.Setenv("TMPDIR", t.TempDir())
	v := volumetest.New(t, "vault1")
	dir := t.TempDir()
	r := &rig{Volume: v, source: filepath.Join(dir, "source")}
	identity, state := filepath.Join(dir, "identity"), filepath.Join(dir, "state")
	must(t, os.Mkdir(r.source, 0o755), os.Mkdir(state, 0o700),
		os.WriteFile(identity, fmt.Appendf(nil, "# owner alpha %s\n%s\n", v.Owner.Key, v.Identity), 0o600))
	body := &batch.Body{Secret: &v.Secret, Inodes: []batch.Inode{{ID: batch.Root, Mode: 0o40755, Mtime: moment.UnixNano()}}}
	late := &batch.Body{}
	for i := range 30 {
		name, text := fmt.Sprintf("file %d", i), strings.Repeat("x", size(i))
		in := batch.Inode{ID: batch.FileID(i + 2), Mode: 0o100644, Mtime: moment.UnixNano(), Content: v.Content(text)}
		body.Inodes, body.Entries = append(body.Inodes, in), append(body.Entries, batch.Entry{Parent: batch.Root, Name: name, ID: in.ID})
		if i >= 28 {
			text = strings.Repeat("y", size(i))
			in.Content = v.Content(text)
			late.Inodes = append(late.Inodes, in)
		}
		must(t, os.WriteFile(filepath.Join(r.source, name), []byte(text), 0o644), os.Chtimes(filepath.Join(r.source, name), moment, moment))
	}
	pending, unclean := batch.Inode{ID: 100, Mode: 0o100644}, batch.Inode{ID: 101, Mode: 0o100644, Content: v.Content("z")}
	unclean.Content.Clean = false
	body.Inodes = append(body.Inodes, pending, unclean)
	body.Entries = append(body.Entries, batch.Entry{Parent: batch.Root, Name: "pending", ID: pending.ID}, batch.Entry{Parent: batch.Root, Name: "unclean", ID: unclean.ID})
	complete := func(e *batch.Envelope) { e.Complete = true }
	v.Seal(body, complete)
	v.Seal(late, complete)
	r.opt = Options{
		Config: &config.Config{Path: "alpha.yml", Primary: &config.Primary{Volume: "projects", Node: "alpha", Source: r.source, State: state,
			Backups: []config.Store{{Name: "vault1", URL: filepath.Dir(v.Dirs[0])}}}},
		Identity: identity, Seed: 1, Files: 20, Bytes: 1 << 20, Timeout: time.Minute, Now: time.Now,
	}
	return r
}

// size is that of a file; the 15th is the smallest.
func size(i int) int { return 100 + (i+15)%30 }

func (r *rig) run(t *testing.T) Result {
	t.Helper()
	list, err := Run(t.Context(), r.opt)
	if err != nil || len(list) != 1 {
		t.Fatalf("%+v, %v", list, err)
	}
	if left, err := os.ReadDir(os.TempDir()); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	return list[0]
}

func (r *rig) draw(t *testing.T) (names []string) {
	t.Helper()
	tree, err := restore.Load(t.Context(), r.Source(), restore.At{})
	must(t, err)
	rows, err := draw(t.Context(), tree, &r.opt)
	must(t, err)
	for _, row := range rows {
		names = append(names, row.Path)
	}
	return names
}

// TestDraw: the seed decides, the newest batch's files are among them, and files and bytes are bounded.
func TestDraw(t *testing.T) {
	r := newRig(t)
	names := r.draw(t)
	if len(names) != 20 || !slices.Contains(names[:2], "file 28") || !slices.Contains(names[:2], "file 29") || len(slices.Compact(slices.Sorted(slices.Values(names)))) != 20 {
		t.Errorf("drawn %q", names)
	}
	if again := r.draw(t); !slices.Equal(again, names) {
		t.Errorf("the same seed draws %q and %q", names, again)
	}
	r.opt.Seed = 2
	if other := r.draw(t); slices.Equal(other, names) {
		t.Error("every seed draws the same")
	}
	r.opt.Bytes = 310
	if few := r.draw(t); len(few) != 2 {
		t.Errorf("%d bytes are %q", r.opt.Bytes, few)
	}
	r.opt.Bytes = 10
	if one := r.draw(t); !slices.Equal(one, []string{"file 15"}) {
		t.Errorf("where none fits %q is taken", one)
	}
}

// TestCompares: what is restored is compared with the file here, if that is as it was sealed.
func TestCompares(t *testing.T) {
	r := newRig(t)
	r.opt.Files = 100
	if got := r.run(t); !got.Passed || got.Files != 30 || got.Compared != 30 || got.Batch != 2 || got.Epoch != 1 {
		t.Errorf("sound: %+v", got)
	}
	at := func(name string) string { return filepath.Join(r.source, name) }
	must(t, os.Remove(at("file 1")), unix.Mkfifo(at("file 1"), 0o600), os.Remove(at("file 2")), os.WriteFile(at("file 3"), []byte("changed since"), 0o644),
		os.Remove(at("file 4")), os.WriteFile(at("as long"), []byte(strings.Repeat("q", size(4))), 0o644), os.Chtimes(at("as long"), moment, moment), os.Symlink("as long", at("file 4")),
		os.WriteFile(at("file 7"), []byte(strings.Repeat("q", size(7))), 0o644), os.WriteFile(at("file 8"), []byte("shorter"), 0o644), os.Chtimes(at("file 8"), moment, moment))
	if got := r.run(t); !got.Passed || got.Compared != 24 {
		t.Errorf("changed since: %+v", got)
	}
	elsewhere := *r.opt.Config.Primary
	elsewhere.Source, elsewhere.State = filepath.Join(t.TempDir(), "none"), filepath.Join(t.TempDir(), "new")
	there := &rig{r.Volume, r.opt, ""}
	there.opt.Config = &config.Config{Primary: &elsewhere}
	if got := there.run(t); !got.Passed || got.Files != 30 || got.Compared != 0 {
		t.Errorf("on another host: %+v", got)
	}
	must(t, os.WriteFile(at("file 6"), []byte(strings.Repeat("z", size(6))), 0o644), os.Chtimes(at("file 6"), moment, moment))
	if got := r.run(t); got.Passed || len(got.Problems) != 1 || got.Problems[0].Path != "file 6" || !strings.Contains(got.Problem, `"file 6": is not what lies in `) {
		t.Errorf("not the file here: %+v", got)
	}
}

// TestKept: how each host's last drill went is kept, an earlier one of another host too, and a failure is an alarm of the status that knows the host.
func TestKept(t *testing.T) {
	r := newRig(t)
	state := r.opt.Config.Primary.State
	must(t, keep(state, []Result{{Volume: "projects", Drill: control.Drill{Store: "vault2", Passed: true}}, {Volume: "projects", Drill: control.Drill{Store: "vault1", Problem: "old"}}}))
	r.run(t)
	status := func() control.Status {
		list := []control.Status{{Volume: "projects", Stores: []control.StoreStatus{{Name: "vault1", Kind: "backup"}, {Name: "vault2", Kind: "replica"}}}, {Volume: "media", Stores: []control.StoreStatus{{Name: "vault1", Kind: "backup"}}}}
		Amend(state)(list)
		if len(list[1].Drills) > 0 {
			t.Error("another volume has it")
		}
		return list[0]
	}
	if s := status(); len(s.Drills) != 1 || !s.Drills[0].Passed || s.Drills[0].Store != "vault1" || len(s.Warnings) > 0 {
		t.Errorf("%+v", s)
	}
	if last, err := Last(state); len(last) != 2 || err != nil {
		t.Errorf("%+v, %v", last, err)
	}
	must(t, os.RemoveAll(filepath.Join(r.Dirs[0], "shards")))
	if got := r.run(t); got.Passed {
		t.Errorf("without shards: %+v", got)
	}
	if s := status(); len(s.Alarms) != 1 || s.Alarms[0].Event != control.VerificationFailed || s.Alarms[0].Store != "vault1" || s.Alarms[0].Message != s.Warnings[0] {
		t.Errorf("%+v", s)
	}
	for text, says := range map[string]string{"damaged": "invalid character", `{"format":2,"drills":[{"volume":"projects","store":"vault1"}]}`: "format 2 is not known"} {
		must(t, os.WriteFile(file(state), []byte(text), 0o600))
		if s := status(); len(s.Drills) > 0 || len(s.Warnings) != 1 || !strings.Contains(s.Warnings[0], says) || !strings.HasSuffix(s.Warnings[0], "the next drill writes it anew") {
			t.Errorf("%+v", s)
		}
		Amend(state)(nil) // a daemon that says nothing
	}
	r.run(t)
	if s := status(); len(s.Drills) != 1 {
		t.Errorf("%+v", s)
	}
	must(t, os.Remove(file(state)), os.Mkdir(file(state), 0o700))
	if s := status(); len(s.Warnings) != 1 || !strings.Contains(s.Warnings[0], "is a directory") {
		t.Errorf("%+v", s)
	}
	if list, err := Run(t.Context(), r.opt); err == nil || len(list) != 1 {
		t.Errorf("not kept, and not said: %+v, %v", list, err)
	}
}

// TestNothingToDraw: a volume without files passes, and nothing is restored.
func TestNothingToDraw(t *testing.T) {
	r := newRig(t)
	v := volumetest.New(t, "vault1")
	must(t, os.WriteFile(r.opt.Identity, fmt.Appendf(nil, "# owner alpha %s\n%s\n", v.Owner.Key, v.Identity), 0o600))
	v.Seal(&batch.Body{Secret: &v.Secret, Inodes: []batch.Inode{{ID: batch.Root, Mode: 0o40755}, {ID: 2, Mode: 0o100644}},
		Entries: []batch.Entry{{Parent: batch.Root, Name: "pending", ID: 2}}}, func(e *batch.Envelope) { e.Complete = true })
	r.opt.Config.Primary.Backups[0].URL = filepath.Dir(v.Dirs[0])
	if got := r.run(t); !got.Passed || got.Files != 0 {
		t.Errorf("%+v", got)
	}
}

// TestTimes: a host that takes too long has failed; a drill that is ended says nothing of it.
func TestTimes(t *testing.T) {
	r := newRig(t)
	r.opt.Timeout = time.Nanosecond
	if got := r.run(t); got.Passed || !strings.HasPrefix(got.Problem, "not done within ") {
		t.Errorf("%+v", got)
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if list, err := Run(ctx, r.opt); !errors.Is(err, context.Canceled) || len(list) > 0 {
		t.Errorf("%+v, %v", list, err)
	}
}

// TestAlike: as long, and the same to the end.
func TestAlike(t *testing.T) {
	const whole = 256 << 10
	for _, a := range []int{0, 1, whole, whole + 1, 2 * whole} {
		for _, b := range []int{0, 1, whole, whole + 1, 2 * whole} {
			same, err := alike(strings.NewReader(strings.Repeat("x", a)), strings.NewReader(strings.Repeat("x", b)))
			if err != nil || same != (a == b) {
				t.Errorf("%d and %d bytes: %v, %v", a, b, same, err)
			}
		}
	}
	if same, err := alike(iotest.ErrReader(unix.EIO), iotest.ErrReader(unix.EIO)); same || !errors.Is(err, unix.EIO) {
		t.Errorf("unreadable: %v, %v", same, err)
	}
}

// TestNotDrilled: what is wrong with the asking is no failure of a host, and changes nothing that is kept.
func TestNotDrilled(t *testing.T) {
	r := newRig(t)
	other := filepath.Join(t.TempDir(), "other")
	_, err := keys.NewIdentity(other, "alpha", r.Owner.Key)
	must(t, err)
	for name, c := range map[string]struct {
		change func(o *Options)
		want   error
	}{
		"no identity":       {func(o *Options) { o.Identity += "x" }, os.ErrNotExist},
		"no backup hosts":   {func(o *Options) { o.Config.Primary.Backups = nil }, ErrUsage},
		"another volume":    {func(o *Options) { o.Volume = "papers" }, ErrUsage},
		"a peer":            {func(o *Options) { o.Config = &config.Config{Peer: &config.Peer{}} }, ErrUsage},
		"a cache, no store": {func(o *Options) { o.Config = &config.Config{Cache: &config.Cache{Store: other}} }, unix.ENOTDIR},
		"a cache, no volume": {func(o *Options) {
			o.Config = &config.Config{Cache: &config.Cache{Store: t.TempDir(), Ship: config.Ship{To: o.Config.Primary.Backups}}}
		}, ErrUsage},
		"no SSH key": {func(o *Options) {
			o.Config.Primary.Backups = []config.Store{{Name: "vault1", URL: "sftp://a@vault1/data"}}
		}, access.ErrUsage},
		"another identity": {func(o *Options) { o.Identity = other }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			o := r.opt
			p := *o.Config.Primary
			o.Config = &config.Config{Primary: &p}
			c.change(&o)
			list, err := Run(t.Context(), o)
			if err == nil || c.want != nil && !errors.Is(err, c.want) {
				t.Errorf("%+v, %v", list, err)
			}
		})
	}
	lock, err := durable.Lock(filepath.Join(r.opt.Config.Primary.State, "drill.lock"))
	must(t, err)
	if _, err := Run(t.Context(), r.opt); !errors.Is(err, durable.ErrLocked) {
		t.Errorf("two at once: %v", err)
	}
	must(t, lock.Close())
	if last, err := Last(r.opt.Config.Primary.State); last != nil || err != nil {
		t.Errorf("kept %+v, %v", last, err)
	}
}

// TestCacheHost: every volume that has come there is drilled from each host in ship.to; a host without one has failed, the others go on.
func TestCacheHost(t *testing.T) {
	r := newRig(t)
	cache := t.TempDir()
	must(t, os.Mkdir(filepath.Join(cache, "projects"), 0o755), os.WriteFile(filepath.Join(cache, "projects", "volume.json"), nil, 0o644), os.Mkdir(filepath.Join(cache, "lost+found"), 0o700))
	r.opt.Config = &config.Config{Cache: &config.Cache{Store: cache, State: r.opt.Config.Primary.State, Ship: config.Ship{To: []config.Store{
		{Name: "vault2", URL: t.TempDir()}, {Name: "vault1", URL: filepath.Dir(r.Dirs[0])},
	}}}}
	must(t, os.Chown(r.opt.Config.Cache.State, 1234, 4321)) // its daemon is not root
	r.opt.Volume = "projects"                               // the only one, named
	list, err := Run(t.Context(), r.opt)
	for _, name := range []string{"drills.json", "drill.lock"} {
		var st unix.Stat_t
		if must(t, unix.Stat(filepath.Join(r.opt.Config.Cache.State, name), &st)); st.Uid != 1234 || st.Gid != 4321 {
			t.Errorf("%s belongs to %d:%d", name, st.Uid, st.Gid)
		}
	}
	if err != nil || len(list) != 2 || list[0].Passed || list[0].Problem == "" || !list[1].Passed || list[1].Compared != 0 || list[1].Files != 20 {
		t.Errorf("%+v, %v", list, err)
	}
}
