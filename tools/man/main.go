// Command man makes slipway's man pages: one for each command, of what `slipway commands` prints, and those that are documents of docs/ anyway. A page
// has no date, so that the same sources give the same bytes. Every page is written whole or not at all; what an interrupted run left is overwritten by
// the next one.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: slipway commands | man DOCS DIR")
		os.Exit(2)
	}
	if err := run(os.Stdin, os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "man:", err)
		os.Exit(1)
	}
}

// document is a page that is a document, or a part of one.
type document struct {
	name, section, short string
	file                 string
	from, to             string // headings: the first of the part, and the one that is no more of it; empty: the file's beginning, its end
	also                 string
}

var documents = []document{
	{name: "slipway.yml", section: "5", short: "configuration of slipway", file: "commands.md", from: "## Configuration", also: "slipway(1), slipway-config-check(1), slipway-init(1)"},
	{name: "slipway-format", section: "7", short: "what slipway leaves in a store, byte by byte", file: "format.md", also: "slipway(1), slipway-verify(1), age(1), zstd(1)"},
	{name: "mount.fuse.slipway", section: "8", short: "helper of mount(8) for slipway's volumes", file: "commands.md", from: "### mount(8) and fstab", to: "## Exit codes",
		also: "mount(8), fstab(5), slipway-mount(1), slipway.yml(5)"},
}

func run(commands io.Reader, docs, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make man pages: %w", err)
	}
	list, err := readCommands(commands)
	if err != nil {
		return fmt.Errorf("read the commands: %w", err)
	}
	for _, c := range list {
		if err := write(dir, c.page(), "1", c.render()); err != nil {
			return err
		}
	}
	for _, d := range documents {
		text, err := d.render(docs)
		if err == nil {
			err = write(dir, d.name, d.section, text)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func write(dir, name, section, text string) error {
	path := filepath.Join(dir, name+"."+section)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		return fmt.Errorf("write man page: %w", err)
	}
	return nil
}

func readCommands(r io.Reader) (list []command, err error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var c command
		if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
			return nil, err
		}
		list = append(list, c)
	}
	if len(list) == 0 && lines.Err() == nil {
		return nil, io.ErrUnexpectedEOF
	}
	return list, lines.Err()
}

// render makes the page of a document's part.
func (d document) render(docs string) (string, error) {
	data, err := os.ReadFile(filepath.Join(docs, d.file))
	if err != nil {
		return "", fmt.Errorf("make page %s(%s): %w", d.name, d.section, err)
	}
	text := string(data)
	if d.from != "" {
		_, after, found := strings.Cut(text, "\n"+d.from+"\n")
		if !found {
			return "", fmt.Errorf("make page %s(%s): %s has no %q", d.name, d.section, d.file, d.from)
		}
		text = after
	}
	if d.to != "" {
		before, _, found := strings.Cut(text, "\n"+d.to+"\n")
		if !found {
			return "", fmt.Errorf("make page %s(%s): %s has no %q", d.name, d.section, d.file, d.to)
		}
		text = before
	}
	return head(d.name, d.section, d.short) + ".SH DESCRIPTION\n" + markdown(text) + seeAlso(d.also), nil
}

// head begins a page.
func head(name, section, short string) string {
	return fmt.Sprintf(".TH %q %q \"\" \"slipway\" \"slipway\"\n.SH NAME\n%s \\- %s\n", strings.ToUpper(name), section, escape(name), escape(short))
}

func seeAlso(pages string) string { return ".SH SEE ALSO\n" + escape(pages) + "\n" }
