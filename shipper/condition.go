package shipper

import (
	"fmt"
	"strings"
	"time"

	"slipway/internal/config"
)

// Condition is one item of ship.when, ready to be asked. All that is set in it must hold.
type Condition struct {
	item   config.Condition
	window *config.Window
	used   int64
}

// Compile reads a configured item. limit is the cache's cap, which a percentage of cache_used refers to.
func Compile(item config.Condition, limit int64) (Condition, error) {
	c := Condition{item: item}
	if item.Window != "" {
		w, err := config.ParseWindow(item.Window)
		if err != nil {
			return Condition{}, fmt.Errorf("read ship.when: %w", err)
		}
		c.window = &w
	}
	if item.CacheUsed != "" {
		used, err := config.ParseCacheUsed(item.CacheUsed, limit)
		if err != nil {
			return Condition{}, fmt.Errorf("read ship.when: cache_used: %w", err)
		}
		c.used = used
	}
	return c, nil
}

// Facts are what a condition is about, for one batch and one backup host.
type Facts struct {
	Received    time.Time // when this batch arrived, by the cache's clock
	Bytes       int64     // of all batches that arrived and this host lacks
	Batches     int       // how many these are
	LastArrival time.Time // of anything in this volume
	CacheUsed   int64     // bytes of the whole store
	Manual      bool      // an operator said: now
	// Begun: the item held for this batch before. Quantities shrink while they are being sent; what was due by them stays
	// due, and only the window is asked again.
	Begun bool
}

// part is one thing that an item asks for.
type part struct {
	holds  bool
	reason string    // holds: why; otherwise: what is waited for
	next   time.Time // when it would hold if nothing else happened; zero: nobody knows
}

// Due tells whether the item holds for a batch; otherwise what it waits for in words, and when it would hold if nothing more
// arrived (the zero time: nobody knows).
func Due(c Condition, f Facts, now time.Time) (due bool, reason string, next time.Time) {
	parts := c.quantities(f, now)
	if f.Begun {
		parts = []part{{holds: true, reason: "was due"}}
	}
	due, known := true, true
	var reasons []string
	for _, p := range parts {
		if p.holds == due {
			reasons = append(reasons, p.reason)
		} else if due {
			due, reasons = false, []string{p.reason}
		}
		if !p.holds {
			known = known && !p.next.IsZero()
			next = later(next, p.next)
		}
	}
	return c.inWindow(due, known, reasons, next, now)
}

// inWindow adds the window to what the quantities say: it must be open now, or then.
func (c Condition) inWindow(due, known bool, reasons []string, next, now time.Time) (bool, string, time.Time) {
	if c.window == nil {
		if due || !known {
			next = time.Time{}
		}
		return due, strings.Join(reasons, " and "), next
	}
	open := c.window.Open(now)
	switch {
	case due && open:
		return true, strings.Join(append(reasons, "in the window "+c.item.Window), " and "), time.Time{}
	case due:
		return false, "the window " + c.item.Window, c.window.Next(now)
	case !open:
		reasons = append(reasons, "the window "+c.item.Window)
	}
	if !known {
		return false, strings.Join(reasons, " and "), time.Time{}
	}
	return false, strings.Join(reasons, " and "), c.window.Next(later(next, now))
}

// quantities asks everything but the window.
func (c Condition) quantities(f Facts, now time.Time) []part {
	var parts []part
	add := func(holds bool, why, wait string, next time.Time) {
		if holds {
			wait = why
		}
		parts = append(parts, part{holds, wait, next})
	}
	if age := c.item.Age; age != nil {
		at := f.Received.Add(*age)
		add(!now.Before(at), "it is "+age.String()+" old", "it to be "+age.String()+" old", at)
	}
	if n := c.item.Bytes; n > 0 {
		add(f.Bytes >= n, config.FormatSize(n)+" have come together",
			fmt.Sprintf("%s to come together (now %s)", config.FormatSize(n), config.FormatSize(f.Bytes)), time.Time{})
	}
	if n := c.item.Batches; n > 0 {
		add(f.Batches >= n, fmt.Sprintf("%d batches have come together", n),
			fmt.Sprintf("%d batches to come together (now %d)", n, f.Batches), time.Time{})
	}
	if idle := c.item.Idle; idle != nil {
		at := f.LastArrival.Add(*idle)
		add(!now.Before(at), "nothing came for "+idle.String(), "nothing to come for "+idle.String(), at)
	}
	if c.item.CacheUsed != "" {
		add(f.CacheUsed >= c.used, "the cache is used to "+c.item.CacheUsed,
			fmt.Sprintf("the cache to be used to %s (now %s)", c.item.CacheUsed, config.FormatSize(f.CacheUsed)), time.Time{})
	}
	if c.item.Manual {
		add(f.Manual, "an operator said so", "an operator's word (slipway ship --now)", time.Time{})
	}
	return parts
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// earlier takes the zero time for "nobody knows".
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
