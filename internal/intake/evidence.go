package intake

import (
	"path"
	"strings"

	"slipway/internal/batch"
)

// disagrees joins a batch file's name and the node whose batch it is.
const disagrees = ".disagrees-"

// Evidence is where a replica puts its own batch in the cache's store, when the cache holds another one under its number and its
// own verifies.
func Evidence(b *batch.Batch, node string) string {
	return "refused/" + path.Base(b.Path()) + disagrees + node
}

// EvidenceOf returns whose evidence a file in refused/ is.
func EvidenceOf(name string) (node string, ok bool) {
	_, node, ok = strings.Cut(path.Base(name), ".batch"+disagrees)
	return node, ok && node != ""
}

// Is tells whether a digest is that of the batch, or of the one that it stands for.
func Is(b *batch.Batch, d batch.Digest) bool { return d == b.Digest || d == link(b) }
