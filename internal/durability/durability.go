// Package durability says up to which stage an fsync waits, by the path of what is synced: `durability:` of the configuration. It
// holds rules and nothing else: no state, nothing that a crash could change.
package durability

import (
	"fmt"
	"strings"

	"slipway/internal/config"
	"slipway/internal/control"
	"slipway/internal/exclude"
)

// Local is the rule's word for fsync(2) as it is without a rule.
const Local = "local"

// Rules decide for each path. nil: there are none.
type Rules struct {
	rules   []rule
	exclude *exclude.List // what is left out is never sealed, so nothing waits for it
}

type rule struct {
	stage control.Stage // Pending: local
	match *exclude.List // one pattern

	// Which directories hold names that the pattern can match: those that holds matches, or all, or the volume's root.
	holds     *exclude.List
	all, root bool
}

// New reads the rules of a configuration.
func New(cfg *config.Primary) (*Rules, error) {
	if len(cfg.Durability) == 0 {
		return nil, nil
	}
	left, err := exclude.New(cfg.Exclude)
	if err != nil {
		return nil, err
	}
	r := &Rules{exclude: left}
	for _, d := range cfg.Durability {
		one, err := newRule(d)
		if err != nil {
			return nil, fmt.Errorf("durability for %q: %w", d.Path, err)
		}
		r.rules = append(r.rules, one)
	}
	return r, nil
}

func newRule(d config.Durability) (r rule, err error) {
	if d.Stage != Local {
		if r.stage, err = control.ParseStage(d.Stage); err != nil {
			return r, err
		}
	}
	if r.match, err = exclude.New([]string{d.Path}); err != nil {
		return r, err
	}
	pattern := strings.TrimSuffix(d.Path, "/")
	slash := strings.LastIndexByte(pattern, '/')
	switch {
	case slash < 0 || pattern[:slash] == "**" || pattern[:slash] == "/**":
		r.all = true
	case slash == 0:
		r.root = true
	default:
		r.holds, err = exclude.New([]string{"/" + strings.TrimPrefix(pattern[:slash], "/")})
	}
	return r, err
}

// File returns up to which stage the fsync of a file waits; Pending: it does not. The last pattern that matches the path, or a directory
// above it, decides.
func (r *Rules) File(path string) control.Stage {
	if r.leaves(path) {
		return control.Pending
	}
	for i := len(r.rules) - 1; i >= 0; i-- {
		if r.rules[i].matches(path, false) {
			return r.rules[i].stage
		}
	}
	return control.Pending
}

// Dir is File for a directory, whose fsync makes the names in it durable: of the patterns that can match a name in it the highest stage
// counts, as far as no later pattern matches the directory itself.
func (r *Rules) Dir(path string) control.Stage {
	stage := control.Pending
	if r.leaves(path) {
		return stage
	}
	for i := len(r.rules) - 1; i >= 0; i-- {
		x := &r.rules[i]
		itself := x.matches(path, true)
		if itself || x.mayHold(path) {
			stage = max(stage, x.stage)
		}
		if itself {
			break
		}
	}
	return stage
}

// leaves tells whether no rule counts.
func (r *Rules) leaves(path string) bool {
	if r == nil {
		return true
	}
	_, left := r.exclude.Match(path, false)
	return left
}

func (x *rule) matches(path string, dir bool) bool {
	_, ok := x.match.Match(path, dir)
	return ok
}

func (x *rule) mayHold(dir string) bool {
	return x.all || x.root && (dir == "." || dir == "") || x.holds.MatchAt(dir, true)
}
