package render

import (
	"context"
	"io"
	"sync"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/sync/errgroup"
)

// Progress is a bar on a terminal, and nothing elsewhere.
type Progress struct {
	mu    sync.Mutex
	bars  *mpb.Progress // nil where nothing is shown
	bar   *mpb.Bar
	label string
	bytes bool
}

// NewProgress shows the progress of one job on w if that is a terminal. bytes: amounts are sizes.
func NewProgress(w io.Writer, label string, bytes bool) *Progress {
	p := &Progress{label: label, bytes: bytes}
	if Terminal(w) {
		p.bars = mpb.New(mpb.WithOutput(w), mpb.WithWidth(48))
	}
	return p
}

// Set tells how far the job is. Both amounts may change from call to call.
func (p *Progress) Set(done, total int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.bars == nil {
		return
	}
	if p.bar == nil {
		amount := decor.CountersNoUnit("%d / %d", decor.WCSyncSpace)
		if p.bytes {
			amount = decor.CountersKibiByte("% .1f / % .1f", decor.WCSyncSpace)
		}
		p.bar = p.bars.AddBar(total,
			mpb.PrependDecorators(decor.Name(p.label, decor.WCSyncSpaceR), amount),
			mpb.AppendDecorators(decor.Percentage(decor.WC{W: 5}), decor.Elapsed(decor.ET_STYLE_GO, decor.WC{W: 8})))
	}
	p.bar.SetTotal(total, false)
	p.bar.SetCurrent(done)
}

// End leaves the bar as it stands and gives the terminal back.
func (p *Progress) End() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.bars == nil {
		return
	}
	if p.bar != nil {
		p.bar.EnableTriggerComplete()
		if !p.bar.Completed() {
			p.bar.Abort(false)
		}
	}
	p.bars.Wait()
	p.bars = nil
}

// lookEvery is the pause between two looks at what is left.
const lookEvery = 200 * time.Millisecond

// Follow runs a job and shows, on a terminal, how what is left of it grows less. left is asked only there; a negative answer
// ends the showing, and the job goes on without.
func (p *Progress) Follow(ctx context.Context, job func(context.Context) error, left func() int64) error {
	defer p.End()
	if p.bars == nil {
		return job(ctx)
	}
	ended, stop := context.WithCancel(ctx)
	defer stop()
	var g errgroup.Group
	g.Go(func() error {
		defer stop()
		return job(ctx)
	})
	g.Go(func() error {
		ticker := time.NewTicker(lookEvery)
		defer ticker.Stop()
		most := int64(0)
		for {
			select {
			case <-ended.Done():
				return nil
			case <-ticker.C:
			}
			n := left()
			if n < 0 {
				p.Set(most, most)
				p.End()
				return nil
			}
			if most = max(most, n); most > 0 {
				p.Set(most-n, most)
			}
		}
	})
	return g.Wait()
}
