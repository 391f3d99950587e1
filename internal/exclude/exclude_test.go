package exclude

import (
	"errors"
	"strings"
	"testing"
)

// The expectations are what `git check-ignore -v --no-index` says to the same list in .gitignore.
func TestMatch(t *testing.T) {
	for _, tc := range []struct {
		patterns string // separated by |
		path     string // with a slash behind a directory
		line     int    // 0: not excluded
	}{
		{"*.o", "a.o", 1}, {"*.o", "x/y/a.o", 1}, {"*.o", "a.oo", 0}, {"*.o", ".o", 1},
		{"/a.o", "a.o", 1}, {"/a.o", "x/a.o", 0},
		{"x/a.o", "x/a.o", 1}, {"x/a.o", "y/x/a.o", 0}, {"x/*.o", "x/y/a.o", 0},
		{"build/", "build/", 1}, {"build/", "build", 0}, {"build/", "x/build/", 1}, {"build/", "build/deep/file", 1},
		{"/build/", "x/build/", 0}, {"x/build/", "x/build/", 1}, {"x/build/", "y/x/build/", 0},
		{"build", "build", 1}, {"build", "x/build/f", 1},
		{"**/a", "a", 1}, {"**/a", "x/y/a", 1}, {"**/a/b", "x/a/b", 1}, {"**/a/b", "a/x/b", 0},
		{"a/**", "a/x", 1}, {"a/**", "a/x/y", 1}, {"a/**", "a/", 0}, {"a/**", "b/a/x", 0},
		{"a/**/b", "a/b", 1}, {"a/**/b", "a/x/b", 1}, {"a/**/b", "a/x/y/b", 1}, {"a/**/b", "ab", 0}, {"a/**/b", "c/a/b", 0},
		{"**", "a", 1}, {"a**b", "axxb", 1}, {"a**b", "x/ab", 1}, {"x/a**b", "x/a/b", 0},
		{"?", "a", 1}, {"?", "ab", 0}, {"x?y", "x/y", 0},
		{"[a-c]x", "bx", 1}, {"[a-c]x", "dx", 0}, {"[!a-c]x", "dx", 1}, {"[^a-c]x", "bx", 0}, {"x[!y]z", "x/z", 0},
		{"[]]x", "]x", 1}, {"[]-]x", "-x", 1}, {"[a-]x", "-x", 1}, {`[\]]x`, "]x", 1}, {"[[:digit:]]x", "7x", 1}, {"[[:alpha:]_]x", "_x", 1}, {"[[:upper:]]x", "ax", 0},
		{"*.o|!keep.o", "keep.o", 0}, {"*.o|!keep.o", "a.o", 1}, {"!keep.o|*.o", "keep.o", 2},
		{"build/|!build/keep", "build/keep", 1}, {"build/*|!build/keep", "build/keep", 0}, {"build/*|!build/keep", "build/x", 1},
		{"/*|!/src/|/src/*|!/src/main", "src/main", 0}, {"/*|!/src/|/src/*|!/src/main", "src/test", 3}, {"/*|!/src/", "docs/x", 1},
		{"# comment||*.o", "a.o", 3}, {`\#x`, "#x", 1}, {`\!x`, "!x", 1}, {"a ", "a", 1}, {`a\ `, "a ", 1}, {`a\ `, "a", 0}, {"a \r", "a", 1},
		{`\a`, "a", 1}, {`\*`, "*", 1}, {`\*`, "x", 0},
		{"/", "a", 0}, {"!", "a", 0}, {"*", "a/", 1}, {"a//b", "a/b", 0},
		{"\xff*", "\xffx", 1}, {"?", "\xff", 1}, {"caf?", "café", 0}, {"café", "café", 1},
	} {
		x, err := New(strings.Split(tc.patterns, "|"))
		if err != nil {
			t.Errorf("%q: %v", tc.patterns, err)
			continue
		}
		line, excluded := x.Match(strings.TrimSuffix(tc.path, "/"), strings.HasSuffix(tc.path, "/"))
		if line != tc.line || excluded != (tc.line > 0) {
			t.Errorf("%q on %q: line %d, %v; want line %d", tc.patterns, tc.path, line, excluded, tc.line)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	for pattern, want := range map[string]error{
		"[a":        errOpenClass,
		"x/[":       errOpenClass,
		"[]":        errOpenClass,
		`[a\`:       errOpenClass,
		`a\`:        errOpenQuote,
		"[[:alpha:": errOpenClass,
	} {
		_, err := New([]string{"ok", pattern})
		if !errors.Is(err, want) {
			t.Errorf("%q: %v, want %v", pattern, err, want)
		} else if !strings.Contains(err.Error(), "pattern 2 ") {
			t.Errorf("%q: error does not say which one: %v", pattern, err)
		}
	}
}

func TestNothing(t *testing.T) {
	for _, list := range [][]string{nil, {}, {"# only", "", "  "}} {
		x, err := New(list)
		if err != nil || x != nil {
			t.Fatalf("%q: %v, %v", list, x, err)
		}
		if _, excluded := x.Match("a", false); excluded || x.Digest() != "" {
			t.Fatalf("%q excludes something", list)
		}
	}
}

func TestExcludeDigest(t *testing.T) {
	a, err := New([]string{"a", "b"})
	if err != nil {
		t.Fatal(err)
	}
	b, err := New([]string{"b", "a"})
	if err != nil {
		t.Fatal(err)
	}
	if a.Digest() == "" || a.Digest() == b.Digest() {
		t.Fatalf("digests %q and %q of different lists", a.Digest(), b.Digest())
	}
}

// Nothing that a list or a name may hold hangs or panics.
func FuzzExclude(f *testing.F) {
	for _, s := range []string{"*.o", "a/**/b", "[!a-z]/", `\`, "[[:x:]]", "**a**/**", "!"} {
		f.Add(s, "a/b.o")
	}
	f.Fuzz(func(_ *testing.T, pattern, path string) {
		if len(pattern) > 64 || len(path) > 256 {
			return // stars cost length to their power, and an operator writes the patterns
		}
		x, err := New([]string{pattern})
		if err == nil {
			x.Match(path, false)
			x.Match(path, true)
		}
	})
}
