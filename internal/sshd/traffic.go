package sshd

import (
	"net"

	"golang.org/x/sys/unix"
)

// Traffic is what went over a client's connections, as the kernel of this side counts it: the bytes of the TCP streams, each
// once, however often a packet was sent.
type Traffic struct {
	Connections int   // so many there were
	In          int64 // bytes that came from the client
	Out         int64 // bytes that the client has acknowledged
}

func (t Traffic) plus(u Traffic) Traffic {
	return Traffic{Connections: t.Connections + u.Connections, In: t.In + u.In, Out: t.Out + u.Out}
}

// Traffic returns what has gone over all connections of a client address, ended and live. It counts nothing with a whole sshd.
func (s *Server) Traffic(address string) Traffic {
	s.mu.Lock()
	defer s.mu.Unlock()
	sum := s.ended[address]
	for _, conn := range s.running {
		if conn != nil && client(conn) == address {
			sum = sum.plus(measure(conn))
		}
	}
	return sum
}

// client returns the address, without port, of a connection's other end.
func client(conn net.Conn) string {
	return conn.RemoteAddr().(*net.TCPAddr).IP.String()
}

// measure asks the kernel; what cannot be asked counts as a connection without bytes.
func measure(conn net.Conn) Traffic {
	t := Traffic{Connections: 1}
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		return t
	}
	_ = raw.Control(func(fd uintptr) {
		if info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			t.In, t.Out = int64(info.Bytes_received), int64(info.Bytes_acked)
		}
	})
	return t
}
