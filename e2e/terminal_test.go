package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// dialogue is a program on a terminal of its own.
type dialogue struct {
	t     *testing.T
	cmd   *exec.Cmd
	tty   *os.File // the person's side
	shown bytes.Buffer
	done  chan error
}

// onTerminal starts a program on a new terminal, wide enough for every line.
func onTerminal(t *testing.T, cmd *exec.Cmd) *dialogue {
	t.Helper()
	tty, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	must(t, err)
	t.Cleanup(func() { _ = tty.Close() })
	name := ""
	conn, err := tty.SyscallConn()
	must(t, err)
	must(t, conn.Control(func(fd uintptr) { // File.Fd would take the deadlines away
		must(t, unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0))
		n, err := unix.IoctlGetInt(int(fd), unix.TIOCGPTN)
		must(t, err)
		must(t, unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: 50, Col: 300}))
		name = fmt.Sprintf("/dev/pts/%d", n)
	}))
	theirs, err := os.OpenFile(name, os.O_RDWR|unix.O_NOCTTY, 0)
	must(t, err)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = theirs, theirs, theirs
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	must(t, cmd.Start())
	must(t, theirs.Close())
	d := &dialogue{t: t, cmd: cmd, tty: tty, done: make(chan error, 1)}
	go func() { d.done <- cmd.Wait() }()
	return d
}

// expect reads until something is shown, and returns what came before it.
func (d *dialogue) expect(text string) (before string) {
	d.t.Helper()
	must(d.t, d.tty.SetReadDeadline(time.Now().Add(20*time.Second*busy)))
	buf := make([]byte, 4096)
	for !bytes.Contains(d.shown.Bytes(), []byte(text)) {
		n, err := d.tty.Read(buf)
		d.shown.Write(buf[:n])
		if err != nil {
			d.t.Fatalf("waiting for %q: %v\n%s", text, err, d.shown.String())
		}
	}
	before = string(d.shown.Next(bytes.Index(d.shown.Bytes(), []byte(text))))
	d.shown.Next(len(text))
	return before
}

func (d *dialogue) answer(text string) {
	d.t.Helper()
	_, err := d.tty.WriteString(text)
	must(d.t, err)
}

// end reads the rest and returns how the program ended.
func (d *dialogue) end() (rest string, err error) {
	d.t.Helper()
	must(d.t, d.tty.SetReadDeadline(time.Now().Add(20*time.Second*busy)))
	_, _ = d.shown.ReadFrom(d.tty) // it ends with EIO when nobody has the other side
	select {
	case err = <-d.done:
	case <-time.After(20 * time.Second * busy):
		d.t.Fatalf("%v does not end\n%s", d.cmd.Args, d.shown.String())
	}
	return strings.ReplaceAll(d.shown.String(), "\r\n", "\n"), err
}

// TestInitGivenUp: Ctrl-C, Ctrl-D and SIGTERM end init's questions at once; nothing is written, and the terminal is as it was.
func TestInitGivenUp(t *testing.T) {
	for name, end := range map[string]func(d *dialogue){
		"Ctrl-C": func(d *dialogue) { d.answer("\x03") },
		"Ctrl-D": func(d *dialogue) { d.answer("\x04") },
		"SIGTERM": func(d *dialogue) {
			out, err := exec.Command("pkill", "-TERM", "-P", fmt.Sprint(d.cmd.Process.Pid)).CombinedOutput()
			if err != nil {
				d.t.Errorf("%v %s", err, out)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			// The shell says what the terminal is like before and after.
			cmd := exec.Command("bash", "-c", `stty -g; trap : INT; "$0" init --config etc/slipway.yml; echo "code $?"; stty -g`, binary)
			cmd.Dir = dir
			d := onTerminal(t, cmd)
			state := d.expect("\r\n")
			d.expect("Directory with the files: ")
			d.answer("/srv/files\r")
			d.expect("Name of the volume")
			end(d)
			rest, err := d.end()
			must(t, err)
			want := map[string]string{"SIGTERM": "code 130\n"}[name]
			if want == "" {
				want = "nothing was written\ncode 1\n"
			}
			if !strings.Contains(rest, want) {
				t.Errorf("no %q in\n%s", want, rest)
			}
			if list, err := os.ReadDir(dir); err != nil || len(list) > 0 {
				t.Errorf("left behind: %v %v", list, err)
			}
			lines := strings.Split(strings.TrimSpace(rest), "\n")
			if now := lines[len(lines)-1]; !strings.Contains(now, ":") || now != state {
				t.Errorf("the terminal was %s, is %s", state, now)
			}
		})
	}
}
