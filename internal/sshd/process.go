package sshd

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"syscall"
)

// run starts one sshd and returns when it has ended; at the end of ctx it is killed with all its children. It takes conn,
// which may be nil, as the connection to serve, and closes it.
func (s *Server) run(ctx context.Context, conn net.Conn, args ...string) error {
	if conn != nil {
		defer func() { _ = conn.Close() }() // its sshd is gone
	}
	return s.within(func() error {
		// The parent-death signal comes when the *thread* that started the child ends, so that thread stays ours until then.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		cmd := exec.Command(s.binary, append(args, "-f", s.path("sshd_config"), "-E", s.path("log"))...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
		if err := launch(cmd, conn); err != nil {
			return err
		}
		s.note(cmd.Process.Pid, conn)
		defer s.forget(cmd.Process.Pid, conn)
		defer context.AfterFunc(ctx, func() { killTree(cmd.Process.Pid) })()
		return cmd.Wait()
	})
}

// launch starts a command with a connection, if there is one, as its standard input and output.
func launch(cmd *exec.Cmd, conn net.Conn) error {
	if conn == nil {
		return cmd.Start()
	}
	file, err := conn.(*net.TCPConn).File()
	if err != nil {
		return err
	}
	cmd.Stdin, cmd.Stdout = file, file
	return errors.Join(cmd.Start(), file.Close())
}

func (s *Server) note(pid int, conn net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running[pid] = conn
}

// forget strikes a process off and keeps the count of its connection.
func (s *Server) forget(pid int, conn net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.running, pid)
	if conn != nil {
		s.ended[client(conn)] = s.ended[client(conn)].plus(measure(conn))
	}
}

// Sessions returns the process ids of the live sshd processes (parents and privilege-separated children): all, or those
// that serve the given client addresses.
func (s *Server) Sessions(clients ...string) []int {
	s.mu.Lock()
	var roots []int
	for pid, conn := range s.running {
		if len(clients) == 0 || conn != nil && slices.Contains(clients, client(conn)) {
			roots = append(roots, pid)
		}
	}
	s.mu.Unlock()
	return descendants(roots...)
}

// Connections returns how many connections are being served; of a whole sshd it tells only that it runs.
func (s *Server) Connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.running)
}

// killTree ends a process and all below it, the children first asked for: a dead parent's children belong to init.
func killTree(root int) {
	for _, pid := range descendants(root) {
		_ = syscall.Kill(pid, syscall.SIGKILL) // gone already is fine
	}
}

// descendants returns the given processes and all their descendants, sorted.
func descendants(roots ...int) []int {
	children := map[int][]int{}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat") // the pattern is a constant and right
	for _, path := range stats {
		if pid, parent, ok := readStat(path); ok {
			children[parent] = append(children[parent], pid)
		}
	}
	all := slices.Clone(roots)
	for i := 0; i < len(all); i++ {
		all = append(all, children[all[i]]...)
	}
	slices.Sort(all)
	return all
}

// readStat reads process and parent id; zombies do not count.
func readStat(path string) (pid, parent int, ok bool) {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, 0, false
	}
	open, end := bytes.IndexByte(data, '('), bytes.LastIndexByte(data, ')')
	if open < 0 || end < 0 {
		return 0, 0, false
	}
	fields := bytes.Fields(data[end+1:])
	if len(fields) < 2 || string(fields[0]) == "Z" {
		return 0, 0, false
	}
	pid, errPid := strconv.Atoi(string(bytes.TrimSpace(data[:open])))
	parent, errParent := strconv.Atoi(string(fields[1]))
	return pid, parent, errPid == nil && errParent == nil
}
