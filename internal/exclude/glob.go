package exclude

import (
	"errors"
	"strings"
)

// Patterns that git takes and that never match anything: a typing error in a configuration should be told.
var (
	errOpenClass = errors.New("[ without its ]")
	errOpenQuote = errors.New(`\ at the end quotes nothing`)
)

// checkGlob refuses patterns that can never match.
func checkGlob(g string) error {
	for i := 0; i < len(g); i++ {
		switch g[i] {
		case '\\':
			if i+1 == len(g) {
				return errOpenQuote
			}
			i++
		case '[':
			_, rest, ok := classMatch(g[i+1:], 0)
			if !ok {
				return errOpenClass
			}
			i = len(g) - len(rest) - 1
		}
	}
	return nil
}

// globMatch is git's wildmatch for path names, byte by byte: "*", "?" and classes never match a slash, "**" between slashes or
// at an end matches any number of components.
func globMatch(g, s string) bool {
	for first := true; g != ""; first = false {
		switch g[0] {
		case '*':
			return starMatch(g, s, first)
		case '?':
			if s == "" || s[0] == '/' {
				return false
			}
			g, s = g[1:], s[1:]
		case '[':
			if s == "" || s[0] == '/' {
				return false
			}
			in, rest, ok := classMatch(g[1:], s[0])
			if !ok || !in {
				return false
			}
			g, s = rest, s[1:]
		case '/':
			if s == "" || s[0] != '/' {
				return false
			}
			g, s = g[1:], s[1:]
			if strings.HasPrefix(g, "**") {
				return starMatch(g, s, true)
			}
		default:
			c := g[0]
			if c == '\\' && len(g) > 1 {
				g = g[1:]
				c = g[0]
			}
			if s == "" || s[0] != c {
				return false
			}
			g, s = g[1:], s[1:]
		}
	}
	return s == ""
}

// starMatch matches g, which begins with a star; component tells that the star stands at the beginning of a component.
func starMatch(g, s string, component bool) bool {
	stars := len(g) - len(strings.TrimLeft(g, "*"))
	rest := g[stars:]
	if stars == 2 && component {
		switch {
		case rest == "":
			return s != "" // everything below
		case rest[0] == '/':
			return deepMatch(rest[1:], s)
		}
	}
	for {
		if globMatch(rest, s) {
			return true
		}
		if s == "" || s[0] == '/' {
			return false
		}
		s = s[1:]
	}
}

// deepMatch tries g at s and behind every slash of it.
func deepMatch(g, s string) bool {
	for {
		if globMatch(g, s) {
			return true
		}
		i := strings.IndexByte(s, '/')
		if i < 0 {
			return false
		}
		s = s[i+1:]
	}
}

// classMatch matches c against the class whose text behind the "[" is g; ok is false when it does not end.
func classMatch(g string, c byte) (in bool, rest string, ok bool) {
	negated := g != "" && (g[0] == '!' || g[0] == '^')
	if negated {
		g = g[1:]
	}
	for first := true; g != "" && (first || g[0] != ']'); first = false {
		var lo byte
		if strings.HasPrefix(g, "[:") {
			name, after, found := strings.Cut(g[2:], ":]")
			if !found {
				return false, "", false
			}
			in = in || namedClass(name, c)
			g = after
			continue
		}
		if lo, g, ok = classByte(g); !ok {
			return false, "", false
		}
		hi := lo
		if len(g) >= 2 && g[0] == '-' && g[1] != ']' {
			if hi, g, ok = classByte(g[1:]); !ok {
				return false, "", false
			}
		}
		in = in || (lo <= c && c <= hi)
	}
	if g == "" {
		return false, "", false
	}
	return in != negated, g[1:], true
}

// classByte takes one byte of a class, quoted or not.
func classByte(g string) (byte, string, bool) {
	if g[0] != '\\' {
		return g[0], g[1:], true
	}
	if len(g) < 2 {
		return 0, "", false
	}
	return g[1], g[2:], true
}

func namedClass(name string, c byte) bool {
	lower, upper := 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z'
	digit := '0' <= c && c <= '9'
	graph := 0x21 <= c && c <= 0x7e
	switch name {
	case "alpha":
		return lower || upper
	case "digit":
		return digit
	case "alnum":
		return lower || upper || digit
	case "lower":
		return lower
	case "upper":
		return upper
	case "xdigit":
		return digit || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
	case "blank":
		return c == ' ' || c == '\t'
	case "space":
		return c == ' ' || '\t' <= c && c <= '\r'
	case "cntrl":
		return c < 0x20 || c == 0x7f
	case "graph":
		return graph
	case "print":
		return graph || c == ' '
	case "punct":
		return graph && !lower && !upper && !digit
	}
	return false
}
