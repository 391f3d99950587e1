package main

import (
	"context"
	"errors"
	"os"
	"time"

	"golang.org/x/term"
)

// terminal is the one this process is used from, in raw mode: lines can be edited, and Ctrl-C and Ctrl-D end the dialogue.
type terminal struct {
	file    *os.File
	line    *term.Terminal
	back    *term.State
	release func() bool // of what ends the waiting for an answer
}

// openTerminal opens it, until ctx ends; nil: there is none, or something else comes in on standard input.
func openTerminal(ctx context.Context) (*terminal, error) {
	if !term.IsTerminal(int(os.Stdin.Fd())) {
		return nil, nil
	}
	file, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return nil, nil // a daemon's child with a terminal's descriptor: nobody is there
	}
	t := &terminal{file: file, line: term.NewTerminal(file, "")}
	err = t.control(func(fd int) (err error) {
		if width, height, err := term.GetSize(fd); err == nil && width > 0 {
			_ = t.line.SetSize(width, height) // it only redraws
		}
		t.back, err = term.MakeRaw(fd)
		return err
	})
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	t.release = context.AfterFunc(ctx, func() { _ = file.SetReadDeadline(time.Now()) })
	return t, nil
}

// control does something with the descriptor; File.Fd would take its deadlines away.
func (t *terminal) control(do func(fd int) error) error {
	conn, err := t.file.SyscallConn()
	if err != nil {
		return err
	}
	var done error
	return errors.Join(conn.Control(func(fd uintptr) { done = do(int(fd)) }), done)
}

// ReadLine implements initialise.Terminal.
func (t *terminal) ReadLine(prompt string) (string, error) {
	t.line.SetPrompt(prompt)
	text, err := t.line.ReadLine()
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return "", context.Canceled
	}
	return text, err
}

// Write implements initialise.Terminal.
func (t *terminal) Write(p []byte) (int, error) { return t.line.Write(p) }

// Close leaves the terminal as it was.
func (t *terminal) Close() error {
	t.release()
	return errors.Join(t.control(func(fd int) error { return term.Restore(fd, t.back) }), t.file.Close())
}
