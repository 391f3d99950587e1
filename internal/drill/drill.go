// Package drill restores a sample of a volume from each backup host by itself and compares it: the proof that a restore works, before one is needed.
//
// How the last drill of each host went is kept in <state>/drills.json, from where the daemon's status and metrics have it.
//
// After a crash: drills.json is that of the last drill that ended. What was restored may be left in a directory of its own below the temporary
// directory, readable by its owner alone.
package drill

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"slipway/internal/access"
	"slipway/internal/config"
	"slipway/internal/control"
	"slipway/internal/durable"
	"slipway/internal/keys"
	"slipway/internal/restore"
	"slipway/internal/restore/chain"
)

// ErrUsage says that this configuration has nothing to drill.
var ErrUsage = errors.New("nothing to drill")

// Options of a drill.
type Options struct {
	Config   *config.Config
	Identity string     // file
	SSH      config.SSH // a field that is not set is the configuration's
	Volume   string     // "": every volume that the configuration's node holds
	Seed     uint64     // of the sample
	Files    int        // at most so many of each host, half of them of its newest batch
	Bytes    int64      // and so much
	Timeout  time.Duration
	Now      func() time.Time
}

// Problem is something that was not restored as it was sealed.
type Problem struct {
	Path    string `json:"path"` // "": the host as a whole
	PathB64 []byte `json:"path_b64,omitempty"`
	Problem string `json:"problem"`
}

// Result is how one host's drill went.
type Result struct {
	control.Drill
	Volume   string    `json:"volume"`
	Epoch    uint32    `json:"epoch"`
	SealedAt time.Time `json:"sealed_at"` // of the batch
	Compared int       `json:"compared"`  // with the files themselves: those here that have not changed since
	Seed     uint64    `json:"seed"`
	Problems []Problem `json:"problems"`
}

// Run drills every backup host of a configuration, one after the other, and keeps how it went. A host that does not answer has failed; the others are
// drilled all the same. The error is about the drill itself.
func Run(ctx context.Context, opt Options) ([]Result, error) {
	hosts, volumes, err := targets(opt.Config, opt.Volume)
	if err != nil {
		return nil, err
	}
	if _, err := keys.LoadIdentity(opt.Identity); err != nil {
		return nil, err
	}
	if err := durable.MkdirAll(opt.Config.State(), 0o700); err != nil {
		return nil, fmt.Errorf("make state directory: %w", err)
	}
	lock, err := durable.Lock(filepath.Join(opt.Config.State(), "drill.lock"))
	if err != nil {
		return nil, fmt.Errorf("another drill may be at work: %w", err)
	}
	defer func() { _ = lock.Close() }()
	if err := hand(opt.Config.State(), lock.Name()); err != nil {
		return nil, err
	}
	var list []Result
	for _, v := range volumes {
		for _, h := range hosts {
			r, err := opt.host(ctx, h, v)
			if err != nil {
				return list, fmt.Errorf("drill %s: %w", h.Name, err)
			}
			list = append(list, r)
		}
	}
	return list, keep(opt.Config.State(), list)
}

// targets are the backup hosts that a configuration names, and the volumes that they hold.
func targets(c *config.Config, volume string) (hosts []config.Store, volumes []string, err error) {
	switch {
	case c.Primary != nil:
		hosts, volumes = c.Primary.Backups, []string{c.Primary.Volume}
	case c.Cache != nil:
		hosts = c.Cache.Ship.To
		entries, err := os.ReadDir(c.Cache.Store)
		if err != nil {
			return nil, nil, fmt.Errorf("look for volumes: %w", err)
		}
		for _, e := range entries {
			if _, err := os.Stat(filepath.Join(c.Cache.Store, e.Name(), "volume.json")); err == nil {
				volumes = append(volumes, e.Name())
			}
		}
	}
	switch {
	case len(hosts) == 0:
		return nil, nil, fmt.Errorf("%w: %s names no backup host: drill on a primary with backups:, or on a cache host", ErrUsage, c.Path)
	case len(volumes) == 0:
		return nil, nil, fmt.Errorf("%w: no volume has come to %s yet", ErrUsage, c.Cache.Store)
	case volume == "":
		return hosts, volumes, nil
	case !slices.Contains(volumes, volume):
		return nil, nil, fmt.Errorf("%w: %s has no volume %q; it has: %s", ErrUsage, c.Path, volume, strings.Join(volumes, ", "))
	}
	return hosts, []string{volume}, nil
}

// host drills one host. The error is about what was asked for, and says nothing of the host.
func (o *Options) host(whole context.Context, host config.Store, volume string) (Result, error) {
	ctx, stop := context.WithTimeout(whole, o.Timeout)
	defer stop()
	began := o.Now()
	r := Result{Drill: control.Drill{Store: host.Name, At: began}, Volume: volume, Seed: o.Seed, Problems: []Problem{}}
	err := o.restore(ctx, host, &r)
	switch {
	case whole.Err() != nil:
		return r, whole.Err()
	case errors.Is(err, access.ErrUsage), errors.Is(err, chain.ErrIdentity):
		return r, err
	case err != nil:
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			err = fmt.Errorf("not done within %s: %w", config.FormatDuration(o.Timeout), err)
		}
		r.problem("", err.Error())
	}
	r.Seconds, r.Passed = o.Now().Sub(began).Seconds(), len(r.Problems) == 0
	if !r.Passed {
		first := r.Problems[0]
		r.Problem = first.Problem
		if first.Path != "" {
			r.Problem = fmt.Sprintf("%q: %s", first.Path, first.Problem)
		}
	}
	return r, nil
}

func (r *Result) problem(path, text string) {
	r.Problems = append(r.Problems, Problem{path, control.Lossless(path), text})
}

// restore draws a sample of what a host alone has, restores it and compares.
func (o *Options) restore(ctx context.Context, host config.Store, r *Result) error {
	v, err := access.Open(ctx, access.Request{From: []string{host.Name + "=" + host.URL}, Identity: o.Identity, SSH: o.SSH, Volume: r.Volume, Config: o.Config})
	if err != nil {
		return err
	}
	defer func() { _ = v.Close() }()
	tree, err := restore.Load(ctx, v.Source, restore.At{})
	if err != nil {
		return err
	}
	r.Epoch, r.Batch, r.SealedAt = tree.Epoch, tree.Seq, tree.SealedAt
	for _, text := range tree.Incomplete {
		r.problem("", text)
	}
	sample, err := draw(ctx, tree, o)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "slipway-drill-")
	if err != nil {
		return fmt.Errorf("make a temporary place: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if err := fetch(ctx, tree, sample, dir, r); err != nil {
		return err
	}
	if p := o.Config.Primary; p != nil {
		return compare(ctx, p.Source, dir, sample, r)
	}
	return nil
}

// fetch restores the sample. Each chunk is compared with its id as it is read, each shard with its digest.
func fetch(ctx context.Context, tree *restore.Tree, sample []restore.Row, dir string, r *Result) error {
	if len(sample) == 0 {
		return nil // no path at all would be everything
	}
	paths := make([]string, len(sample))
	for i, row := range sample {
		paths[i] = row.Path
	}
	result, err := tree.Restore(ctx, restore.Options{Target: filepath.Join(dir, "restored"), Paths: paths, NoSpecial: true, NoSUID: true})
	if err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	for _, f := range result.Failed {
		r.problem(f.Path, f.Err.Error())
	}
	r.Files, r.Bytes = result.Files, result.Bytes
	return nil
}
