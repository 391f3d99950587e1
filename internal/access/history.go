package access

import (
	"slipway/internal/control"
	"slipway/internal/restore"
)

// VersionRows are the rows of `versions`.
func VersionRows(list []restore.Version) []control.VersionRow {
	rows := make([]control.VersionRow, len(list))
	for i, v := range list {
		rows[i] = control.VersionRow{Epoch: uint32(v.Epoch), Batch: uint64(v.Seq), SealedAt: v.SealedAt, Change: v.Change, File: row(v.Row)}
	}
	return rows
}

// FoundRows are the rows of `find`.
func FoundRows(list []restore.Found) []control.FoundRow {
	rows := make([]control.FoundRow, len(list))
	for i, f := range list {
		rows[i] = control.FoundRow{File: row(f.Row), SinceBatch: uint64(f.Since.Seq), Since: f.Since.SealedAt, MovedTo: f.To, MovedToB64: control.Lossless(f.To)}
		if f.Until.Seq > 0 {
			rows[i].UntilBatch, rows[i].Until = uint64(f.Until.Seq), &f.Until.SealedAt
		}
	}
	return rows
}

// DiffRows are the rows of `diff`.
func DiffRows(list []restore.Difference) []control.DiffRow {
	rows := make([]control.DiffRow, len(list))
	for i, d := range list {
		rows[i] = control.DiffRow{Path: d.Path, PathB64: control.Lossless(d.Path), Change: d.Change, From: d.From, FromB64: control.Lossless(d.From), What: d.What}
		if d.Before != nil {
			r := row(*d.Before)
			rows[i].Before = &r
		}
		if d.After != nil {
			r := row(*d.After)
			rows[i].After = &r
		}
	}
	return rows
}
