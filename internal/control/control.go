// Package control is what a daemon answers on the unix socket in its state directory and leaves in status.json beside it:
// the rows of the JSON contract (docs/commands.md), and both ends of the socket.
//
// After a crash: status.json is the last whole answer written, an interval old at the crash or a little more, and a stale
// socket file may lie there, which the next daemon replaces. Nothing here is ever needed to recover.
package control

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// Stage is how far a change has come.
type Stage int

// The stages in order.
const (
	Pending Stage = iota
	Sealed
	Replicated
	Cached
	Stored
	Verified
)

var stageNames = [...]string{"pending", "sealed", "replicated", "cached", "stored", "verified"}

// String returns the stage's word.
func (s Stage) String() string {
	if s < Pending || s > Verified {
		return fmt.Sprintf("stage %d", int(s))
	}
	return stageNames[s]
}

// ParseStage reads a stage's word.
func ParseStage(word string) (Stage, error) {
	for i, name := range stageNames {
		if word == name {
			return Stage(i), nil
		}
	}
	return 0, fmt.Errorf("%q is not a stage: %s", word, strings.Join(stageNames[:], ", "))
}

// What Status.Daemon says.
const (
	Running      = "running"
	NotAnswering = "not answering"
	Dead         = "dead"
)

// Status is `slipway status --json`. On a cache host Journal, Pending and Sender are zero and there is one Status a volume.
type Status struct {
	Volume    string        `json:"volume"`
	Node      string        `json:"node"`
	Role      string        `json:"role"` // "primary", "cache", "peer"
	Epoch     uint32        `json:"epoch"`
	Sender    SenderStatus  `json:"sender"`
	Journal   JournalStatus `json:"journal"`
	Pending   PendingStatus `json:"pending"`
	HeadBatch uint64        `json:"head_batch"`
	Complete  bool          `json:"complete"`
	Waiting   string        `json:"waiting,omitempty"` // adoption or gap: how many directories are unchecked
	Spool     SpoolStatus   `json:"spool"`
	Stores    []StoreStatus `json:"stores"`
	Copies    int           `json:"copies,omitempty"`   // on backup hosts, that make a batch stored; 0: not known here
	Fsyncs    *FsyncStatus  `json:"fsyncs,omitempty"`   // of a primary with `durability:`
	Warm      *WarmStatus   `json:"warm,omitempty"`     // of a replica peer that keeps a warm tree
	Drills    []Drill       `json:"drills,omitempty"`   // the last one of each backup host
	Warnings  []string      `json:"warnings,omitempty"` // in words, with what to do
	Alarms    []Alarm       `json:"alarms,omitempty"`   // what of that, and what else, hooks tell of
	Config    *ConfigStatus `json:"config,omitempty"`
	SwitchOff *SwitchOff    `json:"switch_off,omitempty"`
	At        time.Time     `json:"at"`
	Stale     bool          `json:"stale"`  // the daemon did not answer: read from disk, as of At
	Daemon    string        `json:"daemon"` // Running, NotAnswering or Dead
}

// ConfigStatus says which configuration is in force.
type ConfigStatus struct {
	LoadedAt time.Time `json:"loaded_at"`
	Error    string    `json:"error,omitempty"` // why a newer one is not
}

// SwitchOff says whether anything would be lost if the node were switched off now and never came back.
type SwitchOff struct {
	Safe bool   `json:"safe"`
	Why  string `json:"why"`
}

// SenderStatus says who sends, and how far it is with the batch on its way.
type SenderStatus struct {
	Node    string   `json:"node"`
	Term    uint32   `json:"term"`
	State   string   `json:"state"`             // what the sender does, as far as is known here: "idle", "sending", "error"
	Here    string   `json:"here,omitempty"`    // this node's part: "standby", "waiting", "returning", "claiming", "sending"
	Reason  string   `json:"reason,omitempty"`  // why that node sends
	Prefer  string   `json:"prefer,omitempty"`  // pinned by the operator
	Avoid   []string `json:"avoid,omitempty"`   // drained by the operator
	Trouble string   `json:"trouble,omitempty"` // why the sender does not get on, in words
	Batch   uint64   `json:"batch,omitempty"`   // on its way
	Shards  int      `json:"shards,omitempty"`  // delivered, of those that travel with it
	Of      int      `json:"of,omitempty"`
	Rate    float64  `json:"rate,omitempty"` // bytes a second
}

// JournalStatus holds byte positions in the journal's present instance.
type JournalStatus struct {
	Head   int64 `json:"head"`
	Sealed int64 `json:"sealed"`
	Gaps   int   `json:"gaps"`
}

// PendingStatus counts what is not sealed.
type PendingStatus struct {
	Files         int64   `json:"files"`
	Bytes         int64   `json:"bytes"`
	OldestSeconds float64 `json:"oldest_seconds"`
}

// SpoolStatus is the node's own store.
type SpoolStatus struct {
	Bytes int64 `json:"bytes"`
	Cap   int64 `json:"cap"`
}

// FsyncStatus counts the fsyncs that wait for a stage.
type FsyncStatus struct {
	Waiting  int `json:"waiting"`
	TimedOut int `json:"timed_out"` // since the spooler started: answered with EIO
}

// WarmStatus says how far a warm tree is.
type WarmStatus struct {
	Batch uint64 `json:"batch"`           // that the directory is equal to; 0: none yet
	Error string `json:"error,omitempty"` // why it is not at the newest complete batch, or not whole, in words
}

// Drill is how the restore of a sample from one backup host went.
type Drill struct {
	Store   string    `json:"store"`
	At      time.Time `json:"at"`
	Passed  bool      `json:"passed"`
	Seconds float64   `json:"seconds"`
	Files   int64     `json:"files"`
	Bytes   int64     `json:"bytes"`
	Batch   uint64    `json:"batch"`             // newest complete one that the host has
	Problem string    `json:"problem,omitempty"` // the first one, in words
}

// StoreStatus is one store.
type StoreStatus struct {
	Name       string  `json:"name"`
	Kind       string  `json:"kind"` // "own", "replica", "cache", "backup"
	URL        string  `json:"url"`
	Batch      uint64  `json:"batch"`
	LagBatches int64   `json:"lag_batches"`
	LagSeconds float64 `json:"lag_seconds"`
	LagFiles   int64   `json:"lag_files,omitempty"` // changed in the batches that it lacks; 0 also where that is not known
	LagBytes   int64   `json:"lag_bytes,omitempty"` // of these files; on a cache host of the batches and their shards
	Rate       float64 `json:"rate,omitempty"`      // bytes a second that it confirms now
	State      string  `json:"state"`               // "ok", "sending", "waiting", "down", "full", "refused", "unchecked"
	Error      string  `json:"error"`
	WaitsFor   string  `json:"waits_for,omitempty"` // of one that is waiting: for what, in words
}

// BatchRow is a line of `spool ls --json`.
type BatchRow struct {
	Volume   string    `json:"volume"`
	Epoch    uint32    `json:"epoch"`
	Seq      uint64    `json:"seq"`
	SealedAt time.Time `json:"sealed_at"`
	Files    int64     `json:"files"`
	Bytes    int64     `json:"bytes"`
	Shards   int       `json:"shards"`
	Stage    string    `json:"stage"`
	Copies   int       `json:"copies"`
	Stores   []string  `json:"stores,omitempty"` // that hold it, as far as is known here: "vault1"
	Held     bool      `json:"held,omitempty"`   // by an operator: it does not go to the backup hosts
}

// PendingRow is a line of `spool pending --json`. A path that is not valid UTF-8 has path_b64 beside it.
type PendingRow struct {
	Path    string    `json:"path"`
	State   string    `json:"state"`
	Since   time.Time `json:"since"`
	Bytes   int64     `json:"bytes"`
	Writers int       `json:"writers"`
	Why     string    `json:"why,omitempty"` // in words: what it waits for, or "excluded by line N of the configuration"
}

// Explained is `explain --json`. A path that is not valid UTF-8 has path_b64 beside it.
type Explained struct {
	Path       string   `json:"path"`
	Stage      string   `json:"stage"`
	Batch      uint64   `json:"batch"`
	Copies     int      `json:"copies"`
	WaitingFor string   `json:"waiting_for"`
	ETASeconds *float64 `json:"eta_seconds"`

	Below  string     `json:"below,omitempty"`  // of a directory: why not all below it is sealed, in words
	Stores []string   `json:"stores,omitempty"` // that have the batch: replica peers, the cache, backup hosts
	Since  *time.Time `json:"since,omitempty"`  // pending: of the first change that is not sealed; else when it was sealed

	Reached  []Reached    `json:"reached,omitempty"`  // when its batch came to each stage and store, oldest first, as far as is known
	Versions []VersionRow `json:"versions,omitempty"` // with an identity: what was sealed at the path, oldest first
}

// Reached says when a batch came to a stage.
type Reached struct {
	Stage string    `json:"stage"`
	Store string    `json:"store,omitempty"` // "": this node
	At    time.Time `json:"at"`
}

// ListRow is a line of `ls --json`. Names that are not valid UTF-8 have path_b64 or target_b64 beside them.
type ListRow struct {
	Path   string    `json:"path"` // relative to the volume
	Type   string    `json:"type"` // "file", "dir", "symlink", "fifo", "socket", "char", "block"
	Mode   uint32    `json:"mode"` // permission bits with suid, sgid and sticky
	UID    uint32    `json:"uid"`
	GID    uint32    `json:"gid"`
	Size   int64     `json:"size"`
	Mtime  time.Time `json:"mtime"`
	Links  int       `json:"links"` // names in the volume; 0: not known
	Target string    `json:"target,omitempty"`
	Batch  uint64    `json:"batch,omitempty"` // that last changed it, where it is known
	State  string    `json:"state,omitempty"` // "pending", "unclean", "earlier", "damaged", "excluded", "unsearched"
	Why    string    `json:"why,omitempty"`   // of "excluded" and "unsearched", in words
}

// Lister is a Reporter that can list a directory of the volume as last sealed.
type Lister interface {
	// List returns the entries of a directory in byte order (recursive: everything below it), or the one row of anything
	// else; fs.ErrNotExist.
	List(ctx context.Context, path string, recursive bool) ([]ListRow, error)
}

// TypeOf returns the word for the type in an st_mode.
func TypeOf(mode uint32) string {
	switch mode & 0o170000 {
	case 0o040000:
		return "dir"
	case 0o120000:
		return "symlink"
	case 0o010000:
		return "fifo"
	case 0o140000:
		return "socket"
	case 0o020000:
		return "char"
	case 0o060000:
		return "block"
	}
	return "file"
}

// Barrier is what `wait` asks: has everything changed below Paths before Mark been sealed, and how far is it?
type Barrier struct {
	Paths []string `json:"-"` // relative to the volume; empty: everything. Sent outside the JSON, which cannot carry every name.
	// Mark is given by the daemon on the first call and handed back on the following ones.
	Mark   string `json:"mark"`
	Sealed bool   `json:"sealed"`
	Seq    uint64 `json:"seq"`    // the batch that covers it, once sealed
	Stage  string `json:"stage"`  // of that batch
	Copies int    `json:"copies"` // backup hosts that acknowledged it
	Need   int    `json:"need"`   // the cache's `copies`
	Why    string `json:"why"`    // what it waits for, in words
}

// Reporter is what a daemon implements. Its methods are called from several goroutines at once.
type Reporter interface {
	Status(ctx context.Context) ([]Status, error)
	Batches(ctx context.Context, volume string, from uint64, limit int) ([]BatchRow, error)
	Pending(ctx context.Context, limit int) ([]PendingRow, error)
	Explain(ctx context.Context, path string) (Explained, error)
	// Barrier may wait up to BarrierWait for news before it answers; ctx ends when the asker has gone.
	Barrier(ctx context.Context, b Barrier) (Barrier, error)
	// Do is an operator's word: "ship" (now), …
	Do(ctx context.Context, verb, arg string) error
}

// BarrierWait is how long a Barrier call may wait for news.
const BarrierWait = 5 * time.Second
