package main

import (
	"strings"
	"testing"
)

// TestMarkdown: what the documents use comes out as text, whatever characters it has.
func TestMarkdown(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"paragraph", "one `a-b`\ntwo **bold** [text](x.md)\n", ".PP\none \\fBa\\-b\\fP two \\fBbold\\fP text\n"},
		{"headings", "# Title\n## Part\n### `x`\n", ".SH PART\n.SS \\fBx\\fP\n"},
		{"request", ".dot\n\n'quote\n", ".PP\n\\&.dot\n.PP\n\\&'quote\n"},
		{"list", "- one\n  more\n- two\n", ".IP \\(bu 2\none more\n.IP \\(bu 2\ntwo\n"},
		{"code", "```yaml\n.a: \\n\n```\nend\n", ".PP\n.nf\n\\&.a: \\en\n.fi\n.PP\nend\n"},
		{"indented", "    a  b\n", ".PP\n.nf\n    a  b\n.fi\n"},
		{"table", "| Role | Default | |\n|---|---|---|\n| `a \\| b` | 1 | what |\n", ".SS Role\n.TP\n\\fBa | b\\fP\nwhat. Default: 1\n"},
		{"bare table", "| n | is | by |\n|---|---|---|\n| x | y | z |\n", ".TP\n\\fBx\\fP\ny. by: z\n"},
		{"stars", "2 * 3 * 4, `**`\n", ".PP\n2 * 3 * 4, \\fB**\\fP\n"},
	} {
		if got := markdown(tt.in); got != tt.want {
			t.Errorf("%s:\n%s\nwant\n%s", tt.name, got, tt.want)
		}
	}
}

// TestUnknownPart: a page whose part of a document has been renamed is not made empty.
func TestUnknownPart(t *testing.T) {
	d := document{name: "x", section: "5", file: "markdown.go", from: "## Nothing"}
	if _, err := d.render("."); err == nil || !strings.Contains(err.Error(), "Nothing") {
		t.Error(err)
	}
}
