package sender

import (
	"fmt"
	"slices"
	"time"

	"slipway/internal/batch"
	"slipway/internal/claim"
	"slipway/internal/progress"
)

// State is what a node's part in sending a volume is.
type State string

// The states. The table of transitions stands in docs/sending.md.
const (
	Standby   State = "standby"   // another node sends
	Waiting   State = "waiting"   // the sender does not work; it is not this node's turn yet
	Returning State = "returning" // this node is preferred to the sender, and has to be healthy for a while
	Claiming  State = "claiming"  // the claim for the next term is being made
	Sending   State = "sending"
)

// View is all that a decision rests on, at one moment.
type View struct {
	Now     time.Time
	Self    string
	Owner   string
	Peers   []string    // in the owner's order
	Claim   claim.Claim // the newest known; Term 0: the owner sends without one
	ClaimAt time.Time   // since when this node knows it
	CacheAt time.Time   // since when the cache has answered every look; zero: it does not
	Held    batch.Seq   // the newest batch that this node holds whole
	There   batch.Seq   // the newest that the cache has
	Verdict progress.Verdict
	Since   time.Time // of the verdict
	Why     string    // of the verdict

	StaleAfter, Step, PreferAfter time.Duration
}

// sender returns who sends in the present term.
func (v *View) sender() string {
	if v.Claim.Term > 0 {
		return v.Claim.Node
	}
	return v.Owner
}

// Ranking returns the nodes in the order in which they are to send: the pinned one, the owner, its peers in order; drained ones
// last.
func Ranking(c *claim.Claim, owner string, peers []string) []string {
	all := append([]string{owner}, peers...)
	if i := slices.Index(all, c.Prefer); i > 0 {
		all = slices.Insert(slices.Delete(all, i, i+1), 0, c.Prefer)
	}
	slices.SortStableFunc(all, func(a, b string) int { return drained(c, a) - drained(c, b) })
	return all
}

func drained(c *claim.Claim, node string) int {
	if slices.Contains(c.Avoid, node) {
		return 1
	}
	return 0
}

// rank returns how many nodes come before this one when the sender has to be replaced.
func (v *View) rank() int {
	list := slices.DeleteFunc(Ranking(&v.Claim, v.Owner, v.Peers), func(n string) bool { return n == v.sender() })
	if i := slices.Index(list, v.Self); i >= 0 {
		return i
	}
	return len(list) // a node that the owner does not name comes last
}

// Decision is what a node is to do, until when if nothing happens, and why.
type Decision struct {
	State  State
	Reason string    // of a claim, in words
	Again  time.Time // zero: only something new changes it
}

// Decide is the whole rule of who sends. It changes nothing and knows no clock but the view's, so that it can be tested against
// any history. prev is the state before; what it decides is safe whatever prev was.
func Decide(v *View) Decision {
	if v.sender() == v.Self {
		return Decision{State: Sending}
	}
	if bad, at := v.bad(); bad {
		reason := fmt.Sprintf("%s: %s", v.sender(), v.Why)
		if v.Now.Before(at) {
			return Decision{State: Waiting, Reason: reason, Again: at}
		}
		return Decision{State: Claiming, Reason: reason}
	}
	if v.preferred() {
		at := later(v.CacheAt, v.ClaimAt).Add(v.PreferAfter)
		reason := v.Self + " is preferred and has been healthy for " + v.PreferAfter.String()
		if v.Now.Before(at) {
			return Decision{State: Returning, Reason: reason, Again: at}
		}
		return Decision{State: Claiming, Reason: reason}
	}
	return Decision{State: Standby}
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// bad tells whether the sender is to be replaced by this node, and from when on.
func (v *View) bad() (bool, time.Time) {
	if v.Held <= v.There || v.CacheAt.IsZero() || v.Verdict == progress.Healthy {
		return false, time.Time{}
	}
	turn := v.Since.Add(time.Duration(v.rank()) * v.Step)
	if v.CacheAt.After(v.Since) {
		// The cache was away for this node, too. Now that it is back, the sender gets the time to go on by itself.
		turn = later(turn, v.CacheAt.Add(v.StaleAfter+time.Duration(v.rank())*v.Step))
	}
	return true, turn
}

// preferred tells whether this node is the one that ought to send, and could.
func (v *View) preferred() bool {
	list := Ranking(&v.Claim, v.Owner, v.Peers)
	return list[0] == v.Self && drained(&v.Claim, v.Self) == 0 && !v.CacheAt.IsZero() && v.Held >= v.There
}
