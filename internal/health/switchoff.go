package health

import (
	"fmt"
	"strings"

	"github.com/dustin/go-humanize/english"

	"slipway/internal/config"
	"slipway/internal/control"
)

// Advise adds to each status whether its node may be switched off: whether anything would be lost if it never came back. ask asks a primary's
// daemon whether all that was changed so far is sealed; the journal alone does not tell, since what is excluded lies in it, too.
func Advise(list []control.Status, ask func() (control.Barrier, error)) {
	for i := range list {
		s := &list[i]
		switch s.Role {
		case "primary":
			s.SwitchOff = primaryOff(s, ask)
		case "cache", "peer":
			s.SwitchOff = holderOff(s)
		}
	}
}

// primaryOff: what is not sealed is nowhere else, and what is sealed has to lie in one other store at least, which hands it on.
func primaryOff(s *control.Status, ask func() (control.Barrier, error)) *control.SwitchOff {
	switch {
	case s.Waiting != "" || !s.Complete:
		return &control.SwitchOff{Why: "the files have not all been compared with what was sealed"}
	case s.Pending.Files > 0:
		return &control.SwitchOff{Why: fmt.Sprintf("%s of %s not sealed: on this node alone", english.Plural(int(s.Pending.Files), "file", ""), config.FormatSize(s.Pending.Bytes))}
	case s.Journal.Head > s.Journal.Sealed && s.Daemon == control.Running:
		b, err := ask()
		if err != nil {
			return &control.SwitchOff{Why: fmt.Sprintf("nobody knows: %v", err)}
		}
		if !b.Sealed {
			return &control.SwitchOff{Why: "not all is sealed: on this node alone; it waits for: " + b.Why}
		}
		if b.Seq > s.HeadBatch {
			return &control.SwitchOff{Why: fmt.Sprintf("batch %d was sealed just now: on this node alone until the next look", b.Seq)}
		}
	}
	var have, lack []string
	fewest := int64(s.HeadBatch)
	for _, st := range s.Stores {
		switch {
		case st.Kind == "own":
		case st.State == "down" || st.State == "refused":
			lack = append(lack, st.Name+", which is "+st.State)
		case st.LagBatches > 0 || st.Batch < s.HeadBatch:
			lack = append(lack, st.Name)
			fewest = min(fewest, max(st.LagBatches, 1))
		default:
			have = append(have, st.Name)
		}
	}
	if len(have) == 0 {
		return &control.SwitchOff{Why: english.Plural(int(fewest), "batch", "") + " in no other store that answers"}
	}
	why := fmt.Sprintf("everything up to batch %d is in %s", s.HeadBatch, strings.Join(have, ", "))
	if len(lack) > 0 {
		why += "; not in " + strings.Join(lack, ", ")
	}
	return sinceItRan(s, why)
}

// holderOff: a cache host or a peer has to have handed on what it holds. The node that it came from may have dropped it.
func holderOff(s *control.Status) *control.SwitchOff {
	var have, lack []string
	for _, st := range s.Stores[min(1, len(s.Stores)):] { // the first one is the node's own
		if s.Role == "peer" && st.Kind != "cache" {
			continue
		}
		if Wrong(st.State) && st.State != "full" {
			lack = append(lack, st.Name+" is "+st.State+" and may lack some")
		} else if st.LagBatches > 0 {
			lack = append(lack, fmt.Sprintf("%s lacks %s", st.Name, english.Plural(int(st.LagBatches), "batch", "")))
		} else {
			have = append(have, st.Name)
		}
	}
	switch {
	case len(lack) > 0:
		return &control.SwitchOff{Why: strings.Join(lack, ", ") + " of what lies here"}
	case len(have) == 0:
		return &control.SwitchOff{Why: "nothing else is known to have what lies here"}
	}
	return sinceItRan(s, fmt.Sprintf("everything up to batch %d is in %s", s.HeadBatch, strings.Join(have, ", ")))
}

// sinceItRan: what a daemon knew when it was last heard of may not be all that there is.
func sinceItRan(s *control.Status, why string) *control.SwitchOff {
	switch s.Daemon {
	case control.Dead:
		return &control.SwitchOff{Why: why + "; what has come since the daemon ended is not known"}
	case control.NotAnswering:
		return &control.SwitchOff{Why: why + "; what has come since the daemon last answered is not known"}
	}
	return &control.SwitchOff{Safe: true, Why: why}
}
