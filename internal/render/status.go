package render

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/dustin/go-humanize/english"

	"slipway/internal/config"
	"slipway/internal/control"
	"slipway/internal/health"
)

// Status writes the status screen: each volume as a pipeline from left to right.
func Status(out io.Writer, list []control.Status, now time.Time) error {
	w := new(strings.Builder)
	p := paint(Terminal(out) && os.Getenv("NO_COLOR") == "")
	for i, s := range list {
		if i > 0 {
			fmt.Fprintln(w)
		}
		heading(w, p, s, now)
		pipeline(w, p, s, columns(out))
		notes(w, p, s, now)
	}
	_, err := io.WriteString(out, w.String())
	return err
}

// Line says in one line how everything is.
func Line(list []control.Status) string {
	var parts []string
	for _, s := range list {
		text := fmt.Sprintf("%s: batch %d", s.Volume, s.HeadBatch)
		if s.Pending.Files > 0 {
			text += ", " + english.Plural(int(s.Pending.Files), "file", "") + " pending"
		}
		for _, st := range s.Stores {
			if st.LagBatches > 0 || health.Wrong(st.State) {
				text += fmt.Sprintf(", %s %s, %d behind", st.Name, st.State, st.LagBatches)
			}
		}
		if n := len(s.Warnings); n > 0 {
			text += ", " + english.Plural(n, "warning", "")
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, "; ")
}

// paint colours text, or not.
type paint bool

func (p paint) red(s string) string    { return p.in("31", s) }
func (p paint) yellow(s string) string { return p.in("33", s) }
func (p paint) bold(s string) string   { return p.in("1", s) }

func (p paint) in(code, s string) string {
	if !p || s == "" {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

func heading(w *strings.Builder, p paint, s control.Status, now time.Time) {
	line := fmt.Sprintf("%s  %s %s, epoch %d, head batch %d", p.bold(s.Volume), s.Role, s.Node, s.Epoch, s.HeadBatch)
	switch {
	case !s.Complete && s.Waiting != "":
		line += ", incomplete: " + s.Waiting
	case !s.Complete && s.HeadBatch > 0:
		line += ", incomplete"
	}
	fmt.Fprintln(w, line)
	if s.Daemon != control.Running {
		last := "when it last answered is not known"
		if !s.At.IsZero() {
			last = "its last answer is " + config.FormatDuration(now.Sub(s.At)) + " old"
		}
		fmt.Fprintln(w, p.red(fmt.Sprintf("the daemon is %s; %s", s.Daemon, last)))
	}
	fmt.Fprintln(w)
}

// cell is a place of the pipeline: a title and lines below it.
type cell []string

func pipeline(w *strings.Builder, p paint, s control.Status, wide int) {
	var places [][]cell
	if s.Role == "primary" {
		pending := cell{"pending", english.Plural(int(s.Pending.Files), "file", "") + ", " + config.FormatSize(s.Pending.Bytes)}
		if s.Pending.Files > 0 {
			pending = append(pending, "oldest "+seconds(s.Pending.OldestSeconds))
		}
		places = append(places, []cell{pending})
	}
	for _, kind := range []string{"own", "replica", "cache", "backup"} {
		var column []cell
		for _, st := range s.Stores {
			if st.Kind == kind {
				column = append(column, storeCell(st, s.Spool))
			}
		}
		if column != nil {
			places = append(places, column)
		}
	}
	if needed := widths(places); wide > 0 && sum(needed)-gap > wide {
		below(w, p, places)
	} else {
		sideBySide(w, p, places, needed)
	}
}

func storeCell(st control.StoreStatus, spool control.SpoolStatus) cell {
	c := cell{st.Name + " (" + st.Kind + ")", fmt.Sprintf("batch %d", st.Batch)}
	if st.LagBatches > 0 {
		c[1] += fmt.Sprintf(", %d behind", st.LagBatches)
		if st.LagSeconds > 0 { // a peer does not know how long
			c[1] += ", " + seconds(st.LagSeconds)
		}
		if st.LagFiles > 0 {
			c = append(c, english.Plural(int(st.LagFiles), "file", "")+", "+config.FormatSize(st.LagBytes)+" to go")
		} else if st.LagBytes > 0 {
			c = append(c, config.FormatSize(st.LagBytes)+" to go")
		}
	}
	if st.Rate >= 1 {
		text := config.FormatSize(int64(st.Rate)) + "/s"
		if st.LagBytes > 0 && st.State != "waiting" && !health.Wrong(st.State) { // it is not the line that it waits for
			text += ", about " + seconds(float64(st.LagBytes)/st.Rate)
		}
		c = append(c, text)
	}
	if st.Kind == "own" && spool.Cap > 0 {
		c = append(c, fmt.Sprintf("%s of %s", config.FormatSize(spool.Bytes), config.FormatSize(spool.Cap)))
	}
	if st.State != "" {
		c = append(c, st.State)
	}
	return c
}

// below writes one place after another, for a terminal that is too narrow.
func below(w *strings.Builder, p paint, columns [][]cell) {
	for _, column := range columns {
		for _, c := range column {
			for i, text := range c {
				if i > 0 {
					text = "  " + text
				}
				fmt.Fprintln(w, emphasise(p, text))
			}
		}
	}
}

// lead is what stands before a line of a place: an arrow leads into every column but the first.
func lead(x, n, i int) string {
	switch {
	case x == 0:
		return ""
	case n == 0 && i == 0:
		return "→ "
	}
	return "  "
}

// widths returns how wide each column is, with the gap behind it.
func widths(columns [][]cell) []int {
	list := make([]int, len(columns))
	for x, column := range columns {
		for n, c := range column {
			for i, text := range c {
				list[x] = max(list[x], utf8.RuneCountInString(lead(x, n, i)+text)+gap)
			}
		}
	}
	return list
}

// gap is the space between two columns.
const gap = 2

func sum(list []int) (total int) {
	for _, n := range list {
		total += n
	}
	return total
}

// sideBySide writes columns side by side, the places of one column below one another.
func sideBySide(w *strings.Builder, p paint, columns [][]cell, widths []int) {
	var lines [][]string
	for x, column := range columns {
		y := 0
		for n, c := range column {
			for i, text := range c {
				for len(lines) <= y {
					lines = append(lines, make([]string, len(columns)))
				}
				lines[y][x] = lead(x, n, i) + text
				y++
			}
		}
	}
	for _, line := range lines {
		var b strings.Builder
		for x, text := range line {
			b.WriteString(emphasise(p, text))
			b.WriteString(strings.Repeat(" ", widths[x]-utf8.RuneCountInString(text)))
		}
		fmt.Fprintln(w, strings.TrimRight(b.String(), " "))
	}
}

// emphasise colours the states that ask for attention.
func emphasise(p paint, text string) string {
	switch strings.TrimSpace(text) {
	case "down", "refused", "full":
		return p.red(text)
	case "waiting", "unchecked":
		return p.yellow(text)
	}
	return text
}

// sending says who sends and how far it is with the batch on its way.
func sending(s control.Status) string {
	n := s.Sender
	if n.Node == "" || n.State == "idle" && n.Batch == 0 {
		return ""
	}
	text := fmt.Sprintf("%s %s", n.Node, n.State)
	if n.Batch > 0 {
		text += fmt.Sprintf(" batch %d, %d of %d shards", n.Batch, n.Shards, n.Of)
	}
	if n.Rate > 0 {
		text += ", " + config.FormatSize(int64(n.Rate)) + "/s"
	}
	told := slices.ContainsFunc(s.Stores, func(st control.StoreStatus) bool { return st.Error != "" && strings.Contains(n.Trouble, st.Error) })
	if n.Trouble != "" && !told {
		text += ": " + n.Trouble
	}
	return text
}

func notes(w *strings.Builder, p paint, s control.Status, now time.Time) {
	if o := s.SwitchOff; o != nil {
		word := "yes"
		if !o.Safe {
			word = p.yellow("no")
		}
		fmt.Fprintf(w, "%s %s: %s\n", p.bold("safe to switch off?"), word, o.Why)
	}
	if text := sending(s); text != "" {
		fmt.Fprintf(w, "%s %s\n", p.bold("sender:"), text)
	}
	for _, st := range s.Stores {
		if st.Error != "" {
			fmt.Fprintf(w, "%s: %s\n", p.bold(st.Name), p.red(st.Error))
		} else if st.WaitsFor != "" {
			fmt.Fprintf(w, "%s: waits for %s\n", p.bold(st.Name), p.yellow(st.WaitsFor))
		}
	}
	if s.Warm != nil {
		fmt.Fprintf(w, "%s batch %d", p.bold("warm tree:"), s.Warm.Batch)
		if lag := int64(s.HeadBatch) - int64(s.Warm.Batch); lag > 0 {
			fmt.Fprintf(w, ", %d behind", lag)
		}
		if s.Warm.Error != "" {
			fmt.Fprintf(w, ": %s", p.red(s.Warm.Error))
		}
		fmt.Fprintln(w)
	}
	if s.Fsyncs != nil && s.Fsyncs.Waiting > 0 {
		fmt.Fprintf(w, "%s %d wait for a stage\n", p.bold("fsyncs:"), s.Fsyncs.Waiting)
	}
	for _, d := range s.Drills {
		word := "passed"
		if !d.Passed {
			word = p.red("failed")
		}
		fmt.Fprintf(w, "%s %s %s ago, %.1f s, from %s\n", p.bold("last drill:"), word, config.FormatDuration(now.Sub(d.At).Round(time.Second)), d.Seconds, d.Store)
	}
	said := map[string]bool{}
	for _, a := range s.Alarms {
		if a.Level == control.LevelError {
			fmt.Fprintf(w, "%s %s\n", p.red("error:"), a.Message)
			said[a.Message] = true
		}
	}
	for _, warning := range s.Warnings {
		if !said[warning] && !health.Told(warning, s.Stores) {
			fmt.Fprintf(w, "%s %s\n", p.yellow("warning:"), warning)
		}
	}
}
