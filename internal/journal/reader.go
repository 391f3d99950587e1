package journal

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// readAhead is how much a reader reads at once.
const readAhead = 256 << 10

// Reader reads records in order across files and instances. One goroutine at a time uses it.
type Reader struct {
	dir      string
	instance instance // zero: none was there yet
	instDir  string
	seed     uint32
	lock     *os.File
	dead     bool // the instance's writer has ended

	file  *os.File
	start int64  // record bytes before file
	at    int64  // record bytes before the next record
	final bool   // file gets no more bytes: whoever says so has looked before the last read
	gap   string // a gap to tell before the next record
	buf   []byte // bytes of file from at on
	mem   []byte // what buf is a part of
}

// OpenReader starts at from (zero: at the oldest instance there is). ErrLost if from is not there: the caller starts again
// at the zero position and treats it as a gap.
func OpenReader(dir string, from Position) (*Reader, error) {
	r := &Reader{dir: dir}
	var err error
	if !from.IsZero() {
		err = r.seek(from)
	} else {
		_, err = r.nextInstance()
	}
	if err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

// Next returns the next record and the position after it. ErrWait as above. A torn tail of a dead instance is passed over,
// and an OpGap record is made up for it. A damaged record or header likewise gives an OpGap, and reading goes on at the next
// whole record of the file, at the next file, or at the next instance. After another error the caller may try again.
func (r *Reader) Next() (Record, Position, error) {
	for {
		if r.file == nil {
			found, err := r.nextInstance()
			if err != nil {
				return Record{}, Position{}, err
			}
			if !found {
				return Record{}, Position{}, ErrWait
			}
		}
		if r.gap != "" {
			return r.tellGap()
		}
		rec, err := r.parse()
		switch {
		case err == nil:
			return rec, r.position(), nil
		case errors.Is(err, errDamaged):
			err = r.skip()
		case errors.Is(err, errShort):
			err = r.moveOn()
		}
		if err != nil {
			return Record{}, Position{}, err
		}
	}
}

func (r *Reader) position() Position {
	return Position{Serial: r.instance.serial, Instance: r.instance.id, Offset: r.at}
}

func (r *Reader) tellGap() (Record, Position, error) {
	rec := Record{Op: OpGap, Name: r.gap}
	r.gap = ""
	return rec, r.position(), nil
}

// parse takes the record at r.at. errShort leaves what there is of it in r.buf.
func (r *Reader) parse() (Record, error) {
	rec, n, err := decodeFrame(r.buf, r.seed)
	if errors.Is(err, errShort) {
		if err := r.fill(); err != nil {
			return Record{}, err
		}
		rec, n, err = decodeFrame(r.buf, r.seed)
	}
	if err != nil {
		return Record{}, err
	}
	r.buf = r.buf[n:]
	r.at += int64(n)
	return rec, nil
}

// fill reads anew from r.at on, at least a whole record where there is one.
func (r *Reader) fill() error {
	b, err := r.read(r.at)
	r.buf = b
	return err
}

func (r *Reader) read(at int64) ([]byte, error) {
	if r.mem == nil {
		r.mem = make([]byte, readAhead)
	}
	n, err := r.file.ReadAt(r.mem, headerSize+at-r.start)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read journal: %w", err)
	}
	return r.mem[:n], nil
}

// skip passes over a damaged place: to the next whole record of the file, else to the end of what it holds now.
func (r *Reader) skip() error {
	r.buf = nil
	for at := r.at; ; {
		b, err := r.read(at)
		if err != nil {
			return err
		}
		i := findFrame(b, r.seed)
		if i < 0 && len(b) == readAhead {
			at += readAhead - maxFrame + 1 // the next one may begin in here
			continue
		}
		if i < 0 {
			i = len(b)
		}
		r.at, r.gap = at+int64(i), "damaged record"
		return nil
	}
}

// moveOn is called where the file holds no further whole record: nil if there is something to do elsewhere, or a second look
// is due, ErrWait if not.
func (r *Reader) moveOn() error {
	files, err := starts(r.instDir)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("go on in journal instance %s: %w", r.instance.name(), ErrLost)
		}
		return err
	}
	next := int64(-1)
	for _, s := range files {
		if s > r.start {
			next = s
			break
		}
	}
	if !r.final {
		return r.finish(next >= 0)
	}
	if len(r.buf) > 0 {
		r.at += int64(len(r.buf))
		r.gap, r.buf = "torn record", nil
		return nil
	}
	if next >= 0 {
		return r.nextFile(next)
	}
	found, err := r.nextInstance()
	if err == nil && !found {
		err = ErrWait
	}
	return err
}

// finish finds out whether the file is complete: another follows it, or its writer has ended. What came between the last
// read and now is read before it counts.
func (r *Reader) finish(followed bool) error {
	if !followed && !r.dead {
		alive, err := isAlive(r.lock)
		if err != nil {
			return err
		}
		if alive {
			return ErrWait
		}
		r.dead = true
	}
	r.final = true
	return nil
}

// fileEnd returns the position behind the last byte of the present file.
func (r *Reader) fileEnd() (int64, error) {
	info, err := r.file.Stat()
	if err != nil {
		return 0, fmt.Errorf("read journal: %w", err)
	}
	return r.start + recordBytes(info.Size()), nil
}

// Watch returns the directories whose changes end an ErrWait: the journal's own and that of the present instance.
func (r *Reader) Watch() []string {
	if r.instance.isZero() {
		return []string{r.dir}
	}
	return []string{r.dir, r.instDir}
}

// Close frees what the reader holds.
func (r *Reader) Close() error {
	var errs []error
	for _, f := range []*os.File{r.file, r.lock} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	r.file, r.lock, r.buf = nil, nil, nil
	return errors.Join(errs...)
}
