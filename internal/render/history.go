package render

import (
	"strconv"
	"strings"

	"slipway/internal/control"
)

// Versions writes `versions`.
var Versions = Table(func(v control.VersionRow) []string {
	size := strconv.FormatInt(v.File.Size, 10)
	if v.Change == "gone" {
		size = ""
	}
	return []string{strconv.FormatUint(v.Batch, 10), when(v.SealedAt), v.Change, letters(v.File), size, when(v.File.Mtime), v.File.State}
}, "BATCH", "SEALED", "CHANGE", "MODE", "SIZE", "MODIFIED", "")

// Found writes `find`.
var Found = Table(func(f control.FoundRow) []string {
	until := "is there"
	if f.Until != nil {
		until = "gone in batch " + strconv.FormatUint(f.UntilBatch, 10) + ", " + when(*f.Until)
	}
	if f.MovedTo != "" {
		until = "moved to " + Name(f.MovedTo) + " in batch " + strconv.FormatUint(f.UntilBatch, 10)
	}
	return []string{Name(f.File.Path), strconv.FormatInt(f.File.Size, 10), strconv.FormatUint(f.SinceBatch, 10), when(f.Since), until}
}, "PATH", "SIZE", "SINCE", "SEALED", "")

// Differences writes `diff`.
var Differences = Table(func(d control.DiffRow) []string {
	sign := map[string]string{"added": "+", "removed": "-", "moved": ">", "changed": "M"}[d.Change]
	name := Name(d.Path)
	if d.From != "" {
		name = Name(d.From) + " -> " + name
	}
	size := func(r *control.ListRow) string {
		if r == nil || r.Type != "file" {
			return ""
		}
		return strconv.FormatInt(r.Size, 10)
	}
	return []string{sign, name, strings.Join(d.What, ", "), size(d.Before), size(d.After)}
}, "", "PATH", "WHAT", "BEFORE", "AFTER")
