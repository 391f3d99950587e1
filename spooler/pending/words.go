package pending

import (
	"fmt"
	"time"

	"slipway/internal/control"
)

// Reasons why a file is pending, as `spool pending` shows them.
const (
	New     = "new"     // never sealed
	Written = "written" // changed since it was sealed
	Open    = "open"    // open for writing, or mapped
	Unclean = "unclean" // sealed while it moved
	Unread  = "unread"  // could not be read; the last error says why
)

// Status sums up.
func (s *Set) Status(now time.Time) control.PendingStatus {
	var st control.PendingStatus
	for _, f := range s.files {
		st.Files++
		st.Bytes += f.bytes
		st.OldestSeconds = max(st.OldestSeconds, now.Sub(f.since).Seconds())
	}
	return st
}

// Unreadable counts the files that cannot be read, and says why one of them cannot.
func (s *Set) Unreadable() (n int, why error) {
	for _, p := range s.files {
		if p.reason == Unread && p.err != nil {
			n++
			why = p.err
		}
	}
	return n, why
}

// Row describes a file as `spool pending` does, without its path. room: the own store may take more.
func (s *Set) Row(p *File, room bool) control.PendingRow {
	return control.PendingRow{
		State: p.reason, Since: p.since, Bytes: p.bytes, Writers: s.writers[p.id], Why: s.why(p, room),
	}
}

// why says in words what a file waits for.
func (s *Set) why(p *File, room bool) string {
	switch {
	case p.done != nil:
		return "read; waits for the next batch"
	case p.running:
		return "is being read"
	case p.err != nil:
		return "tried again: " + p.err.Error()
	case p.hasty:
		return "an fsync waits for it: it is read next"
	case s.writers[p.id] > 0:
		return fmt.Sprintf("open for writing; read every %v while it changes", s.timing.OpenInterval)
	case p.reason == Open && p.tries > 0:
		return "a mapping or a process of before the last mount still has it open"
	case !room:
		return "waits for room in the local store"
	}
	return "waits until it is quiet"
}

// WhyUnread says what keeps content that is waited for from being read; "" if all has been.
func (s *Set) WhyUnread(list []Awaited, room bool) string {
	for _, a := range list {
		if a.Read() {
			continue
		}
		if a.file.moved {
			return "others change the file all the time: it could not be read as it was at one moment"
		}
		return s.why(a.file, room)
	}
	return ""
}
