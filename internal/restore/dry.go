package restore

import (
	"context"
	"errors"

	"golang.org/x/sys/unix"
)

// dry goes through the plan and changes nothing.
func (r *run) dry(ctx context.Context) error {
	for _, d := range r.plan.dirs[1:] {
		r.dryDir(d)
	}
	for _, f := range r.plan.files {
		if err := ctx.Err(); err != nil {
			return err
		}
		if special(f.inode) && r.opt.NoSpecial {
			r.result.Skipped += int64(len(f.places))
			continue
		}
		todo, _, have, err := r.look(f)
		if err != nil {
			return err
		}
		r.result.Files += int64(len(todo))
		if len(todo) > 0 && !have {
			r.result.Bytes += f.data()
		}
		r.progress(f.data())
	}
	return nil
}

// dryDir notes whether a directory is there.
func (r *run) dryDir(d *dir) {
	if d.state = d.parent.state; d.state != dirThere {
		return
	}
	h, err := r.dirs.get(d)
	if err == nil {
		r.dirs.put(h)
		return
	}
	d.state = dirAbsent
	if errors.Is(err, unix.ENOENT) {
		return
	}
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		if r.opt.Overwrite {
			return
		}
		r.result.Kept = append(r.result.Kept, d.path())
		err = errInTheWay
	}
	d.state = dirFailed
	r.result.Failed = append(r.result.Failed, Failure{d.path(), err})
}
