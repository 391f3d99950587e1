package sender

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"slipway/internal/batch"
	"slipway/internal/claim"
	"slipway/internal/progress"
)

var t0 = time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)

func at(seconds float64) time.Time { return t0.Add(time.Duration(seconds * float64(time.Second))) }

// view is charlie's, second peer of alpha, with a batch that the cache lacks and a sender that is well.
func view(edit func(*View)) *View {
	v := &View{
		Now: at(100), Self: "charlie", Owner: "alpha", Peers: []string{"bravo", "charlie"},
		ClaimAt: at(0), CacheAt: at(0), Held: 8, There: 7, Verdict: progress.Healthy,
		StaleAfter: 5 * time.Second, Step: time.Second, PreferAfter: time.Minute,
	}
	if edit != nil {
		edit(v)
	}
	return v
}

func failed(since float64) func(*View) {
	return func(v *View) { v.Verdict, v.Since, v.Why = progress.Failed, at(since), "no space left" }
}

func claimed(node string) claim.Claim { return claim.Claim{Term: 1, Node: node} }

func TestDecide(t *testing.T) {
	tests := []struct {
		name  string
		edit  func(*View)
		want  State
		again time.Time
	}{
		{"the sender is well", nil, Standby, time.Time{}},
		{"the owner sends without a claim", func(v *View) { v.Self = "alpha" }, Sending, time.Time{}},
		{"a claim says whose turn it is", func(v *View) { v.Claim = claimed("charlie") }, Sending, time.Time{}},
		{"the old sender stands by", func(v *View) { v.Self, v.Claim, v.ClaimAt = "alpha", claimed("bravo"), at(99) }, Returning, at(159)},
		{"the first peer takes over at once", func(v *View) { failed(100)(v); v.Self = "bravo" }, Claiming, time.Time{}},
		{"the second waits a step", failed(100), Waiting, at(101)},
		{"and takes over when the first does not", failed(99), Claiming, time.Time{}},
		{"a stranger to the owner's list comes last", func(v *View) { failed(100)(v); v.Self = "delta" }, Waiting, at(102)},
		{"nothing is undelivered", func(v *View) { failed(90)(v); v.There = 8 }, Standby, time.Time{}},
		{"the cache is out of reach", func(v *View) { failed(90)(v); v.CacheAt = time.Time{} }, Standby, time.Time{}},
		{"the cache was away, too", func(v *View) { failed(90)(v); v.CacheAt = at(98); v.Self = "bravo" }, Waiting, at(103)},
		{"of a failed peer the owner goes first", func(v *View) { failed(100)(v); v.Self, v.Claim = "alpha", claimed("bravo") }, Claiming, time.Time{}},
		{"the pinned one goes first", func(v *View) { failed(100)(v); v.Claim = claim.Claim{Prefer: "charlie"} }, Claiming, time.Time{}},
		{"a drained one goes last", func(v *View) { failed(100)(v); v.Self, v.Claim = "bravo", claim.Claim{Avoid: []string{"bravo"}} }, Waiting, at(101)},
		{"health begins with the cache", func(v *View) { v.Self, v.Claim, v.CacheAt = "alpha", claimed("bravo"), at(50) }, Returning, at(110)},
		{"health begins with the claim", func(v *View) { v.Self, v.Claim, v.ClaimAt = "alpha", claimed("bravo"), at(41) }, Returning, at(101)},
		{"the owner is back", func(v *View) { v.Self, v.Claim, v.ClaimAt = "alpha", claimed("bravo"), at(40) }, Claiming, time.Time{}},
		{"a pin holds the owner off", func(v *View) { v.Self, v.Claim = "alpha", claim.Claim{Term: 1, Node: "bravo", Prefer: "bravo"} }, Standby, time.Time{}},
		{"a drained owner does not come back", func(v *View) {
			v.Self, v.Claim = "alpha", claim.Claim{Term: 1, Node: "bravo", Avoid: []string{"alpha"}}
		}, Standby, time.Time{}},
		{"who lacks what is there does not come back", func(v *View) { v.Self, v.Claim, v.Held = "alpha", claimed("bravo"), 6 }, Standby, time.Time{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v := view(tt.edit)
			d := Decide(v)
			if d.State != tt.want || !d.Again.Equal(tt.again) {
				t.Errorf("%s again %v, want %s again %v (reason %q)", d.State, d.Again, tt.want, tt.again, d.Reason)
			}
			if d.State == Claiming && d.Reason == "" {
				t.Error("a claim without a reason")
			}
		})
	}
}

func TestRanking(t *testing.T) {
	tests := []struct {
		c    claim.Claim
		want string
	}{
		{claim.Claim{}, "alpha bravo charlie"},
		{claim.Claim{Prefer: "charlie"}, "charlie alpha bravo"},
		{claim.Claim{Prefer: "unknown"}, "alpha bravo charlie"},
		{claim.Claim{Avoid: []string{"alpha"}}, "bravo charlie alpha"},
		{claim.Claim{Prefer: "bravo", Avoid: []string{"bravo", "alpha"}}, "charlie bravo alpha"},
	}
	for _, tt := range tests {
		if got := strings.Join(Ranking(&tt.c, "alpha", []string{"bravo", "charlie"}), " "); got != tt.want {
			t.Errorf("%+v: %s, want %s", tt.c, got, tt.want)
		}
	}
}

// The table in docs/sending.md is the one in the code.
func TestTransitionsDocument(t *testing.T) {
	text, err := os.ReadFile("../../docs/sending.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(text), "<!-- sender transitions -->")
	table, _, _ = strings.Cut(table, "<!-- end -->")
	found := 0
	for line := range strings.SplitSeq(table, "\n") {
		cells := strings.Split(line, "|")
		if len(cells) != 4 || strings.Contains(line, "---") || strings.Contains(line, "from") {
			continue
		}
		found++
		from := State(strings.TrimSpace(cells[1]))
		var to []State
		for s := range strings.SplitSeq(cells[2], ",") {
			to = append(to, State(strings.TrimSpace(s)))
		}
		slices.Sort(to)
		want := slices.Sorted(slices.Values(transitions[from]))
		if !slices.Equal(to, want) {
			t.Errorf("%s: the document says %v, the code %v", from, to, want)
		}
	}
	if found != len(transitions) {
		t.Errorf("%d rows, %d states", found, len(transitions))
	}
}

// Every decision in every situation, after every state, is a legal step.
func TestDecisionsAreLegal(t *testing.T) {
	seen := map[State]bool{}
	for _, self := range []string{"alpha", "bravo", "charlie"} {
		for _, node := range []string{"", "alpha", "bravo", "charlie"} {
			for _, verdict := range []progress.Verdict{progress.Healthy, progress.Failed, progress.Silent, progress.Stalled} {
				for _, since := range []float64{80, 100} {
					for _, there := range []batch.Seq{7, 8} {
						v := view(func(v *View) {
							v.Self, v.Verdict, v.Since, v.There, v.ClaimAt = self, verdict, at(since), there, at(since)
							if node != "" {
								v.Claim = claimed(node)
							}
						})
						to := Decide(v).State
						seen[to] = true
						for from := range transitions {
							if from != to && from != Sending && !Legal(from, to) {
								t.Errorf("%s → %s with %+v", from, to, v)
							}
						}
					}
				}
			}
		}
	}
	if len(seen) != len(transitions) {
		t.Errorf("only %v were reached", seen)
	}
}
