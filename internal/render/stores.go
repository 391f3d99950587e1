package render

import (
	"fmt"
	"io"
	"io/fs"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize/english"

	"slipway/internal/access"
	"slipway/internal/config"
	"slipway/internal/control"
	"slipway/internal/restore"
	"slipway/internal/restore/verify"
)

// Restored is what a restore did.
type Restored struct {
	Tree   *restore.Tree
	Result *restore.Result
	DryRun bool
	Took   time.Duration
}

// notice is a line about one path.
type notice struct {
	MessageType string `json:"message_type"` // "kept", "earlier", "unclean", "error", "incomplete", "note", "fault"
	Path        string `json:"path"`
	PathB64     []byte `json:"path_b64,omitempty"`
	Problem     string `json:"problem"`
}

func (r Restored) notices() []notice {
	var list []notice
	add := func(kind, path, problem string) {
		n := notice{MessageType: kind, Path: path, Problem: problem}
		if strings.ToValidUTF8(path, "") != path {
			n.PathB64 = []byte(path)
		}
		list = append(list, n)
	}
	for _, p := range r.Result.Kept {
		add("kept", p, "exists and differs: kept; --overwrite replaces it (a directory only when it is empty)")
	}
	for _, p := range r.Result.Earlier {
		add("earlier", p, "was being written when it was sealed: its last clean content is there")
	}
	for _, p := range r.Result.Unclean {
		add("unclean", p, "was being written when it was sealed, and there is no clean content")
	}
	for _, f := range r.Result.Failed {
		add("error", f.Path, f.Err.Error())
	}
	for _, s := range r.Tree.Incomplete {
		add("incomplete", "", s)
	}
	for _, s := range r.Tree.Notes {
		add("note", "", s)
	}
	for _, f := range r.Tree.Faults() {
		add("fault", f.Store+"/"+f.Object, f.Err.Error())
	}
	return list
}

// JSON writes a line for each notice and a summary.
func (r Restored) JSON(w io.Writer) error {
	if err := JSON(w, r.notices()...); err != nil {
		return err
	}
	return JSON(w, struct {
		MessageType string    `json:"message_type"`
		Volume      string    `json:"volume"`
		Epoch       uint32    `json:"epoch"`
		Batch       uint64    `json:"batch"`
		SealedAt    time.Time `json:"sealed_at"`
		Files       int64     `json:"files"`
		Bytes       int64     `json:"bytes"`
		Same        int64     `json:"same"`
		Skipped     int64     `json:"skipped"`
		Kept        int       `json:"kept"`
		Earlier     int       `json:"earlier"`
		Unclean     int       `json:"unclean"`
		Failed      int       `json:"failed"`
		Complete    bool      `json:"complete"`
		DryRun      bool      `json:"dry_run"`
		Seconds     float64   `json:"seconds"`
	}{
		"summary", r.Tree.Volume, r.Tree.Epoch, r.Tree.Seq, r.Tree.SealedAt, r.Result.Files, r.Result.Bytes, r.Result.Same, r.Result.Skipped,
		len(r.Result.Kept), len(r.Result.Earlier), len(r.Result.Unclean), len(r.Result.Failed), len(r.Tree.Incomplete) == 0, r.DryRun, r.Took.Seconds(),
	})
}

// Text writes the same for people.
func (r Restored) Text(w io.Writer) error {
	var b strings.Builder
	for _, n := range r.notices() {
		path := ""
		if n.Path != "" {
			path = Name(n.Path) + ": "
		}
		fmt.Fprintf(&b, "%s: %s%s\n", n.MessageType, path, n.Problem)
	}
	verb := "restored"
	if r.DryRun {
		verb = "would restore"
	}
	fmt.Fprintf(&b, "%s %s, %s in %s; %d were there and equal\n%s of batch %d, epoch %d, sealed %s\n",
		verb, english.Plural(int(r.Result.Files), "file", ""), config.FormatSize(r.Result.Bytes), config.FormatDuration(r.Took), r.Result.Same,
		r.Tree.Volume, r.Tree.Seq, r.Tree.Epoch, when(r.Tree.SealedAt))
	_, err := io.WriteString(w, b.String())
	return err
}

// Listing writes `ls`.
func Listing(w io.Writer, list []control.ListRow) error {
	var rows [][]string
	for _, r := range list {
		name := Name(r.Path)
		if r.Type == "symlink" {
			name += " -> " + Name(r.Target)
		}
		state := r.State
		if r.Why != "" {
			state = r.Why
		}
		rows = append(rows, []string{
			letters(r), fmt.Sprintf("%d:%d", r.UID, r.GID), strconv.FormatInt(r.Size, 10), when(r.Mtime), name, state,
		})
	}
	return table(w, rows)
}

func letters(r control.ListRow) string {
	first := map[string]string{"dir": "d", "symlink": "l", "fifo": "p", "socket": "s", "char": "c", "block": "b"}[r.Type]
	if first == "" {
		first = "-"
	}
	bits := []byte(first + fs.FileMode(r.Mode & 0o777).String()[1:])
	for i, special := range []struct {
		bit  uint32
		sign byte
	}{{0o4000, 's'}, {0o2000, 's'}, {0o1000, 't'}} {
		at := 3 * (i + 1)
		if r.Mode&special.bit == 0 {
			continue
		}
		if bits[at] == '-' {
			special.sign -= 'a' - 'A' // set, and the execute bit below it is not
		}
		bits[at] = special.sign
	}
	return string(bits)
}

// Batch writes `spool show`.
func Batch(w io.Writer, b *access.Shown) error {
	rows := [][]string{
		{"batch", fmt.Sprintf("%d, epoch %d", b.Last, b.Epoch)}, {"volume", fmt.Sprintf("%s (%s)", b.Volume, b.VolumeID)}, {"node", b.Node},
		{"sealed", when(b.SealedAt)}, {"digest", b.Digest.String()},
		{"changes", fmt.Sprintf("%s, %s, %s", english.Plural(int(b.Counts.Files), "file", ""), config.FormatSize(b.Counts.Bytes), english.Plural(int(b.Counts.Removals), "removal", ""))},
		{"complete", strconv.FormatBool(b.Complete) + " " + b.Why}, {"base", strconv.FormatUint(uint64(b.Base), 10)},
		{"file", config.FormatSize(b.Size)}, {"signature", "good, by " + ownerOf(b)},
	}
	if b.Stage != "" {
		rows = append(rows, []string{"stage", fmt.Sprintf("%s, %s on backup hosts", b.Stage, english.Plural(b.Copies, "copy", ""))}, []string{"in", strings.Join(b.Stores, " ")})
	}
	if b.Held {
		rows = append(rows, []string{"held", fmt.Sprintf("by an operator: slipway spool release %d", b.Last)})
	}
	for _, o := range b.Introduces {
		rows = append(rows, []string{"shard", o.Digest.String() + " " + config.FormatSize(o.Size)})
	}
	for _, o := range b.Abandons {
		rows = append(rows, []string{"abandons", o.Digest.String()})
	}
	files := fmt.Sprintf("slipway diff --at %d --to %d --identity FILE", b.First-1, b.Last)
	if b.First == 1 {
		files = fmt.Sprintf("slipway ls -r --at %d --identity FILE", b.Last)
	}
	return table(w, append(rows, []string{"its files", "sealed: `" + files + "` lists them"}))
}

func ownerOf(b *access.Shown) string {
	if b.Named {
		return b.OwnerKey
	}
	return b.OwnerKey + ", whom this node's configuration does not name"
}

// Verified is what a verification of one store came to.
type Verified struct {
	Store, Volume string
	DataRead      bool
	*verify.Report
}

// JSON writes a line for each finding and a summary.
func (v Verified) JSON(w io.Writer) error {
	for _, f := range v.Findings {
		err := JSON(w, struct {
			MessageType string `json:"message_type"`
			Store       string `json:"store"`
			Object      string `json:"object"`
			Problem     string `json:"problem"`
		}{"finding", v.Store, f.Object, f.Err.Error()})
		if err != nil {
			return err
		}
	}
	return JSON(w, struct {
		MessageType string `json:"message_type"`
		Store       string `json:"store"`
		Volume      string `json:"volume"`
		Batches     int64  `json:"batches"`
		Shards      int64  `json:"shards"`
		Bytes       int64  `json:"bytes"` // read and compared
		DataRead    bool   `json:"data_read"`
		Evicted     int64  `json:"evicted"`
		Findings    int    `json:"findings"`
		Unpinned    string `json:"unpinned_owner,omitempty"` // nobody said who may own the volume: the key that the oldest batch names
	}{"summary", v.Store, v.Volume, v.Batches, v.Shards, v.Bytes, v.DataRead, v.Evicted, len(v.Findings), v.Owner})
}

// Text writes the same for people.
func (v Verified) Text(w io.Writer) error {
	var b strings.Builder
	for _, f := range v.Findings {
		fmt.Fprintf(&b, "%s: %s: %v\n", v.Store, Name(f.Object), f.Err)
	}
	if v.Owner != "" {
		fmt.Fprintf(&b, "%s: no owner's key was given; signatures are by %s, which the store itself names\n", v.Store, v.Owner)
	}
	read := "sizes looked at"
	if v.DataRead {
		read = config.FormatSize(v.Bytes) + " read"
	}
	fmt.Fprintf(&b, "%s: volume %s, %s, %s, %s, %d evicted; %s\n",
		v.Store, v.Volume, english.Plural(int(v.Batches), "batch", ""), english.Plural(int(v.Shards), "shard", ""), read, v.Evicted,
		english.Plural(len(v.Findings), "finding", ""))
	_, err := io.WriteString(w, b.String())
	return err
}

// Branches writes `spool branches`.
func Branches(w io.Writer, list []access.BranchRow) error {
	if len(list) == 0 {
		_, err := fmt.Fprintln(w, "nothing is beside the main line")
		return err
	}
	return branches(w, list)
}

var branches = Table(func(b access.BranchRow) []string {
	return []string{
		strconv.FormatUint(uint64(b.Epoch), 10), b.Node, fmt.Sprintf("%d-%d", b.First, b.Last), when(b.SealedAt), strconv.FormatInt(b.Files, 10),
		config.FormatSize(b.Bytes), strings.Join(b.Stores, ", "), fmt.Sprintf("restore --epoch %d", b.Epoch),
	}
}, "EPOCH", "NODE", "BATCHES", "SEALED", "FILES", "BYTES", "STORES", "BROUGHT BACK BY")
