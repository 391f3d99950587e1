package main

import (
	"fmt"
	"strings"
)

// command is a line of `slipway commands`.
type command struct {
	Path, Use, Short, Long, Example string
	Below                           []string
	Flags                           []struct{ Name, Shorthand, Value, Usage, Default string }
}

// page names a command's page, as git's pages are named: slipway-spool-ls.
func (c command) page() string { return strings.ReplaceAll(c.Path, " ", "-") }

func (c command) render() string {
	var b strings.Builder
	b.WriteString(head(c.page(), "1", strings.ToLower(c.Short[:1])+c.Short[1:]))
	fmt.Fprintf(&b, ".SH SYNOPSIS\n\\fB%s\\fP%s\n", escape(c.Path), escape(strings.TrimPrefix(c.Use, c.Path)))
	text := c.Long
	if text == "" {
		text = c.Short + "."
	}
	b.WriteString(".SH DESCRIPTION\n" + markdown(text))
	if len(c.Below) > 0 {
		b.WriteString(".SH COMMANDS\n")
		for _, path := range c.Below {
			fmt.Fprintf(&b, ".TP\n\\fB%s\\fP\nSee %s(1).\n", escape(path), escape(strings.ReplaceAll(path, " ", "-")))
		}
	}
	if len(c.Flags) > 0 {
		b.WriteString(".SH OPTIONS\n")
	}
	for _, f := range c.Flags {
		b.WriteString(".TP\n")
		if f.Shorthand != "" {
			fmt.Fprintf(&b, "\\fB\\-%s\\fP, ", f.Shorthand)
		}
		fmt.Fprintf(&b, "\\fB\\-\\-%s\\fP", escape(f.Name))
		if f.Value != "" {
			fmt.Fprintf(&b, " \\fI%s\\fP", escape(f.Value))
		}
		usage := f.Usage
		if f.Default != "" {
			usage += " (default " + f.Default + ")"
		}
		b.WriteString("\n" + line(escape(usage)))
	}
	if c.Example != "" {
		b.WriteString(".SH EXAMPLES\n" + verbatim(strings.Split(c.Example, "\n")))
	}
	return b.String() + seeAlso(c.also())
}

func (c command) also() string {
	if c.Path == "slipway" {
		return "slipway.yml(5), slipway-format(7), mount.fuse.slipway(8)"
	}
	parent := c.Path[:strings.LastIndex(c.Path, " ")]
	return strings.ReplaceAll(parent, " ", "-") + "(1), slipway.yml(5)"
}
