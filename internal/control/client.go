package control

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Classes of errors of a Client. A daemon that ends while it is asked is ErrNoDaemon, too.
var (
	ErrNoDaemon = errors.New("no daemon is running")
	ErrSilent   = errors.New("the daemon does not answer")
)

const (
	answerWithin = time.Second      // until an answer begins; a process that is stopped is seen at once
	wholeWithin  = 20 * time.Second // until it has ended; a Barrier may wait for news that long
	longestLine  = 1 << 20
)

// Client asks a daemon; every call gives up after a second without the beginning of an answer.
type Client struct{ http *http.Client }

// Dial returns a client for the daemon with this state directory; ErrNoDaemon if nobody listens, ErrSilent if it does not answer.
func Dial(state string) (*Client, error) { return DialWithin(state, answerWithin) }

// DialWithin is Dial with another patience, for callers that are themselves waited for.
func DialWithin(state string, patience time.Duration) (*Client, error) {
	c := newClient(state, patience, wholeWithin)
	_, err := get[struct{}](context.Background(), c, http.MethodGet, "/ping", nil)
	return c, err
}

// newClient returns a client that has not asked anything yet. whole bounds an answer, 0: its context alone does.
func newClient(state string, patience, whole time.Duration) *Client {
	transport := &http.Transport{
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			return connect(state, patience)
		},
		ResponseHeaderTimeout: patience,
		DisableKeepAlives:     true, // a daemon started again must not be asked over a dead connection
	}
	return &Client{&http.Client{Transport: transport, Timeout: whole}}
}

// FindState tells whether the daemon of a state directory is Running, NotAnswering or Dead, from its answer to Status, and
// returns that answer; in the other two cases what it last wrote, marked stale, if there is anything that can be read.
func FindState(ctx context.Context, state string) (daemon string, list []Status, err error) {
	c, err := Dial(state)
	if err == nil {
		list, err = c.Status(ctx)
	}
	switch {
	case err == nil:
		return Running, list, nil
	case errors.Is(err, ErrNoDaemon):
		daemon = Dead
	case errors.Is(err, ErrSilent):
		daemon = NotAnswering
	default:
		return "", nil, err
	}
	list, _ = LastStatus(state)
	for i := range list {
		list[i].Stale, list[i].Daemon = true, daemon
	}
	return daemon, list, nil
}

// LastStatus reads status.json; fs.ErrNotExist if no daemon ever wrote one.
func LastStatus(state string) ([]Status, error) {
	data, err := os.ReadFile(StatusPath(state))
	if err != nil {
		return nil, fmt.Errorf("read last status: %w", err)
	}
	list, err := decode[Status](bufio.NewScanner(bytes.NewReader(append(data, '\n'))))
	if err != nil {
		return nil, fmt.Errorf("read last status %s: %w", StatusPath(state), err)
	}
	return list, nil
}

// Status asks for the status of every volume.
func (c *Client) Status(ctx context.Context) ([]Status, error) {
	return get[Status](ctx, c, http.MethodGet, "/status", nil)
}

// Batches asks for at most limit batches of a volume from a sequence number on; limit 0: all.
func (c *Client) Batches(ctx context.Context, volume string, from uint64, limit int) ([]BatchRow, error) {
	return get[BatchRow](ctx, c, http.MethodGet, "/batches", url.Values{
		"volume": {volume}, "from": {strconv.FormatUint(from, 10)}, "limit": {strconv.Itoa(limit)},
	})
}

// Pending asks for at most limit pending files; limit 0: all.
func (c *Client) Pending(ctx context.Context, limit int) ([]PendingRow, error) {
	return get[PendingRow](ctx, c, http.MethodGet, "/pending", url.Values{"limit": {strconv.Itoa(limit)}})
}

// Explain asks where a path, relative to the volume, stands.
func (c *Client) Explain(ctx context.Context, path string) (Explained, error) {
	return one(get[Explained](ctx, c, http.MethodGet, "/explain", url.Values{"path": {encodePath(path)}}))
}

// List asks for the entries of a directory as last sealed.
func (c *Client) List(ctx context.Context, path string, recursive bool) ([]ListRow, error) {
	return get[ListRow](ctx, c, http.MethodGet, "/list", url.Values{"path": {encodePath(path)}, "recursive": {strconv.FormatBool(recursive)}})
}

// Barrier asks once; the answer may take BarrierWait. Hand the answer in again to go on waiting.
func (c *Client) Barrier(ctx context.Context, b Barrier) (Barrier, error) {
	query := url.Values{"mark": {b.Mark}}
	for _, p := range b.Paths {
		query.Add("path", encodePath(p))
	}
	next, err := one(get[Barrier](ctx, c, http.MethodPost, "/barrier", query))
	next.Paths = b.Paths
	return next, err
}

// Do tells the daemon an operator's word.
func (c *Client) Do(ctx context.Context, verb, arg string) error {
	_, err := get[struct{}](ctx, c, http.MethodPost, "/do", url.Values{"verb": {verb}, "arg": {arg}})
	return err
}

func one[T any](rows []T, err error) (T, error) {
	var zero T
	if err == nil && len(rows) != 1 {
		err = fmt.Errorf("ask daemon: %d answers to one question", len(rows))
	}
	if err != nil {
		return zero, err
	}
	return rows[0], nil
}

func get[T any](ctx context.Context, c *Client, method, path string, query url.Values) ([]T, error) {
	target, body := "http://slipway"+path+"?"+query.Encode(), ""
	if method == http.MethodPost {
		target, body = "http://slipway"+path, query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, target, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, classify(ctx, err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("ask daemon: %s %s: %s", method, path, resp.Status)
	}
	rows, err := decode[T](bufio.NewScanner(resp.Body))
	if err != nil {
		return nil, classify(ctx, err)
	}
	return rows, nil
}

// classify tells a daemon that does not answer from one that is not there and from a caller that gave up.
func classify(ctx context.Context, err error) error {
	var timeout net.Error
	var request *url.Error
	if errors.As(err, &request) { // its words are of HTTP, which is nobody's concern
		err = request.Err
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.As(err, &timeout) && timeout.Timeout():
		return fmt.Errorf("ask daemon: %w", ErrSilent)
	case isCut(err):
		return fmt.Errorf("ask daemon: it ended before its answer did: %w", ErrNoDaemon)
	}
	return err
}

// isCut tells whether the daemon went away while it answered.
func isCut(err error) bool {
	return errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) || errors.Is(err, unix.ECONNRESET) || errors.Is(err, unix.EPIPE)
}

// refusal is what the daemon said when it could not answer.
type refusal failure

func (r *refusal) Error() string { return r.Failure }

// Is makes the daemon's classes those of this side.
func (r *refusal) Is(target error) bool { return target == fs.ErrNotExist && r.NotExist }

// decode reads rows up to the empty line that ends an answer.
func decode[T any](s *bufio.Scanner) ([]T, error) {
	s.Buffer(make([]byte, 64<<10), longestLine)
	rows := []T{}
	for s.Scan() {
		line := s.Bytes()
		if len(line) == 0 {
			return rows, nil
		}
		if bytes.HasPrefix(line, []byte(`{"failure":`)) {
			var r refusal
			if err := unmarshal(s, line, &r); err != nil {
				return nil, err
			}
			return nil, &r
		}
		if len(rows) == cap(rows) { // append itself grows by a quarter, and copies five times what there is in the end
			rows = slices.Grow(rows, max(64, len(rows)))
		}
		rows = append(rows, *new(T))
		if err := unmarshal(s, line, &rows[len(rows)-1]); err != nil {
			return nil, err
		}
	}
	if err := s.Err(); err != nil {
		return nil, err
	}
	return nil, io.ErrUnexpectedEOF
}

// unmarshal reads a line. One that cannot be read, with nothing behind it, is the part that came of a line that was cut.
func unmarshal(s *bufio.Scanner, line []byte, row any) error {
	err := json.Unmarshal(line, row)
	if err != nil && !s.Scan() {
		return cmp.Or(s.Err(), io.ErrUnexpectedEOF)
	}
	return err
}
