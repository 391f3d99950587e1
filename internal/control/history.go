package control

import "time"

// VersionRow is a line of `versions --json`.
type VersionRow struct {
	Epoch    uint32    `json:"epoch"`
	Batch    uint64    `json:"batch"`
	SealedAt time.Time `json:"sealed_at"`
	Change   string    `json:"change"` // "created", "content", "attributes", "replaced", "gone"
	File     ListRow   `json:"file"`   // gone: as it was before
}

// FoundRow is a line of `find --json`.
type FoundRow struct {
	File       ListRow    `json:"file"`
	SinceBatch uint64     `json:"since_batch"`
	Since      time.Time  `json:"since"`
	UntilBatch uint64     `json:"until_batch,omitempty"` // the batch that does not have it any more
	Until      *time.Time `json:"until,omitempty"`
	MovedTo    string     `json:"moved_to,omitempty"` // gone: where the same file is
	MovedToB64 []byte     `json:"moved_to_b64,omitempty"`
}

// DiffRow is a line of `diff --json`.
type DiffRow struct {
	Path    string   `json:"path"`
	PathB64 []byte   `json:"path_b64,omitempty"`
	Change  string   `json:"change"` // "added", "removed", "moved", "changed"
	From    string   `json:"from,omitempty"`
	FromB64 []byte   `json:"from_b64,omitempty"`
	What    []string `json:"what,omitempty"`
	Before  *ListRow `json:"before,omitempty"`
	After   *ListRow `json:"after,omitempty"`
}
