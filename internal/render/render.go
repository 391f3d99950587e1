// Package render turns the rows of the JSON contract into what people read: tables, the status screen, progress bars. What it
// writes may change with any release; the JSON may not.
//
// It keeps nothing, so a crash leaves nothing.
package render

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/term"

	"slipway/internal/config"
	"slipway/internal/control"
	"slipway/internal/initialise"
)

// JSON writes rows as JSON lines.
func JSON[T any](w io.Writer, rows ...T) error {
	b := bufio.NewWriter(w)
	e := json.NewEncoder(b)
	e.SetEscapeHTML(false)
	for _, row := range rows {
		if err := e.Encode(row); err != nil {
			return err
		}
	}
	return b.Flush()
}

// Name returns a file name that can do no harm to a terminal or a table: quoted if anything in it is not plain text.
func Name(s string) string {
	plain := utf8.ValidString(s) && !strings.HasPrefix(s, `"`)
	for _, r := range s {
		plain = plain && unicode.IsPrint(r)
	}
	if plain {
		return s
	}
	return strconv.Quote(s)
}

// Terminal tells whether w is a terminal.
func Terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

func when(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05") }

func minute(t time.Time) string { return t.Local().Format("2006-01-02 15:04") }

func seconds(s float64) string { return config.FormatDuration(time.Duration(s * float64(time.Second))) }

// Batches writes `spool ls`; a narrow terminal does without what `spool show` says as well.
var Batches = tables(
	layout[control.BatchRow]{func(b control.BatchRow) []string {
		return []string{
			strconv.FormatUint(b.Seq, 10), strconv.FormatUint(uint64(b.Epoch), 10), when(b.SealedAt), strconv.FormatInt(b.Files, 10),
			config.FormatSize(b.Bytes), strconv.Itoa(b.Shards), b.Stage, strconv.Itoa(b.Copies), holders(b),
		}
	}, []string{"BATCH", "EPOCH", "SEALED", "FILES", "BYTES", "SHARDS", "STAGE", "COPIES", "IN"}},
	layout[control.BatchRow]{func(b control.BatchRow) []string {
		return []string{
			strconv.FormatUint(b.Seq, 10), minute(b.SealedAt), strconv.FormatInt(b.Files, 10), config.FormatSize(b.Bytes), b.Stage, strconv.Itoa(b.Copies), holders(b),
		}
	}, []string{"BATCH", "SEALED", "FILES", "BYTES", "STAGE", "COPIES", "IN"}},
)

func holders(b control.BatchRow) string {
	stores := b.Stores
	if b.Held {
		stores = append(slices.Clone(stores), "(held)")
	}
	return strings.Join(stores, " ")
}

// Pending writes `spool pending`.
var Pending = tables(
	layout[control.PendingRow]{func(p control.PendingRow) []string {
		return []string{p.State, when(p.Since), config.FormatSize(p.Bytes), strconv.Itoa(p.Writers), Name(p.Path), p.Why}
	}, []string{"STATE", "SINCE", "BYTES", "WRITERS", "PATH", ""}},
	layout[control.PendingRow]{func(p control.PendingRow) []string {
		return []string{p.State, minute(p.Since), config.FormatSize(p.Bytes), Name(p.Path), p.Why}
	}, []string{"STATE", "SINCE", "BYTES", "PATH", ""}},
)

// Explained writes `explain`.
func Explained(w io.Writer, e control.Explained) error {
	path := Name(e.Path)
	if path == "" {
		path = ". (the volume's own directory)"
	}
	rows := [][]string{{"path", path}, {"stage", e.Stage}}
	if e.Batch > 0 {
		rows = append(rows, []string{"batch", strconv.FormatUint(e.Batch, 10)}, []string{"copies", strconv.Itoa(e.Copies)})
	}
	if len(e.Stores) > 0 {
		rows = append(rows, []string{"in", strings.Join(e.Stores, " ")})
	}
	for _, r := range e.Reached {
		rows = append(rows, []string{r.Stage, strings.TrimSpace(when(r.At) + " " + r.Store)})
	}
	if e.Since != nil && len(e.Reached) == 0 {
		rows = append(rows, []string{"since", when(*e.Since)})
	}
	if e.WaitingFor != "" {
		rows = append(rows, []string{"waiting for", strings.TrimPrefix(e.WaitingFor, "waits for ")})
	}
	if e.Below != "" {
		rows = append(rows, []string{"below it", "not all is sealed: " + e.Below})
	}
	if e.ETASeconds != nil {
		rows = append(rows, []string{"expected in", seconds(*e.ETASeconds)})
	}
	if len(e.Versions) == 0 && e.Batch > 0 {
		rows = append(rows, []string{"versions", "sealed: with --identity FILE they are listed"})
	}
	if err := table(w, rows); err != nil || len(e.Versions) == 0 {
		return err
	}
	if _, err := fmt.Fprintln(w); err != nil {
		return err
	}
	return Versions(w, e.Versions)
}

// Init writes what init made.
func Init(w io.Writer, r *initialise.Result) error {
	rows := [][]string{
		{"volume", r.Volume + " (" + r.VolumeID + ")"}, {"configuration", r.Config}, {"state", r.State},
		{"node key", r.NodeKey}, {"owner", r.Node + " " + r.PublicKey},
		{"identity", r.Identity}, {"recipient", r.Recipient},
	}
	var b strings.Builder
	if err := table(&b, rows); err != nil {
		return err
	}
	for _, s := range r.Warnings {
		fmt.Fprintf(&b, "\nwarning: %s\n", s)
	}
	fmt.Fprintln(&b, "\nnext:")
	for i, s := range r.Next {
		fmt.Fprintf(&b, "  %d. %s\n", i+1, s)
	}
	_, err := io.WriteString(w, b.String())
	return err
}
