package main

import (
	"fmt"
	"regexp"
	"strings"
)

// markdown turns what the documents use of Markdown into roff: headings, paragraphs, lists, tables, code. The rows of a table become paragraphs of their own:
// cells that hold sentences fit no terminal side by side.
func markdown(text string) string {
	var b strings.Builder
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	for i := 0; i < len(lines); {
		n := 1
		switch l := lines[i]; {
		case strings.TrimSpace(l) == "":
		case strings.HasPrefix(l, "# "): // the document's own title, which the page has already
		case strings.HasPrefix(l, "#"):
			_, title, _ := strings.Cut(l, " ")
			macro := ".SS"
			if strings.HasPrefix(l, "## ") {
				macro, title = ".SH", strings.ToUpper(title)
			}
			b.WriteString(macro + " " + inline(title) + "\n")
		case strings.HasPrefix(l, "```"):
			n = 1 + until(lines[i+1:], func(s string) bool { return strings.HasPrefix(s, "```") })
			b.WriteString(verbatim(lines[i+1 : i+n]))
			n++
		case strings.HasPrefix(l, "  ") && !isItem(l):
			n = until(lines[i:], func(s string) bool { return !strings.HasPrefix(s, "  ") })
			b.WriteString(verbatim(lines[i : i+n]))
		case strings.HasPrefix(l, "|"):
			n = until(lines[i:], func(s string) bool { return !strings.HasPrefix(s, "|") })
			b.WriteString(table(lines[i : i+n]))
		case isItem(l):
			n = 1 + until(lines[i+1:], func(s string) bool { return !strings.HasPrefix(s, "  ") || isItem(s) })
			b.WriteString(".IP \\(bu 2\n" + line(inline(item.ReplaceAllString(joined(lines[i:i+n]), ""))))
		default:
			n = 1 + until(lines[i+1:], func(s string) bool {
				return strings.TrimSpace(s) == "" || strings.HasPrefix(s, "|") || strings.HasPrefix(s, "```") || isItem(s)
			})
			b.WriteString(".PP\n" + line(inline(joined(lines[i:i+n]))))
		}
		i += n
	}
	return b.String()
}

var (
	item   = regexp.MustCompile(`^\s*([-*]|\d+\.) `)
	marked = regexp.MustCompile("``(.+?)``|`([^`]+)`|\\*\\*(.+?)\\*\\*|\\*([^* ][^*]*)\\*|\\[([^\\]]+)\\]\\([^)]*\\)")
)

func isItem(l string) bool { return item.MatchString(l) }

// until is how many lines come before the first that ends something.
func until(lines []string, ends func(string) bool) int {
	for i, l := range lines {
		if ends(l) {
			return i
		}
	}
	return len(lines)
}

func joined(lines []string) string {
	return strings.Join(strings.Fields(strings.Join(lines, " ")), " ")
}

// table makes a paragraph of each row. A column without a heading at the end of it is the text, and the others are named; else the second is the text.
func table(rows []string) string {
	var b strings.Builder
	heads := cells(rows[0])
	text := 1
	if last := len(heads) - 1; heads[last] == "" {
		text = last
		b.WriteString(".SS " + inline(heads[0]) + "\n")
	}
	for _, row := range rows[min(2, len(rows)):] {
		var said, parts []string
		list := cells(row)
		for i := 1; i < len(list); i++ {
			part := inline(list[i])
			if part == "" {
				continue
			}
			if i != text && i < len(heads) && heads[i] != "" {
				parts = append(parts, inline(heads[i])+": "+part)
			} else {
				said = append(said, part)
			}
		}
		b.WriteString(".TP\n" + line("\\fB"+escape(plain(list[0]))+"\\fP") + line(strings.Join(append(said, parts...), ". ")))
	}
	return b.String()
}

// cells takes a table's row apart; a bar in a cell is written \|.
func cells(row string) []string {
	list := strings.Split(strings.ReplaceAll(strings.Trim(strings.TrimSpace(row), "|"), `\|`, "\x00"), "|")
	for i, c := range list {
		list[i] = strings.TrimSpace(strings.ReplaceAll(c, "\x00", "|"))
	}
	return list
}

// plain takes the marks out.
func plain(s string) string {
	return marked.ReplaceAllStringFunc(s, func(m string) string {
		sub := marked.FindStringSubmatch(m)
		return strings.Join(sub[1:], "")
	})
}

// inline turns marks within a line into fonts.
func inline(s string) string {
	var b strings.Builder
	at := 0
	for _, m := range marked.FindAllStringSubmatchIndex(s, -1) {
		b.WriteString(escape(s[at:m[0]]))
		for group, font := range []string{"B", "B", "B", "I", ""} {
			from, to := m[2+2*group], m[3+2*group]
			switch {
			case from < 0:
			case font == "":
				b.WriteString(inline(s[from:to]))
			default:
				fmt.Fprintf(&b, "\\f%s%s\\fP", font, escape(s[from:to]))
			}
		}
		at = m[1]
	}
	return b.String() + escape(s[at:])
}

// escape lets roff take text for text.
func escape(s string) string {
	return strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(s)
}

// line is one line of running text: what begins with a dot or an apostrophe would be a request.
func line(s string) string {
	if strings.HasPrefix(s, ".") || strings.HasPrefix(s, "'") {
		s = `\&` + s
	}
	return s + "\n"
}

// verbatim keeps lines as they are.
func verbatim(lines []string) string {
	var b strings.Builder
	b.WriteString(".PP\n.nf\n")
	for _, l := range lines {
		b.WriteString(line(escape(l)))
	}
	b.WriteString(".fi\n")
	return b.String()
}
