package render

import (
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"golang.org/x/term"
)

// columns returns how wide a terminal is; 0 where nothing limits the width: a file, a pipe.
func columns(w io.Writer) int {
	f, ok := w.(*os.File)
	if !ok || !Terminal(w) {
		return 0
	}
	n, _, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return 0
	}
	return n
}

// widest returns the length of the longest line.
func widest(text string) (n int) {
	for line := range strings.Lines(text) {
		n = max(n, utf8.RuneCountInString(strings.TrimRight(line, " \n")))
	}
	return n
}

// blocks writes a table that is wider than the terminal: a block for each row, a line for each cell below its heading's name.
func blocks(w io.Writer, rows [][]string) error {
	heading := rows[0]
	for _, row := range rows[1:] {
		for i, cell := range row {
			if cell == "" {
				continue
			}
			if _, err := fmt.Fprintln(w, strings.TrimSpace(strings.ToLower(heading[i])+" "+cell)); err != nil {
				return err
			}
		}
		if _, err := fmt.Fprintln(w); err != nil {
			return err
		}
	}
	return nil
}
