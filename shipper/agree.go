package shipper

import (
	"context"
	"fmt"
	"slices"
	"time"

	"slipway/internal/batch"
	"slipway/internal/hold"
	"slipway/internal/intake"
	"slipway/internal/loop"
)

const (
	agreeEvery = time.Second
	// A replica's word against the cache's holds batches back for so long; by then its evidence is here, or there is none.
	doubtFor = 10 * time.Second
	// … and, whatever replicas say, once in so long: otherwise one that lies anew each time would stop shipping.
	doubtAgain = time.Hour
)

// dispute is one batch of the chain under whose number a replica holds another one.
type dispute struct {
	node         string
	epoch        batch.Epoch
	seq          batch.Seq
	ours, theirs batch.Digest
	evidence     string // the other batch, signed by the same owner, as it lies in the store; "": only the replica says so
}

// agreement is what replicas say of the volume's batches, compared with the chain.
type agreement struct {
	compared bool // once since the start; before, nothing is shipped
	words    []word
	exhibits []exhibit
	disputes []dispute
	doubted  time.Time // since when batches are held back by a mere word, or last were
}

// runAgree compares until ctx ends.
func (s *Shipper) runAgree(ctx context.Context, v *volume) error {
	return loop.Every(ctx, agreeEvery, nil, func() time.Duration {
		s.agreeOnce(ctx, v)
		return 0
	})
}

// agreeOnce is the step.
func (s *Shipper) agreeOnce(ctx context.Context, v *volume) {
	v.arriveMu.Lock()
	defer v.arriveMu.Unlock()
	s.agreeSaid(ctx, v)
}

// agreeSaid compares, and says that it cannot. That is no reason to take nothing: until it could be done, nothing is shipped.
func (s *Shipper) agreeSaid(ctx context.Context, v *volume) {
	if err := s.agreeLocked(ctx, v); err != nil && ctx.Err() == nil {
		s.log.Error("compare with the replicas", "volume", v.name, "error", err)
	}
}

// agreeLocked reads what the replicas say and compares it with the chain. A batch of the cache's own that turns out to
// be gone, because an operator has removed it as the wrong one, takes the head back.
func (s *Shipper) agreeLocked(ctx context.Context, v *volume) error {
	for {
		seq, cause, err := s.compare(ctx, v)
		if cause == nil {
			return err
		}
		if err := s.lostLocked(ctx, v, seq, cause); err != nil { // shorter than before
			return err
		}
	}
}

// compare takes what replicas say and compares it. seq and cause tell of a batch that the cache does not hold any more.
func (s *Shipper) compare(ctx context.Context, v *volume) (seq batch.Seq, cause, err error) {
	v.mu.Lock()
	known, old := v.known, v.agreement
	p := v.chain.Clone()
	v.mu.Unlock()
	if !known {
		return 0, nil, nil
	}
	words, err := readWords(ctx, v, old.words)
	if err != nil {
		return 0, nil, err
	}
	exhibits, err := readExhibits(ctx, v, old.exhibits)
	if err != nil {
		return 0, nil, err
	}
	var disputes []dispute
	for _, d := range claimed(v, &p, words, exhibits) {
		b, _, err := v.in.Load(ctx, &p, d.seq)
		if err != nil && intake.Gone(err) {
			return d.seq, err, nil
		}
		if err != nil {
			return 0, nil, err
		}
		if d.ours = b.Digest; !intake.Is(b, d.theirs) {
			disputes = append(disputes, d)
		}
	}
	s.take(v, words, exhibits, disputes)
	return 0, nil, nil
}

// claimed returns what replicas say of batches of the chain, where that may be against it. A node that has given evidence under a
// number is not asked for its word besides.
func claimed(v *volume, p *intake.Chain, words []word, exhibits []exhibit) (list []dispute) {
	within := func(e batch.Epoch, seq batch.Seq) bool {
		return seq >= p.Low && seq <= p.Head && seq > 0 && p.At(seq).Epoch == e
	}
	for _, x := range exhibits {
		if x.valid && within(x.epoch, x.seq) && p.At(x.seq).Owns(x.key) {
			list = append(list, dispute{node: x.node, epoch: x.epoch, seq: x.seq, theirs: x.digest, evidence: x.name})
		}
	}
	v.mu.Lock()
	head, digest := v.acks.Head, v.acks.HeadDigest
	v.mu.Unlock()
	for _, w := range words {
		proven := slices.ContainsFunc(list, func(d dispute) bool { return d.node == w.node && d.seq == w.head })
		if !within(w.epoch, w.head) || proven || w.head == head && w.digest == digest {
			continue
		}
		list = append(list, dispute{node: w.node, epoch: w.epoch, seq: w.head, theirs: w.digest})
	}
	return list
}

// take puts in what was found, says what is new, and wakes the cursors if it changes what may go.
func (s *Shipper) take(v *volume, words []word, exhibits []exhibit, disputes []dispute) {
	now := s.now()
	v.mu.Lock()
	a := &v.agreement
	was := a.disputes
	first := !a.compared
	a.compared, a.words, a.exhibits = true, words, exhibits
	a.setLocked(disputes, now)
	v.mu.Unlock()
	for _, d := range disputes {
		if !slices.Contains(was, d) {
			s.log.Error("a replica holds another batch than the cache", "volume", v.name, "node", d.node, "epoch", d.epoch, "batch", d.seq,
				"ours", d.ours, "theirs", d.theirs, "evidence", d.evidence)
		}
	}
	if first || !slices.Equal(was, disputes) {
		v.wakeCursors()
	}
}

func (a *agreement) setLocked(disputes []dispute, now time.Time) {
	a.disputes = disputes
	mere := slices.ContainsFunc(disputes, func(d dispute) bool { return d.evidence == "" })
	if mere && (a.doubted.IsZero() || now.Sub(a.doubted) >= doubtAgain) {
		a.doubted = now
	}
}

// suspectLocked compares a batch that is about to count with what replicas have said of its number so far. It reads nothing: what
// it finds holds the batch back until the comparison that follows.
func (v *volume) suspectLocked(b *batch.Batch, now time.Time) {
	a := &v.agreement
	found := slices.Clone(a.disputes)
	env := &b.Envelope
	add := func(node string, e batch.Epoch, seq batch.Seq, d batch.Digest) {
		if e == env.Epoch && seq == env.Last && !intake.Is(b, d) {
			found = append(found, dispute{node: node, epoch: e, seq: seq, ours: b.Digest, theirs: d})
		}
	}
	for _, w := range a.words {
		add(w.node, w.epoch, w.head, w.digest)
	}
	for _, x := range a.exhibits {
		if x.valid {
			add(x.node, x.epoch, x.seq, x.digest)
		}
	}
	a.setLocked(found, now)
}

// stop says from which batch on nothing goes to the backup hosts, why, and until when (zero: until an operator has decided).
type stop struct {
	from   batch.Seq // 0: nothing is held back
	reason string
	until  time.Time
}

// stopLocked returns what is held back now.
func (v *volume) stopLocked(now time.Time) (h stop) {
	a := &v.agreement
	end := a.doubted.Add(doubtFor)
	for _, d := range a.disputes {
		if d.evidence == "" && !now.Before(end) || h.from > 0 && (d.seq > h.from || d.seq == h.from && h.until.IsZero()) {
			continue
		}
		h = stop{from: d.seq, reason: "agreement: " + d.says()}
		if d.evidence == "" {
			h.until = end
		}
	}
	if held := hold.First(v.holds); held.Seq > 0 && (h.from == 0 || held.Seq <= h.from) {
		h = stop{from: held.Seq, reason: heldWaits(held)}
	}
	return h
}

// says puts it in words for the batches that wait for it.
func (d *dispute) says() string {
	if d.evidence == "" {
		return fmt.Sprintf("replica %s holds another batch %d: its evidence is waited for", d.node, d.seq)
	}
	return fmt.Sprintf("replica %s holds another batch %d, signed by the same owner: an operator has to remove the wrong one", d.node, d.seq)
}

// warning is what status says of it.
func (d *dispute) warning(v *volume, now time.Time) string {
	what := fmt.Sprintf("replica %s holds another batch %d of epoch %d: %s there, %s here", d.node, d.seq, d.epoch, d.theirs, d.ours)
	switch {
	case d.evidence != "":
		return fmt.Sprintf("FORK: %s; both are signed by the owner, and nothing from batch %d on goes to the backup hosts. Remove the wrong one: "+
			"%s in %s, or else %s there", what, d.seq, d.evidence, v.in.Dir, batch.Path(d.epoch, d.seq, d.seq))
	case now.Before(v.agreement.doubted.Add(doubtFor)):
		return what + "; it is held back from the backup hosts until the replica has given evidence, for 10 s at most"
	}
	return what + ", but it has given no evidence that verifies: the cache's copy, which does, is shipped; look after that node"
}

// agreementWarningsLocked are all of them.
func (v *volume) agreementWarningsLocked(now time.Time) (list []string) {
	for i := range v.agreement.disputes {
		list = append(list, v.agreement.disputes[i].warning(v, now))
	}
	return list
}

// forkLocked says that an operator is needed, where one is.
func (v *volume) forkLocked() string {
	for _, d := range v.agreement.disputes {
		if d.evidence != "" {
			return d.says()
		}
	}
	return ""
}
