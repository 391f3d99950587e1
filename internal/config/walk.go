package config

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// document is a configuration file being read: its syntax tree is walked by readers, and every fault is noted with its
// place instead of ending the walk, so that all of them are told at once.
type document struct {
	faults   Faults
	at       map[string]*token.Token // dotted path of each key seen → its value, for checks across keys
	warnings []string
}

// reader takes one value from the syntax tree. path is the value's dotted path.
type reader func(d *document, n ast.Node, path string)

// field is a key of a mapping.
type field struct {
	key      string
	read     reader
	required string // what to write when the key is missing; "" where it may be
}

// open parses the file's syntax; nil for the root when there is nothing to walk.
func open(path string, data []byte) (*document, ast.Node) {
	d := &document{at: map[string]*token.Token{}}
	d.faults.Path = path
	d.faults.lines = strings.Split(strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(string(data)), "\n") // as the parser counts them
	file, err := parser.ParseBytes(data, 0, parser.AllowDuplicateMapKey())
	var syntax *yaml.SyntaxError
	switch {
	case errors.As(err, &syntax):
		d.fault(syntax.Token, "mend the YAML", "%s", syntax.Message)
		return d, nil
	case err != nil:
		d.fault(nil, "mend the YAML", "%v", err)
		return d, nil
	case len(file.Docs) == 0 || file.Docs[0].Body == nil:
		d.fault(nil, "`slipway init` writes one", "the configuration is empty")
		return d, nil
	case len(file.Docs) > 1:
		d.fault(place(file.Docs[1].Body), "give each role or volume a file of its own", "a second YAML document")
	}
	return d, file.Docs[0].Body
}

func (d *document) fault(at *token.Token, fix, format string, args ...any) {
	f := Fault{Message: fmt.Sprintf(format, args...), Fix: fix}
	if at != nil && at.Position != nil {
		f.Line, f.Column = at.Position.Line, at.Position.Column
	}
	d.faults.Found = append(d.faults.Found, f)
}

// err returns the faults found, or nil.
func (d *document) err() error {
	if len(d.faults.Found) == 0 {
		return nil
	}
	d.faults.sort()
	return &d.faults
}

// place returns the token where a value begins; a block mapping's own token is its first colon.
func place(n ast.Node) *token.Token {
	if n == nil {
		return nil
	}
	if m, ok := n.(*ast.MappingNode); ok && !m.IsFlowStyle && len(m.Values) > 0 {
		return m.Values[0].Key.GetToken()
	}
	return n.GetToken()
}

// object reads a mapping with these keys and no others.
func object(fields ...field) reader {
	return func(d *document, n ast.Node, path string) {
		m, ok := n.(*ast.MappingNode)
		if !ok {
			d.wrong(n, path, "a mapping of keys to values")
			return
		}
		seen := map[string]*token.Token{}
		for _, v := range m.Values {
			d.member(v, path, fields, seen)
		}
		for _, f := range fields {
			if f.required != "" && seen[f.key] == nil {
				d.fault(place(n), "add "+f.required, "%s is missing", quoted(join(path, f.key)))
			}
		}
	}
}

func (d *document) member(v *ast.MappingValueNode, path string, fields []field, seen map[string]*token.Token) {
	key := v.Key.GetToken()
	if before := seen[key.Value]; before != nil {
		d.fault(key, "keep one of the two", "key %q stands here a second time, first in line %d", key.Value, before.Position.Line)
		return
	}
	seen[key.Value] = key
	known := make([]string, 0, len(fields))
	for _, f := range fields {
		if f.key != key.Value {
			known = append(known, f.key)
			continue
		}
		here := join(path, f.key)
		d.at[here] = place(v.Value)
		if _, null := v.Value.(*ast.NullNode); null {
			d.at[here] = key
			d.fault(key, "give it a value, or remove the line", "key %q has no value", key.Value)
			return
		}
		f.read(d, v.Value, here)
		return
	}
	fix := "remove it; known here: " + strings.Join(known, ", ")
	if guess := closest(key.Value, known); guess != "" {
		fix = fmt.Sprintf("did you mean %q?", guess)
	}
	d.fault(key, fix, "unknown key %s", quoted(join(path, key.Value)))
}

// list reads a sequence; item returns the reader of one new element.
func list[T any](dst *[]T, item func(*T) reader) reader {
	return func(d *document, n ast.Node, path string) {
		s, ok := n.(*ast.SequenceNode)
		if !ok {
			d.wrong(n, path, "a list")
			return
		}
		*dst = make([]T, len(s.Values))
		for i, v := range s.Values {
			here := fmt.Sprintf("%s[%d]", path, i)
			d.at[here] = place(v)
			item(&(*dst)[i])(d, v, here)
		}
	}
}

// scalar returns the text of a plain value; false (and a fault) for mappings, lists and what this dialect leaves out.
func (d *document) scalar(n ast.Node, path, want string) (string, bool) {
	switch n := n.(type) {
	case *ast.StringNode:
		return n.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		return n.GetToken().Value, true
	case *ast.LiteralNode:
		return strings.TrimSuffix(n.Value.Value, "\n"), true
	}
	d.wrong(n, path, want)
	return "", false
}

func (d *document) wrong(n ast.Node, path, want string) {
	got := "something else"
	switch n.(type) {
	case *ast.MappingNode:
		got = "a mapping"
	case *ast.SequenceNode:
		got = "a list"
	case *ast.StringNode, *ast.LiteralNode:
		got = "a text"
	case *ast.IntegerNode, *ast.FloatNode:
		got = "a number"
	case *ast.BoolNode:
		got = "true or false"
	case *ast.NullNode:
		got = "nothing"
	case *ast.AliasNode, *ast.AnchorNode, *ast.TagNode, *ast.MergeKeyNode:
		d.fault(place(n), "write the value itself", "anchors, aliases and tags are not part of this configuration")
		return
	}
	d.fault(place(n), "write "+want, "%s is %s, not %s", quoted(path), got, want)
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

func quoted(path string) string { return strconv.Quote(path) }
