package shipper

import (
	"sort"
	"strings"
	"time"

	"slipway/internal/ack"
	"slipway/internal/batch"
)

// decision says what a host gets now.
type decision struct {
	upTo   batch.Seq // this batch and all before it are due; 0: none is
	waits  bool      // there are batches that are not due
	reason string    // due: why; otherwise what the oldest waits for
	next   time.Time // when the oldest would be due; zero: nobody knows
}

// queueLocked returns the batches that arrived and the host lacks, oldest first.
func (c *cursor) queueLocked() []held {
	head := c.v.acks.Head
	if c.acks.Head >= head {
		return nil
	}
	from := max(c.acks.Head+1, c.v.chain.Low)
	queue := c.v.heldLocked(from, head)
	if len(queue) > 0 && queue[0].seq != from {
		return nil // never over a gap; looking fills it
	}
	return queue
}

// decideLocked asks every condition about every batch of the queue: a batch is due when any of them holds for it, and then
// everything before it is.
func (c *cursor) decideLocked(now time.Time) decision {
	queue := c.queueLocked()
	if len(queue) == 0 {
		return decision{}
	}
	if c.begun == nil {
		c.begun = make([]batch.Seq, len(c.s.when))
	}
	facts := c.factsLocked(queue)
	var d decision
	if told := c.v.manual; told >= queue[0].seq {
		d.upTo, d.reason = min(told, queue[len(queue)-1].seq), "an operator said so"
	}
	for i, cond := range c.s.when {
		// The older a batch, the sooner it is due: find the first that is not.
		n := sort.Search(len(queue), func(k int) bool {
			due, _, _ := Due(cond, c.about(facts, queue[k], i), now)
			return !due
		})
		if n > 0 && queue[n-1].seq > d.upTo {
			d.upTo = queue[n-1].seq
			_, d.reason, _ = Due(cond, c.about(facts, queue[n-1], i), now)
		}
		if n > 0 {
			c.begun[i] = max(c.begun[i], queue[n-1].seq)
		}
	}
	h := c.v.stopLocked(now)
	held := h.from > 0 && d.upTo >= h.from
	if held {
		if d.upTo = h.from - 1; d.upTo < queue[0].seq {
			d.upTo = 0
		}
	}
	d.waits = d.upTo < queue[len(queue)-1].seq
	switch {
	case held && d.upTo == 0:
		d.reason, d.next = h.reason, h.until
	case d.upTo == 0:
		d.reason, d.next = c.waitsForLocked(facts, queue[0], now)
	}
	return d
}

// tellEvery is how often the words of a wait may change in the acks: those of a condition on bytes do with every batch.
const tellEvery = 10 * time.Second

// tellWaitLocked puts what the host's next batch waits for into its acks, where the primary reads it, and tells whether that changed.
func (c *cursor) tellWaitLocked(d decision, now time.Time) bool {
	var wait *ack.Wait
	if queue := c.queueLocked(); d.upTo == 0 && len(queue) > 0 {
		wait = &ack.Wait{From: queue[0].seq, For: d.reason}
		if !d.next.IsZero() {
			wait.Until = &d.next
		}
	}
	was := c.acks.Waits
	same := wait == nil && was == nil || wait != nil && was != nil && wait.From == was.From && (wait.For == was.For || now.Sub(c.told) < tellEvery)
	if same {
		return false
	}
	c.acks.Waits, c.acksDirty, c.told = wait, true, now
	return true
}

// factsLocked returns what is the same for all batches of the queue.
func (c *cursor) factsLocked(queue []held) Facts {
	last := queue[len(queue)-1] // the newest of the volume: what has arrived is in every queue
	return Facts{
		Bytes:       last.sum - queue[0].sum + queue[0].bytes,
		Batches:     len(queue),
		LastArrival: time.Unix(0, last.received),
		CacheUsed:   c.s.usage.total(),
	}
}

// about adds what is true of one batch under the item numbered i.
func (c *cursor) about(f Facts, h held, i int) Facts {
	f.Received = time.Unix(0, h.received)
	f.Manual = c.v.manual >= h.seq
	f.Begun = c.begun != nil && c.begun[i] >= h.seq
	return f
}

// waitsForLocked puts the conditions in words for a batch that none of them holds for.
func (c *cursor) waitsForLocked(facts Facts, h held, now time.Time) (string, time.Time) {
	var words []string
	var next time.Time
	for i, cond := range c.s.when {
		_, reason, at := Due(cond, c.about(facts, h, i), now)
		words = append(words, reason)
		next = earlier(next, at)
	}
	return strings.Join(words, ", or for "), next
}
