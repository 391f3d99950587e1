// Package batchlist remembers of each batch in a store what listings show, so that a store with ten thousand batches is listed
// without opening ten thousand files. A row is believed only while the batch's file is the one it was read from: same size, same
// change time.
//
// It is a cache, and nothing else depends on it: written without fsync, each row with a checksum. After a crash, or without
// the file, what is missing or torn is read from the batches again.
package batchlist

import (
	"cmp"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"slipway/internal/batch"
)

// Row is what a listing shows of a batch.
type Row struct {
	Epoch    batch.Epoch
	Seq      batch.Seq
	SealedAt time.Time
	Files    int64
	Bytes    int64
	Shards   int
}

// RowOf takes it from an envelope.
func RowOf(e *batch.Envelope) Row {
	return Row{e.Epoch, e.Last, e.SealedAt, e.Counts.Files, e.Counts.Bytes, len(e.Introduces)}
}

// Path is where the rows of a volume lie in the directory in which a daemon remembers volumes.
func Path(volumes, volume string) string { return filepath.Join(volumes, volume+".rows") }

// List is the rows from one number to another. It belongs to one goroutine.
type List struct {
	path    string // of the remembered rows
	dir     string // the volume's directory in the store
	first   batch.Seq
	rows    []byte
	changed bool

	sub string   // of dir: where the last batch's file lies
	at  *os.File // sub, open: a name looked up in it costs half of what a whole path does; nil: it is not there
}

// rowSize is the length of a row; row n lies at n times that.
const rowSize = 64

// most rows are remembered at once: more are read from the batches, as if nothing were remembered.
const most = 1 << 20

// Open reads what is remembered of batches first to last; that may be nothing. dir is the volume's directory in the store.
func Open(path, dir string, first, last batch.Seq) *List {
	l := &List{path: path, dir: dir, first: first}
	if last < first || last-first >= most {
		return l
	}
	l.rows = make([]byte, (last-first+1)*rowSize)
	f, err := os.Open(path)
	if err != nil {
		return l // there is nothing yet
	}
	_, _ = f.ReadAt(l.rows, int64(first)*rowSize) // what is behind the end stays zero, which no row is
	_ = f.Close()
	return l
}

// Row returns a batch's row: as remembered, or else from load, which reads the batch.
func (l *List) Row(e batch.Epoch, seq batch.Seq, load func() (*batch.Envelope, error)) (Row, error) {
	var place []byte
	var size, changed int64
	if at := (seq - l.first) * rowSize; seq >= l.first && int(at) < len(l.rows) {
		if st, err := l.stat(batch.Path(e, seq, seq)); err == nil {
			place, size, changed = l.rows[at:at+rowSize], st.Size, st.Ctim.Nano()
		}
	}
	if r, ok := decode(place, size, changed); ok && r.Epoch == e && r.Seq == seq {
		return r, nil
	}
	env, err := load()
	if err != nil {
		return Row{}, err
	}
	r := RowOf(env)
	if place != nil {
		encode(place, r, size, changed)
		l.changed = true
	}
	return r, nil
}

func (l *List) stat(name string) (st unix.Stat_t, err error) {
	sub, base := path.Split(name)
	if sub != l.sub {
		l.leave()
		l.sub = sub
		l.at, err = os.OpenFile(filepath.Join(l.dir, sub), unix.O_PATH|unix.O_DIRECTORY, 0)
	}
	if l.at == nil {
		return st, cmp.Or(err, fs.ErrNotExist)
	}
	err = unix.Fstatat(int(l.at.Fd()), base, &st, unix.AT_SYMLINK_NOFOLLOW)
	return st, err
}

func (l *List) leave() {
	if l.at != nil {
		_ = l.at.Close() // nothing was read through it
		l.at = nil
	}
}

// Close remembers what was read. Who may not write there, or cannot, has lost nothing but time.
func (l *List) Close() {
	l.leave()
	if !l.changed {
		return
	}
	f, err := os.OpenFile(l.path, os.O_WRONLY|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return
	}
	_, err = f.WriteAt(l.rows, int64(l.first)*rowSize)
	_ = errors.Join(err, f.Close()) // a row that is not whole has a wrong checksum
}

// encode writes a row: CRC-32C of what follows, epoch and number, size and change time of its file, then what is shown, shards last.
func encode(b []byte, r Row, size, changed int64) {
	le := binary.LittleEndian
	le.PutUint32(b[4:], uint32(r.Epoch))
	for i, n := range []uint64{uint64(r.Seq), uint64(size), uint64(changed), uint64(r.SealedAt.UnixNano()), uint64(r.Files), uint64(r.Bytes), uint64(r.Shards)} {
		le.PutUint64(b[8+8*i:], n)
	}
	le.PutUint32(b, crc32.Checksum(b[4:rowSize], castagnoli))
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func decode(b []byte, size, changed int64) (r Row, ok bool) {
	le := binary.LittleEndian
	if b == nil || le.Uint32(b) != crc32.Checksum(b[4:rowSize], castagnoli) {
		return r, false
	}
	at := func(i int) uint64 { return le.Uint64(b[8+8*i:]) }
	r = Row{batch.Epoch(le.Uint32(b[4:])), batch.Seq(at(0)), time.Unix(0, int64(at(3))).UTC(), int64(at(4)), int64(at(5)), int(at(6))}
	return r, int64(at(1)) == size && int64(at(2)) == changed
}
