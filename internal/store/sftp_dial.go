package store

import (
	"context"
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

const leastDial = 5 * time.Second

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

// startSFTP opens the subsystem.
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
	c := &conn{wire: w, ssh: client, limit: s.opt.Limit, root: s.place.path, dirs: &s.dirs, left: &s.left}
	c.watch = &watch{stall: s.opt.StallAfter, acked: w.acked, expired: w.fail}
	c.answers = &answers{r: out, w: c.watch, fail: w.fail}
	c.sftp, err = sftp.NewClientPipe(c.answers, in, sftp.MaxPacketChecked(packet),
		sftp.MaxConcurrentRequestsPerFile(inFlight(w.roundTrip())), sftp.UseConcurrentWrites(true))
	if err != nil {
		return nil, err
	}
	s.note(c)
	return c, nil
}

const (
	packet       = 32 << 10  // bytes of one read or write: what every server takes, and what SSH cuts larger ones into
	fewInFlight  = 8         // packets; the server is never idle
	mostInFlight = 64        // packets: the window that sshd gives a channel
	lineRate     = 125 << 20 // bytes a second that one connection is to reach
)

// inFlight is how many packets of one file are under way at once: enough to fill a fast line over a round trip, and no more,
// since sshd keeps what sftp-server has not read yet in one buffer and copies all of it whenever it grows. On a short line that
// cost the server more than everything else it does (docs/limits.md). A kernel that has not measured yet says more than an hour.
func inFlight(roundTrip time.Duration) int {
	n := int(int64(lineRate) * int64(min(roundTrip, time.Second)) / int64(time.Second) / packet)
	return min(max(n, fewInFlight), mostInFlight)
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
