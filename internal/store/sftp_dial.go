package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"
)

const (
	defaultPacket = 32 << 10  // what every server takes
	maxPacket     = 255 << 10 // what the client library takes at most, header aside
	inFlight      = 64        // packets of one file
	leastDial     = 5 * time.Second
)

// dial makes a connection: TCP, SSH, SFTP. It is bounded by a deadline, since neither the handshake nor the library has one.
func (s *sftpStore) dial(ctx context.Context) (*conn, error) {
	auth, err := clientKey(s.opt.KeyFile)
	if err != nil {
		return nil, err
	}
	pins, err := readPins(s.opt.KnownHosts, s.place.addr())
	if err != nil {
		return nil, err
	}
	patience := max(s.opt.StallAfter, leastDial)
	dialer := net.Dialer{Timeout: patience, Control: userTimeout,
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3}}
	tcp, err := dialer.DialContext(ctx, "tcp", s.place.addr())
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrTemporary, err)
	}
	w := &wire{Conn: tcp}
	defer context.AfterFunc(ctx, func() { w.fail(context.Cause(ctx)) })()
	if err := tcp.SetDeadline(time.Now().Add(patience)); err != nil {
		w.fail(err)
	}
	c, err := s.handshake(w, auth, pins)
	if err != nil {
		w.fail(err)
		return nil, err
	}
	if err := tcp.SetDeadline(time.Time{}); err != nil {
		w.fail(err) // it ended this very moment
		c.close()
		return nil, fmt.Errorf("%w: %w", ErrTemporary, err)
	}
	return c, nil
}

// userTimeout makes the kernel give up on a peer that acknowledges nothing.
func userTimeout(_, _ string, raw syscall.RawConn) error {
	var err error
	controlErr := raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(time.Minute/time.Millisecond))
	})
	return errors.Join(controlErr, err)
}

func (s *sftpStore) handshake(w *wire, auth ssh.AuthMethod, pins *pins) (*conn, error) {
	sshConn, chans, reqs, err := ssh.NewClientConn(w, s.place.addr(), &ssh.ClientConfig{
		User:              s.place.user,
		Auth:              []ssh.AuthMethod{auth},
		HostKeyCallback:   pins.check,
		HostKeyAlgorithms: pins.algorithms(), // or the server may show a key of another kind than the pinned one
	})
	if err != nil {
		return nil, s.explainHandshake(w, pins, err)
	}
	client := ssh.NewClient(sshConn, chans, reqs)
	c, err := s.startSFTP(w, client)
	if err != nil {
		if w.ended() != nil || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			err = fmt.Errorf("%w: %w", ErrTemporary, err)
		}
		return nil, fmt.Errorf("start SFTP: %w", err)
	}
	return c, nil
}

// explainHandshake tells by how far it came what was wrong, as the library has no types for it.
func (s *sftpStore) explainHandshake(w *wire, pins *pins, err error) error {
	var negotiation *ssh.AlgorithmNegotiationError
	switch ended := w.ended(); {
	case pins.refused != nil:
		return pins.refused
	case errors.As(err, &negotiation) && negotiation.What == "host key":
		return pins.otherKind(negotiation.RequestedAlgorithms)
	case ended != nil && !errors.Is(ended, net.ErrClosed): // the library closes it, too, once it has given up
		return fmt.Errorf("%w: SSH handshake: %w", ErrTemporary, ended)
	case pins.accepted:
		return fmt.Errorf("%w %s for user %s: %w", ErrAuth, s.opt.KeyFile, s.place.user, err)
	}
	return err
}

// startSFTP opens the subsystem, asks for the server's limits and only then hands the stream to the library, which can
// neither ask nor be told later.
func (s *sftpStore) startSFTP(w *wire, client *ssh.Client) (*conn, error) {
	session, err := client.NewSession()
	if err != nil {
		return nil, err
	}
	in, errIn := session.StdinPipe()
	out, errOut := session.StdoutPipe()
	if err := errors.Join(errIn, errOut, session.RequestSubsystem("sftp")); err != nil {
		return nil, err
	}
	packet, err := askLimits(in, out)
	if err != nil {
		return nil, err
	}
	c := &conn{wire: w, ssh: client, limit: s.opt.Limit, root: s.place.path, dirs: &s.dirs, left: &s.left}
	c.watch = &watch{stall: s.opt.StallAfter, acked: w.acked, expired: w.fail}
	c.answers = &answers{r: out, w: c.watch, fail: w.fail}
	c.sftp, err = sftp.NewClientPipe(c.answers, in, sftp.MaxPacketUnchecked(packet),
		sftp.MaxConcurrentRequestsPerFile(inFlight), sftp.UseConcurrentWrites(true))
	if err != nil {
		return nil, err
	}
	s.note(c)
	return c, nil
}

// askLimits asks limits@openssh.com how large packets may be. It speaks SFTP itself: INIT, whose answer it skips (a
// second INIT, the library's, is answered again), then the request. A server that does not know it answers with a status.
func askLimits(in io.Writer, out io.Reader) (packet int, err error) {
	const (
		initPacket, extended, extendedReply = 1, 200, 201
		id                                  = 1
		name                                = "limits@openssh.com"
	)
	hello := binary.BigEndian.AppendUint32([]byte{0, 0, 0, 5, initPacket}, 3)
	request := binary.BigEndian.AppendUint32(nil, uint32(1+4+4+len(name)))
	request = binary.BigEndian.AppendUint32(append(request, extended), id)
	request = append(binary.BigEndian.AppendUint32(request, uint32(len(name))), name...)
	if _, err := in.Write(append(hello, request...)); err != nil {
		return 0, err
	}
	if _, _, err := readPacket(out); err != nil {
		return 0, err
	}
	kind, body, err := readPacket(out)
	if err != nil {
		return 0, err
	}
	if kind != extendedReply || len(body) < 4+4*8 { // id, then packet, read, write length, handles
		return defaultPacket, nil
	}
	for _, at := range []int{12, 20} {
		if n := binary.BigEndian.Uint64(body[at:]); n != 0 && (packet == 0 || n < uint64(packet)) {
			packet = int(min(n, maxPacket))
		}
	}
	if packet == 0 {
		return defaultPacket, nil
	}
	return packet, nil
}

// readPacket reads one packet of the two that askLimits expects, which are small.
func readPacket(r io.Reader) (kind byte, body []byte, err error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n < 1 || n > 64<<10 {
		return 0, nil, fmt.Errorf("packet of %d bytes, not SFTP", n)
	}
	body = make([]byte, n-1)
	_, err = io.ReadFull(r, body)
	return head[4], body, err
}

// clientKey reads the private key, from a file that nobody else can read.
func clientKey(file string) (ssh.AuthMethod, error) {
	if file == "" {
		return nil, fmt.Errorf("%w: no SSH key is configured (ssh: {key: FILE}, --ssh-key)", ErrAuth)
	}
	st, err := os.Stat(file)
	if err != nil {
		return nil, fmt.Errorf("%w: read SSH key: %w", ErrAuth, err)
	}
	if mode := st.Mode().Perm(); mode&0o077 != 0 {
		return nil, fmt.Errorf("%w: SSH key %s can be read by others (mode %04o): chmod 600 it", ErrAuth, file, mode)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("%w: read SSH key: %w", ErrAuth, err)
	}
	signer, err := ssh.ParsePrivateKey(data)
	var locked *ssh.PassphraseMissingError
	if errors.As(err, &locked) {
		return nil, fmt.Errorf("%w: SSH key %s has a passphrase: a daemon needs one without", ErrAuth, file)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: SSH key %s: %w", ErrAuth, file, err)
	}
	return ssh.PublicKeys(signer), nil
}
