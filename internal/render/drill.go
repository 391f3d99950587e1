package render

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/dustin/go-humanize/english"

	"slipway/internal/config"
	"slipway/internal/drill"
)

// mostProblems bounds how many problems of one host are shown as text.
const mostProblems = 20

// Drills writes `doctor --drill`: how each host's drill went, and below it what did not come back as it was sealed.
func Drills(out io.Writer, list []drill.Result) error {
	p := paint(Terminal(out) && os.Getenv("NO_COLOR") == "")
	w := new(strings.Builder)
	for _, r := range list {
		word := "passed"
		if !r.Passed {
			word = p.red("failed")
		}
		fmt.Fprintf(w, "%s  %s  volume %s", word, p.bold(r.Store), r.Volume)
		if r.Batch > 0 {
			fmt.Fprintf(w, ", batch %d: %s, %s", r.Batch, english.Plural(int(r.Files), "file", ""), config.FormatSize(r.Bytes))
		}
		if r.Compared > 0 {
			fmt.Fprintf(w, ", %d compared with the source", r.Compared)
		}
		fmt.Fprintf(w, ", %.1f s\n", r.Seconds)
		for i, x := range r.Problems {
			if i == mostProblems {
				fmt.Fprintf(w, "        and %d more\n", len(r.Problems)-i)
				break
			}
			if x.Path != "" {
				x.Problem = Name(x.Path) + ": " + x.Problem
			}
			fmt.Fprintf(w, "        %s\n", x.Problem)
		}
	}
	if len(list) > 0 {
		fmt.Fprintf(w, "the same sample again: --seed %d\n", list[0].Seed)
	}
	_, err := io.WriteString(out, w.String())
	return err
}
