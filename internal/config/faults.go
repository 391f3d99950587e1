package config

import (
	"fmt"
	"sort"
	"strings"
)

// Fault is one thing wrong with a configuration: where, what, and what to do about it.
type Fault struct {
	Line    int    `json:"line"` // from 1; 0 where the fault has no place in the file
	Column  int    `json:"column"`
	Message string `json:"message"`
	Fix     string `json:"fix"`
}

// Faults is everything wrong with one configuration file, in the file's order.
type Faults struct {
	Path  string   `json:"path"`
	Found []Fault  `json:"faults"`
	lines []string // of the file, to show each fault in its place

	// State is the state directory that the file names for all its faults: where the daemon is that runs with what the file said before; "" where
	// nobody can tell.
	State string `json:"-"`
}

// Error shows every fault with its place, the source line and a caret below it, and the fix.
func (f *Faults) Error() string {
	var b strings.Builder
	for i, fault := range f.Found {
		if i > 0 {
			b.WriteByte('\n')
		}
		f.write(&b, fault)
	}
	return b.String()
}

func (f *Faults) write(b *strings.Builder, fault Fault) {
	if fault.Line == 0 {
		fmt.Fprintf(b, "%s: %s", f.Path, fault.Message)
	} else {
		fmt.Fprintf(b, "%s:%d:%d: %s", f.Path, fault.Line, fault.Column, fault.Message)
	}
	if fault.Line >= 1 && fault.Line <= len(f.lines) {
		line := f.lines[fault.Line-1]
		number := fmt.Sprintf("%5d | ", fault.Line)
		fmt.Fprintf(b, "\n%s%s\n%s| %s^", number, line, strings.Repeat(" ", len(number)-2), under(line, fault.Column))
	}
	if fault.Fix != "" {
		fmt.Fprintf(b, "\n      fix: %s", fault.Fix)
	}
}

// under returns the blanks that put a caret below a column; tabs are kept, so that it lines up in any terminal.
func under(line string, column int) string {
	var b strings.Builder
	for i, r := range []rune(line) {
		if i >= column-1 {
			break
		}
		if r == '\t' {
			b.WriteRune(r)
		} else {
			b.WriteByte(' ')
		}
	}
	return b.String()
}

func (f *Faults) sort() {
	sort.SliceStable(f.Found, func(i, j int) bool {
		a, b := f.Found[i], f.Found[j]
		if a.Line != b.Line {
			return a.Line < b.Line
		}
		return a.Column < b.Column
	})
}

// closest returns the word of known that was probably meant by a misspelt one, or "".
func closest(word string, known []string) string {
	best, limit := "", 1+len(word)/3
	for _, k := range known {
		if d := distance(strings.ToLower(word), k); d <= limit {
			best, limit = k, d-1
		}
	}
	return best
}

// distance counts the letters to add, drop, change or swap with their neighbour to turn a into b.
func distance(a, b string) int {
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			change := 1
			if a[i-1] == b[j-1] {
				change = 0
			}
			rows[i][j] = min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+change)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				rows[i][j] = min(rows[i][j], rows[i-2][j-2]+1)
			}
		}
	}
	return rows[len(a)][len(b)]
}
