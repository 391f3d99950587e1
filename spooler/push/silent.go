package push

import (
	"fmt"
	"time"

	"slipway/internal/batch"
)

// silentAfter is how long what is there may go unacknowledged before it is said. A daemon that reads a large batch takes its time, so this is
// no fault of the store yet.
const silentAfter = 10 * time.Second

// noteSilenceLocked notes since when the destination's daemon has acknowledged nothing more of what is there.
func (p *Pusher) noteSilenceLocked(was batch.Seq) {
	switch head := p.report.Acked; {
	case !p.report.Checked || head >= p.report.Published:
		p.unackedSince = time.Time{}
	case p.unackedSince.IsZero() || head != was:
		p.unackedSince = time.Now()
	}
}

// tellSilenceLocked puts that into a report: everything is sent, and with no error anywhere nobody would know where to look.
func (p *Pusher) tellSilenceLocked(r *Report) {
	silent := time.Since(p.unackedSince)
	if p.unackedSince.IsZero() || silent < silentAfter || r.Error != "" || r.State != Idle {
		return
	}
	daemon := "slipway ship"
	if r.Kind == "replica" {
		daemon = "slipway peer"
	}
	r.Checked = false
	r.Error = fmt.Sprintf("batch %d is there, and nothing has acknowledged it for %s: see that %q runs on %s",
		r.Acked+1, silent.Round(time.Second), daemon, r.Name)
}
