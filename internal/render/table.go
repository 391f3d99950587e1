package render

import (
	"bufio"
	"io"
	"strings"
	"unicode/utf8"
)

// layout is one way to show rows as a table.
type layout[T any] struct {
	row     func(T) []string
	heading []string
}

func (l layout[T]) cells(list []T) [][]string {
	rows := append(make([][]string, 0, len(list)+1), l.heading)
	for _, v := range list {
		rows = append(rows, l.row(v))
	}
	return rows
}

// Table returns a function that writes rows below a heading, with the last column folded where the terminal is too narrow; where that is not
// enough, a block of lines for each row.
func Table[T any](row func(T) []string, heading ...string) func(io.Writer, []T) error {
	return tables(layout[T]{row, heading})
}

// tables is Table with several layouts: the first one that fits the terminal, else the first one that does with its last column folded.
func tables[T any](layouts ...layout[T]) func(io.Writer, []T) error {
	return func(w io.Writer, list []T) error {
		wide := columns(w)
		if wide == 0 {
			return table(w, layouts[0].cells(list))
		}
		for _, shape := range []func([][]string, int) [][]string{whole, folded} {
			for _, l := range layouts {
				var b strings.Builder
				if err := table(&b, shape(l.cells(list), wide)); err != nil {
					return err
				}
				if widest(b.String()) <= wide {
					_, err := io.WriteString(w, b.String())
					return err
				}
			}
		}
		var b strings.Builder // one write: what reads a terminal gets all of it
		if err := blocks(&b, layouts[0].cells(list)); err != nil {
			return err
		}
		_, err := io.WriteString(w, b.String())
		return err
	}
}

// table writes aligned columns.
func table(w io.Writer, rows [][]string) error {
	var widths []int
	for _, row := range rows {
		for i, cell := range row[:len(row)-1] {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	b := bufio.NewWriterSize(w, 64<<10)
	for _, row := range rows {
		owed := 0 // nothing is written behind the last cell that says something
		for i, cell := range row {
			if cell != "" {
				for ; owed > 0; owed-- {
					_ = b.WriteByte(' ') // an error comes again at the end
				}
				_, _ = b.WriteString(cell)
			}
			if i < len(widths) {
				owed += widths[i] + gap - utf8.RuneCountInString(cell)
			}
		}
		_ = b.WriteByte('\n')
	}
	return b.Flush()
}

func whole(rows [][]string, _ int) [][]string { return rows }

// lastColumn is the least that a folded column has.
const lastColumn = 16

// folded breaks the last column between words, over as many lines as it needs, so that all fits; a word that is longer stays.
func folded(rows [][]string, wide int) [][]string {
	last := len(rows[0]) - 1
	widths := make([]int, last)
	for _, row := range rows {
		for i := range widths {
			widths[i] = max(widths[i], utf8.RuneCountInString(row[i]))
		}
	}
	room := wide - sum(widths) - last*gap
	if room < lastColumn {
		return rows
	}
	var out [][]string
	for _, row := range rows {
		first, rest := fold(row[last], room)
		out = append(out, append(append([]string(nil), row[:last]...), first))
		for rest != "" {
			first, rest = fold(rest, room)
			out = append(out, append(make([]string, last), first))
		}
	}
	return out
}

// fold cuts off a text as much as fits.
func fold(text string, room int) (line, rest string) {
	line, rest, _ = strings.Cut(text, " ")
	for rest != "" {
		word, after, _ := strings.Cut(rest, " ")
		if utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > room {
			break
		}
		line, rest = line+" "+word, after
	}
	return line, rest
}
