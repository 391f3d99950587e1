package control

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"slipway/internal/durable"
)

// An unchanged answer is written again only after so many intervals: each write is an fsync on the disk of the journal.
const rewriteAfter = 10

// Serve answers on <state>/control.sock (0660) until ctx ends, and writes <state>/status.json every interval.
func Serve(ctx context.Context, state string, r Reporter, interval time.Duration) error {
	if err := durable.MkdirAll(state, 0o700); err != nil {
		return fmt.Errorf("make state directory: %w", err)
	}
	l, done, err := listen(state)
	if err != nil {
		return err
	}
	defer done()
	group, ctx := errgroup.WithContext(ctx)
	server := &http.Server{
		Handler:           handler(r),
		ReadHeaderTimeout: 5 * time.Second,
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	group.Go(func() error {
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve control socket: %w", err)
		}
		return nil
	})
	group.Go(func() error {
		<-ctx.Done()
		return server.Close()
	})
	group.Go(func() error {
		return keepStatus(ctx, state, r, interval)
	})
	return group.Wait()
}

// lastWord bounds the last look of a daemon that ends.
const lastWord = 2 * time.Second

// keepStatus writes status.json now, every interval, and at the end: that is what will be known of a daemon that has ended. A full disk is no
// reason to end the daemon: the file is then old, and says so.
func keepStatus(ctx context.Context, state string, r Reporter, interval time.Duration) error {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	var k keeper
	for {
		_ = k.step(ctx, state, r, rewriteAfter*interval)
		select {
		case <-ctx.Done():
			last, stop := context.WithTimeout(context.WithoutCancel(ctx), lastWord)
			defer stop()
			_ = k.step(last, state, r, 0)
			return nil
		case <-ticker.C:
		}
	}
}

// keeper remembers what status.json holds.
type keeper struct {
	written []byte
	at      time.Time
}

// step writes status.json if the answer changed, apart from its time, or is older than again.
func (k *keeper) step(ctx context.Context, state string, r Reporter, again time.Duration) error {
	list, err := r.Status(ctx)
	if err != nil {
		return err
	}
	now := time.Now()
	stamps := make([]time.Time, len(list))
	for i := range list {
		stamps[i], list[i].At = list[i].At, time.Time{}
	}
	bare := lines(list)
	if bytes.Equal(bare, k.written) && now.Sub(k.at) < again {
		return nil
	}
	for i := range list {
		list[i].At = stamps[i]
	}
	if err := durable.Overwrite(StatusPath(state), lines(list), 0o640); err != nil {
		return err
	}
	k.written, k.at = bare, now
	return nil
}

func lines[T any](rows []T) []byte {
	var b bytes.Buffer
	if err := encode(&b, rows); err != nil {
		panic(err) // no type of this package can fail to encode
	}
	return b.Bytes()
}

// encode writes rows as JSON lines.
func encode[T any](w io.Writer, rows []T) error {
	b := bufio.NewWriterSize(w, 32<<10)
	e := json.NewEncoder(b)
	e.SetEscapeHTML(false)
	for i := range rows {
		if err := e.Encode(&rows[i]); err != nil {
			return err
		}
	}
	return b.Flush()
}

// failure is the last line of an answer that is not whole.
type failure struct {
	Failure  string `json:"failure"`
	NotExist bool   `json:"not_exist,omitempty"`
}

// server answers for a Reporter.
type server struct{ r Reporter }

func handler(r Reporter) http.Handler {
	s := server{r}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /ping", func(w http.ResponseWriter, _ *http.Request) { answer(w, []struct{}{}, nil) })
	mux.HandleFunc("GET /status", s.status)
	mux.HandleFunc("GET /batches", s.batches)
	mux.HandleFunc("GET /pending", s.pending)
	mux.HandleFunc("GET /explain", s.explain)
	mux.HandleFunc("GET /list", s.list)
	mux.HandleFunc("POST /barrier", s.barrier)
	mux.HandleFunc("POST /durable", s.durable)
	mux.HandleFunc("POST /do", s.do)
	return mux
}

// status asks before the header goes out, so that a daemon that is stuck is found to be silent. All other answers may take
// their time: the header goes out at once and says that somebody is at work.
func (s server) status(w http.ResponseWriter, req *http.Request) {
	rows, err := s.r.Status(req.Context())
	answer(w, rows, err)
}

// batchesAtOnce is how many batches a Reporter is asked for: the asker reads the first while the next are looked up, and they need no memory.
const batchesAtOnce = 500

func (s server) batches(w http.ResponseWriter, req *http.Request) {
	accept(w)
	volume := req.FormValue("volume")
	from, _ := strconv.ParseUint(req.FormValue("from"), 10, 64)
	limit, _ := strconv.Atoi(req.FormValue("limit"))
	if volume == "" { // numbers are a volume's own
		rows, err := s.r.Batches(req.Context(), "", from, limit)
		answer(w, rows, err)
		return
	}
	for sent := 0; ; {
		n := batchesAtOnce
		if limit > 0 {
			n = min(n, limit-sent)
		}
		rows, err := s.r.Batches(req.Context(), volume, from, n)
		sent += len(rows)
		if err != nil || len(rows) < n || sent == limit {
			answer(w, rows, err)
			return
		}
		if encode(w, rows) != nil {
			return // the asker has gone
		}
		from = rows[len(rows)-1].Seq + 1
	}
}

func (s server) pending(w http.ResponseWriter, req *http.Request) {
	accept(w)
	limit, _ := strconv.Atoi(req.FormValue("limit"))
	rows, err := s.r.Pending(req.Context(), limit)
	answer(w, rows, err)
}

func (s server) explain(w http.ResponseWriter, req *http.Request) {
	accept(w)
	path, err := decodePath(req.FormValue("path"))
	var e Explained
	if err == nil {
		e, err = s.r.Explain(req.Context(), path)
	}
	answer(w, []Explained{e}, err)
}

func (s server) list(w http.ResponseWriter, req *http.Request) {
	accept(w)
	path, err := decodePath(req.FormValue("path"))
	var rows []ListRow
	if l, ok := s.r.(Lister); !ok {
		err = errNoTree
	} else if err == nil {
		rows, err = l.List(req.Context(), path, req.FormValue("recursive") == "true")
	}
	answer(w, rows, err)
}

func (s server) barrier(w http.ResponseWriter, req *http.Request) {
	b, err := readBarrier(req)
	accept(w) // not before the body is read: the header would close it
	if err == nil {
		b, err = s.r.Barrier(req.Context(), b)
	}
	answer(w, []Barrier{b}, err)
}

func (s server) do(w http.ResponseWriter, req *http.Request) {
	verb, arg := req.FormValue("verb"), req.FormValue("arg")
	accept(w)
	answer(w, []struct{}{}, s.r.Do(req.Context(), verb, arg))
}

func readBarrier(req *http.Request) (Barrier, error) {
	b := Barrier{Mark: req.FormValue("mark")}
	for _, p := range req.Form["path"] {
		path, err := decodePath(p)
		if err != nil {
			return b, fmt.Errorf("read barrier: %w", err)
		}
		b.Paths = append(b.Paths, path)
	}
	return b, nil
}

// accept sends the header.
func accept(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/jsonl")
	w.WriteHeader(http.StatusOK)
	_ = http.NewResponseController(w).Flush() // fails only when the asker has gone
}

// answer sends the rows, or what went wrong as the last line, and an empty line behind everything: an answer without it
// was cut off.
func answer[T any](w http.ResponseWriter, rows []T, err error) {
	if err != nil {
		_, _ = w.Write(lines([]failure{{Failure: err.Error(), NotExist: errors.Is(err, fs.ErrNotExist)}}))
		return
	}
	if encode(w, rows) == nil { // fails only when the asker has gone
		_, _ = w.Write([]byte{'\n'})
	}
}
