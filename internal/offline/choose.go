package offline

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"slipway/internal/control"
)

// BatchChoice says which batches are wanted, and in which order. The zero value: all, as they come.
type BatchChoice struct {
	Volume  string
	Stage   string // "": any
	Held    bool   // only those that an operator holds
	Sort    string // "": by number
	Reverse bool
	Limit   int // the first so many; 0: all
}

var batchOrders = map[string]func(a, b control.BatchRow) int{
	"":       func(control.BatchRow, control.BatchRow) int { return 0 },
	"age":    func(a, b control.BatchRow) int { return a.SealedAt.Compare(b.SealedAt) },
	"size":   func(a, b control.BatchRow) int { return cmp.Compare(b.Bytes, a.Bytes) },
	"files":  func(a, b control.BatchRow) int { return cmp.Compare(b.Files, a.Files) },
	"copies": func(a, b control.BatchRow) int { return cmp.Compare(a.Copies, b.Copies) },
	"stage":  func(a, b control.BatchRow) int { return cmp.Compare(rank(a.Stage), rank(b.Stage)) },
}

// rank is a stage's place among the stages; what is none comes first.
func rank(word string) control.Stage {
	s, err := control.ParseStage(word)
	if err != nil {
		return -1
	}
	return s
}

// Check tells what cannot be chosen.
func (c BatchChoice) Check() error {
	if c.Stage != "" {
		if _, err := control.ParseStage(c.Stage); err != nil {
			return err
		}
	}
	return checkOrder(batchOrders, c.Sort)
}

// Of returns the rows that were chosen, in the order asked for: sizes and files the largest first, the rest the smallest.
func (c BatchChoice) Of(rows []control.BatchRow) []control.BatchRow {
	rows = slices.DeleteFunc(slices.Clone(rows), func(r control.BatchRow) bool {
		return c.Volume != "" && r.Volume != c.Volume || c.Stage != "" && r.Stage != c.Stage || c.Held && !r.Held
	})
	return arrange(rows, batchOrders[c.Sort], c.Reverse, c.Limit)
}

// PendingChoice says which pending files are wanted, and in which order. The zero value: all, by path.
type PendingChoice struct {
	State   string // "": any
	Under   string // a path of the volume; "": all of it
	Sort    string // "": by path
	Reverse bool
	Limit   int
}

var pendingOrders = map[string]func(a, b control.PendingRow) int{
	"":     func(control.PendingRow, control.PendingRow) int { return 0 },
	"age":  func(a, b control.PendingRow) int { return a.Since.Compare(b.Since) },
	"size": func(a, b control.PendingRow) int { return cmp.Compare(b.Bytes, a.Bytes) },
}

// Check tells what cannot be chosen.
func (c PendingChoice) Check() error { return checkOrder(pendingOrders, c.Sort) }

// Of returns the rows that were chosen, in the order asked for: the oldest, or the largest, first.
func (c PendingChoice) Of(rows []control.PendingRow) []control.PendingRow {
	rows = slices.DeleteFunc(slices.Clone(rows), func(r control.PendingRow) bool {
		below := c.Under == "" || r.Path == c.Under || strings.HasPrefix(r.Path, c.Under+"/")
		return c.State != "" && r.State != c.State || !below
	})
	return arrange(rows, pendingOrders[c.Sort], c.Reverse, c.Limit)
}

func arrange[T any](rows []T, order func(a, b T) int, reverse bool, limit int) []T {
	slices.SortStableFunc(rows, order)
	if reverse {
		slices.Reverse(rows)
	}
	if limit > 0 && len(rows) > limit {
		rows = rows[:limit]
	}
	return rows
}

func checkOrder[T any](orders map[string]T, word string) error {
	if _, ok := orders[word]; ok {
		return nil
	}
	words := slices.DeleteFunc(slices.Sorted(maps.Keys(orders)), func(s string) bool { return s == "" })
	return fmt.Errorf("%q is not an order: %s", word, strings.Join(words, ", "))
}
