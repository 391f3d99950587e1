package render

import (
	"fmt"
	"io"
	"os"
	"strings"

	"slipway/internal/doctor"
)

// Doctor writes `doctor`: each finding, and below it what to do.
func Doctor(out io.Writer, list []doctor.Finding) error {
	p := paint(Terminal(out) && os.Getenv("NO_COLOR") == "")
	w := new(strings.Builder)
	width := 0
	for _, f := range list {
		width = max(width, len(f.Check))
	}
	for _, f := range list {
		word := fmt.Sprintf("%-7s", f.Level)
		switch f.Level {
		case doctor.Fault:
			word = p.red(word)
		case doctor.Warning:
			word = p.yellow(word)
		}
		fmt.Fprintf(w, "%s  %-*s  %s\n", word, width, f.Check, f.Says)
		if f.Fix != "" {
			fmt.Fprintf(w, "%*s  do: %s\n", 9+width, "", f.Fix)
		}
	}
	_, err := io.WriteString(out, w.String())
	return err
}
