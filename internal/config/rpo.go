package config

import (
	"fmt"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"

	"slipway/internal/exclude"
)

// Deadline is how long a change may take; 0: for ever.
type Deadline struct {
	Warn  time.Duration // then status warns
	Error time.Duration // then it is an error, and health is bad
}

// RPO is how long a change may take to be sealed, and what was sealed to be on the cache.
type RPO struct {
	Deadline                // of every file
	Paths    []PathDeadline // of some files besides
}

// PathDeadline is a limit of what lies at or below a pattern of gitignore's.
type PathDeadline struct {
	Path string
	Deadline
}

// maxDeadlines is as many as a word has bits.
const maxDeadlines = 64

// rpo reads one duration, which warns and is an error at once, or a mapping.
func rpo(r *RPO) reader {
	both := duration(&r.Error, time.Second, forEver)
	fields := append(deadlineFields(&r.Deadline), field{"paths", list(&r.Paths, pathDeadline), ""})
	return func(d *document, n ast.Node, path string) {
		if _, ok := n.(*ast.MappingNode); !ok {
			both(d, n, path)
			r.Warn = r.Error
			return
		}
		object(fields...)(d, n, path)
		d.checkRPO(r, path)
	}
}

func deadlineFields(l *Deadline) []field {
	return []field{
		{"warn", duration(&l.Warn, time.Second, forEver), ""},
		{"error", duration(&l.Error, time.Second, forEver), ""},
	}
}

func pathDeadline(p *PathDeadline) reader {
	return object(append(deadlineFields(&p.Deadline), field{"path", text(&p.Path, checkUnder), "path: \"db/\", a pattern as in exclude"})...)
}

func checkUnder(s string) (problem, fix string) {
	if strings.HasPrefix(s, "!") {
		return "a limit cannot be negated", "name the files that have a limit of their own"
	}
	if l, err := exclude.New([]string{s}); err != nil || l == nil {
		return fmt.Sprintf("%q matches nothing", s), "write a pattern of gitignore's, relative to the volume: \"db/\", \"*.sqlite\""
	}
	return "", ""
}

// checkRPO finds limits that would never be heard of.
func (d *document) checkRPO(r *RPO, path string) {
	if r.Deadline == (Deadline{}) && len(r.Paths) == 0 {
		d.fault(d.at[path], "write {warn: 30s, error: 5m}, or remove it", "%s: nothing is asked for", path)
	}
	if len(r.Paths) > maxDeadlines {
		d.fault(d.at[path+".paths"], fmt.Sprintf("write at most %d; a pattern may stand for many files", maxDeadlines), "%s.paths: %d limits", path, len(r.Paths))
	}
	d.checkOrder(r.Deadline, path)
	for i, p := range r.Paths {
		here := fmt.Sprintf("%s.paths[%d]", path, i)
		if p.Deadline == (Deadline{}) {
			d.fault(d.at[here], "add warn: or error:", "%s: nothing is asked for", here)
		}
		d.checkOrder(p.Deadline, here)
		for _, l := range []struct {
			key        string
			own, whole time.Duration
		}{{"warn", p.Warn, r.Warn}, {"error", p.Error, r.Error}} {
			if l.whole > 0 && l.own >= l.whole {
				d.fault(d.at[here+"."+l.key], "write less than "+FormatDuration(l.whole), "%s.%s: %s is not shorter than %s.%s, which holds for every file", here, l.key, FormatDuration(l.own), path, l.key)
			}
		}
	}
}

// warnOfOpen tells of deadlines that a file held open cannot meet.
func (d *document) warnOfOpen(p *Primary) {
	least := forEver
	for _, l := range append([]PathDeadline{{Deadline: p.RPO.Deadline}}, p.RPO.Paths...) {
		for _, v := range []time.Duration{l.Warn, l.Error} {
			if v > 0 {
				least = min(least, v)
			}
		}
	}
	if least < p.OpenInterval {
		d.warnings = append(d.warnings, fmt.Sprintf("rpo: a file that is held open is sealed every open_interval, %s: it misses a deadline of %s; a shorter open_interval reads such files more often",
			FormatDuration(p.OpenInterval), FormatDuration(least)))
	}
}

func (d *document) checkOrder(l Deadline, path string) {
	if l.Error > 0 && l.Warn > l.Error {
		d.fault(d.at[path+".warn"], fmt.Sprintf("write at most %s, or a larger error", FormatDuration(l.Error)), "%s: warn %s comes after error %s", path, FormatDuration(l.Warn), FormatDuration(l.Error))
	}
}
