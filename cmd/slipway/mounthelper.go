package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"slipway/internal/config"
	"slipway/internal/durable"
	"slipway/internal/mountopt"
	"slipway/internal/state"
)

// The exit codes of mount(8).
const (
	mountUsage       = 1
	mountSystem      = 2
	mountInterrupted = 8
	mountFailed      = 32
)

// calledByMount tells whether mount(8) called: by the name of a helper (/sbin/mount.fuse.slipway SOURCE DIR [-sfnv] [-o OPTIONS]), or
// through libfuse's helper, which starts "slipway SOURCE DIR -o OPTIONS".
func calledByMount(argv []string) (source, dir string, flags []string, ok bool) {
	name, rest := filepath.Base(argv[0]), argv[1:]
	helper := name == "mount.fuse.slipway" || name == "mount.slipway"
	if !helper && (len(rest) != 4 || rest[2] != "-o" || !filepath.IsAbs(rest[1])) {
		return "", "", nil, false
	}
	if len(rest) < 2 {
		return "", "", nil, helper
	}
	return rest[0], rest[1], rest[2:], true
}

// mountHelper mounts, or changes a mount, as mount(8) asks, and returns its exit code. The daemon goes on by itself; success means that the
// mount answers.
func mountHelper(source, dir string, flags []string) int {
	// mount(8) takes PATH away.
	_ = os.Setenv("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	code, err := helpMount(ctx, source, dir, flags)
	if err != nil {
		_, _ = fmt.Fprintf(os.Stderr, "slipway: mount %s: %v\n", dir, err)
	}
	return code
}

func helpMount(ctx context.Context, source, dir string, flags []string) (code int, err error) {
	list, fake, err := helperFlags(flags)
	if err != nil || dir == "" {
		return mountUsage, errors.Join(err, usageUnless(dir != ""))
	}
	o, err := mountopt.Parse(list)
	if err != nil {
		return mountUsage, err
	}
	if o.Remount {
		return remount(dir, o, fake)
	}
	path := o.Config
	if path == "" {
		path = config.DefaultPath
	}
	c, err := config.Load(path)
	if err != nil {
		return mountUsage, err
	}
	if err := checkMount(c, source, dir); err != nil {
		return mountUsage, err
	}
	if fake {
		return 0, nil
	}
	return startMount(ctx, c, list)
}

func usageUnless(ok bool) error {
	if ok {
		return nil
	}
	return errors.New("usage: mount.fuse.slipway VOLUME DIRECTORY [-sfnv] [-o OPTIONS]")
}

// helperFlags takes mount(8)'s flags apart: -f means to do everything but mount; -s, -n and -v mean nothing here.
func helperFlags(flags []string) (options string, fake bool, err error) {
	var lists []string
	for i := 0; i < len(flags); i++ {
		switch f := flags[i]; {
		case f == "-o" && i+1 < len(flags):
			i++
			lists = append(lists, flags[i])
		case f == "-t" && i+1 < len(flags):
			i++ // the type, which brought us here
		case len(f) > 1 && f[0] == '-' && strings.Trim(f[1:], "sfnv") == "":
			fake = fake || strings.Contains(f, "f")
		default:
			return "", false, usageUnless(false)
		}
	}
	return strings.Join(lists, ","), fake, nil
}

// checkMount compares what mount(8) was told with the configuration.
func checkMount(c *config.Config, volume, dir string) error {
	if c.Primary == nil {
		return fmt.Errorf("%s is the configuration of a %s, not of a primary (with volume:)", c.Path, c.Role())
	}
	if volume != c.Primary.Volume {
		return fmt.Errorf("the volume of %s is %s, not %s: write %s in place of the device", c.Path, c.Primary.Volume, volume, c.Primary.Volume)
	}
	want, err := filepath.Abs(c.Primary.Mount)
	if err != nil {
		return err
	}
	if real, err := filepath.EvalSymlinks(want); err == nil {
		want = real // as mount(8) does with the directory
	}
	if filepath.Clean(dir) != want && filepath.Clean(dir) != filepath.Clean(c.Primary.Mount) {
		return fmt.Errorf("%s mounts %s at %s", c.Path, volume, want)
	}
	return nil
}

// remount changes what the kernel enforces of a mount. Should the mount process die, the next one takes it over.
func remount(dir string, o mountopt.Options, fake bool) (int, error) {
	if fake {
		return 0, nil
	}
	attr := unix.MountAttr{Attr_set: o.Set, Attr_clr: o.Clear}
	if err := unix.MountSetattr(unix.AT_FDCWD, dir, unix.AT_SYMLINK_NOFOLLOW, &attr); err != nil {
		return mountFailed, fmt.Errorf("remount: %w", err)
	}
	return 0, nil
}

// startMount starts the daemon and waits until the mount answers. The daemon's log is a file of the state directory.
func startMount(ctx context.Context, c *config.Config, options string) (int, error) {
	path, err := filepath.Abs(c.Path)
	if err != nil {
		return mountSystem, err
	}
	if err := durable.MkdirAll(c.Primary.State, 0o700); err != nil {
		return mountSystem, err
	}
	log, err := os.OpenFile(state.Dir(c.Primary.State).MountLog(), os.O_CREATE|os.O_RDWR|os.O_TRUNC, 0o600)
	if err != nil {
		return mountSystem, err
	}
	defer func() { _ = log.Close() }() // the daemon has it
	ready, name, err := readySocket()
	if err != nil {
		return mountSystem, err
	}
	defer func() { _ = ready.Close() }()

	daemon := exec.Command("/proc/self/exe")
	daemon.Args = []string{"slipway", "mount", "-c", path, "-o", options}
	daemon.Dir = "/"
	daemon.Env = append(os.Environ(), "NOTIFY_SOCKET="+name)
	daemon.Stdout, daemon.Stderr = log, log
	daemon.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := daemon.Start(); err != nil {
		return mountSystem, fmt.Errorf("start the daemon: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- daemon.Wait() }()
	up := make(chan error, 1)
	go func() { up <- awaitReady(ready, daemon.Process.Pid) }()
	select {
	case err := <-up:
		return 0, err
	case err := <-ended:
		return mountFailed, fmt.Errorf("the daemon ended (%w):\n%s", err, tellLog(log))
	case <-ctx.Done():
		_ = daemon.Process.Signal(syscall.SIGTERM) // it unmounts
		return mountInterrupted, errors.New("interrupted")
	}
}

// readySocket is where the daemon says that it is up, as it would to systemd: in no directory, so there is nothing to remove, and under a name
// that the kernel chooses, so that nobody can have taken it.
func readySocket() (*net.UnixConn, string, error) {
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram"})
	if err != nil {
		return nil, "", fmt.Errorf("listen for the daemon: %w", err)
	}
	if err := tellSender(conn); err != nil {
		return nil, "", errors.Join(fmt.Errorf("listen for the daemon: %w", err), conn.Close())
	}
	return conn, conn.LocalAddr().String(), nil
}

// tellSender has the kernel say of each datagram who sent it.
func tellSender(conn *net.UnixConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var refused error
	err = raw.Control(func(fd uintptr) { refused = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSCRED, 1) })
	return errors.Join(err, refused)
}

// awaitReady returns when the daemon says that it is up. Anybody on this machine can write to the socket: the kernel says who it was.
func awaitReady(conn *net.UnixConn, daemon int) error {
	buf, from := make([]byte, 4096), make([]byte, unix.CmsgSpace(unix.SizeofUcred))
	for {
		n, m, _, _, err := conn.ReadMsgUnix(buf, from)
		if err != nil {
			return fmt.Errorf("listen for the daemon: %w", err)
		}
		if strings.Contains(string(buf[:n]), "READY=1") && sentBy(from[:m]) == daemon {
			return nil
		}
	}
}

// sentBy returns the process that sent a datagram; 0 where the kernel does not say.
func sentBy(oob []byte) int {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil || len(messages) != 1 {
		return 0
	}
	who, err := unix.ParseUnixCredentials(&messages[0])
	if err != nil {
		return 0
	}
	return int(who.Pid)
}

// tellLog returns the end of what a daemon wrote.
func tellLog(log *os.File) string {
	const most = 4096
	size, _ := log.Seek(0, io.SeekEnd)
	text, _ := io.ReadAll(io.NewSectionReader(log, max(0, size-most), most))
	return strings.TrimSpace(string(text))
}
