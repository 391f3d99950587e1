package config

import (
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/goccy/go-yaml/ast"
)

// text reads a string; check may refuse it by returning what is wrong and the fix.
func text(dst *string, check func(string) (problem, fix string)) reader {
	return func(d *document, n ast.Node, path string) {
		if _, ok := n.(*ast.IntegerNode); ok {
			d.fault(place(n), fmt.Sprintf("write %q", n.GetToken().Value), "%s is a number, not a text", quoted(path))
			return
		}
		s, ok := d.scalar(n, path, "a text")
		if !ok {
			return
		}
		if check != nil {
			if problem, fix := check(s); problem != "" {
				d.fault(place(n), fix, "%s: %s", path, problem)
				return
			}
		}
		*dst = s
	}
}

// number reads a whole number between low and high.
func number(dst *int, low, high int) reader {
	return func(d *document, n ast.Node, path string) {
		s, ok := d.scalar(n, path, "a whole number")
		if !ok {
			return
		}
		v, err := strconv.Atoi(s)
		switch {
		case err != nil:
			d.fault(place(n), fmt.Sprintf("write a whole number from %d to %d", low, high), "%s: %q is not a whole number", path, s)
		case v < low || v > high:
			d.fault(place(n), fmt.Sprintf("write %d to %d", low, high), "%s: %d is out of range", path, v)
		default:
			*dst = v
		}
	}
}

// flag reads true or false.
func flag(dst *bool) reader {
	return func(d *document, n ast.Node, path string) {
		b, ok := n.(*ast.BoolNode)
		if !ok {
			d.wrong(n, path, "true or false")
			return
		}
		*dst = b.Value
	}
}

// bytes reads a size of at least low.
func bytes(dst *int64, low int64) reader {
	return func(d *document, n ast.Node, path string) {
		s, ok := d.scalar(n, path, "a size such as 50GiB")
		if !ok {
			return
		}
		v, err := ParseSize(s)
		switch {
		case err != nil:
			d.fault(place(n), "write a size such as 50GiB", "%s: %v", path, err)
		case v < low:
			d.fault(place(n), "write at least "+FormatSize(low), "%s: %s is too small", path, s)
		default:
			*dst = v
		}
	}
}

// duration reads a duration between low and high.
func duration(dst *time.Duration, low, high time.Duration) reader {
	return func(d *document, n ast.Node, path string) {
		s, ok := d.scalar(n, path, "a duration such as 90s")
		if !ok {
			return
		}
		v, err := ParseDuration(s)
		switch {
		case err != nil:
			d.fault(place(n), "write a duration such as 200ms, 90s, 6h or 14d", "%s: %v", path, err)
		case v < low || v > high:
			fix := fmt.Sprintf("write %s to %s", FormatDuration(low), FormatDuration(high))
			if high == forEver {
				fix = "write at least " + FormatDuration(low)
			}
			d.fault(place(n), fix, "%s: %s is out of range", path, s)
		default:
			*dst = v
		}
	}
}

const forEver = time.Duration(math.MaxInt64)

// optional reads a duration into a pointer, for keys whose absence means something else than zero.
func optional(dst **time.Duration) reader {
	return func(d *document, n ast.Node, path string) {
		var v time.Duration
		before := len(d.faults.Found)
		duration(&v, 0, forEver)(d, n, path)
		if len(d.faults.Found) == before {
			*dst = &v
		}
	}
}
