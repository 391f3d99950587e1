// Package sshd runs a throw-away OpenSSH server, for demo and tests: a listener of its own, on 127.0.0.1 unless told otherwise, one
// `sshd -i` a connection, a host key and a client key made below one directory, SFTP only. The account is the user running
// this process, restricted as docs tell operators to restrict the accounts of a store: umask 0007, no removal, no SETSTAT.
//
// After a crash of this process nothing of it runs on: every sshd is started with a parent-death signal. Keys and
// configuration stay below the directory; Start on the same directory uses them again, on another port.
package sshd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"sync"

	"golang.org/x/sync/errgroup"
)

// denied is what an account of a store cannot do: publishing needs none of it.
const denied = "remove,rmdir,setstat,fsetstat,lsetstat,symlink,hardlink,copy-data,users-groups-by-id"

// Server is one throw-away server.
type Server struct {
	Dir        string // its own directory: keys, sshd_config, log
	Addr       string // address:port
	KeyFile    string // client key that it accepts
	KnownHosts string // known_hosts file with its host key
	User       string // the account: the user running this process

	binary string
	whole  bool
	within func(func() error) error

	mu       sync.Mutex         // guards what follows
	listener net.Listener       // nil while not serving and after Serve has ended
	running  map[int]net.Conn   // the sshd processes started here, by process id; no connection with a whole sshd
	ended    map[string]Traffic // by client address, of connections that have ended
}

// Options may be zero.
type Options struct {
	Whole    bool     // a whole sshd instead of one per connection (for tests that kill it)
	KeyFile  string   // accept this client key instead of making one
	Deny     []string // requests refused besides those every account is refused, for example "fsync", "posix-rename"
	ReadOnly bool     // the account of a primary on a backup host
	AllowAll bool     // refuse nothing, for other programs that change attributes (restic)
	Trace    bool     // sftp-server as a program, writing one line for each request to the file trace (needs a login shell)

	Addr   string                   // address and port to listen on; default: loopback, a free port
	Within func(func() error) error // runs what it is given where listener and sshd processes belong (a network namespace); default: here
}

// Find returns the path of sshd, or an error that says which package has it.
func Find() (string, error) {
	for _, path := range []string{"/usr/sbin/sshd", "/usr/local/sbin/sshd", "/sbin/sshd", "/usr/bin/sshd"} {
		if st, err := os.Stat(path); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	path, err := exec.LookPath("sshd")
	if err != nil {
		return "", errors.New("find sshd: not installed; it is in Debian's package openssh-server")
	}
	return filepath.Abs(path) // sshd refuses to run under a relative name
}

// Start makes keys and configuration below dir and listens. Serve must be running for connections to be answered.
func Start(dir string, opt Options) (*Server, error) {
	s, err := newServer(dir, opt)
	if err != nil {
		return nil, fmt.Errorf("start sshd: %w", err)
	}
	listener, err := s.listen()
	if err != nil {
		return nil, fmt.Errorf("start sshd: %w", err)
	}
	s.Addr = listener.Addr().String()
	if err := s.configure(opt); err != nil {
		return nil, fmt.Errorf("start sshd: %w", errors.Join(err, s.Close()))
	}
	return s, nil
}

func newServer(dir string, opt Options) (*Server, error) {
	binary, err := Find()
	if err != nil {
		return nil, err
	}
	account, err := user.Current()
	if err != nil {
		return nil, err
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if os.Geteuid() == 0 { // sshd started by root insists on this directory; the package leaves making it to the init system
		if err := os.Mkdir("/run/sshd", 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
	}
	s := &Server{Dir: dir, User: account.Username, KeyFile: opt.KeyFile, KnownHosts: filepath.Join(dir, "known_hosts"),
		Addr: opt.Addr, binary: binary, whole: opt.Whole, within: opt.Within, running: map[int]net.Conn{}, ended: map[string]Traffic{}}
	if s.KeyFile == "" {
		s.KeyFile = filepath.Join(dir, "client_key")
	}
	if s.Addr == "" {
		s.Addr = "127.0.0.1:0"
	}
	if s.within == nil {
		s.within = func(fn func() error) error { return fn() }
	}
	return s, nil
}

// URL returns "sftp://user@address:port" + path.
func (s *Server) URL(path string) string { return "sftp://" + s.User + "@" + s.Addr + path }

// Close frees the address of a server that is not to be served (any more).
func (s *Server) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listener == nil {
		return nil
	}
	err := s.listener.Close()
	s.listener = nil
	return err
}

// Serve accepts connections until ctx ends, then ends every sshd it started. It may be called again afterwards: the
// server is then back under the same address.
func (s *Server) Serve(ctx context.Context) error {
	var err error
	if s.whole {
		err = s.serveWhole(ctx)
	} else {
		err = s.servePerConnection(ctx)
	}
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("serve sshd on %s: %w", s.Addr, err)
	}
	return nil
}

// listen returns the listener Start made, or a new one on the same address.
func (s *Server) listen() (net.Listener, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listener != nil {
		return s.listener, nil
	}
	err := s.within(func() (err error) {
		s.listener, err = net.Listen("tcp", s.Addr)
		return err
	})
	return s.listener, err
}

func (s *Server) servePerConnection(ctx context.Context) error {
	listener, err := s.listen()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var sessions errgroup.Group
	defer context.AfterFunc(ctx, func() { _ = s.Close() })() // ends Accept
	for {
		conn, err := listener.Accept()
		if err != nil {
			cancel()
			return errors.Join(err, s.Close(), sessions.Wait())
		}
		sessions.Go(func() error {
			// A session that ends badly is in the log file and concerns its client only.
			_ = s.run(ctx, conn, "-i")
			return nil
		})
	}
}

// serveWhole runs one ordinary sshd on the address. Between the closing of our listener and its own another process could
// take the port; sshd then ends with an error and so do we.
func (s *Server) serveWhole(ctx context.Context) error {
	if err := s.Close(); err != nil {
		return err
	}
	return s.run(ctx, nil, "-D", "-o", "ListenAddress="+s.Addr)
}
