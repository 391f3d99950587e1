package config

import (
	"net/url"
	"os"
	"time"

	"github.com/goccy/go-yaml/ast"
)

// Hooks are the operator's commands: of each event the program and its arguments; empty: none.
type Hooks struct {
	Stalled, BehindRPO, VerificationFailed, Takeover, Recovered []string
}

// Heartbeat is an address that is asked for as long as all is well.
type Heartbeat struct {
	URL   string // "": none
	Every time.Duration
}

// Hooks returns the hooks block of whichever role it is.
func (c *Config) Hooks() Hooks {
	switch {
	case c.Primary != nil:
		return c.Primary.Hooks
	case c.Peer != nil:
		return c.Peer.Hooks
	case c.Receive != nil:
		return c.Receive.Hooks
	}
	return c.Cache.Hooks
}

// Heartbeat returns the heartbeat block of whichever role it is.
func (c *Config) Heartbeat() Heartbeat {
	switch {
	case c.Primary != nil:
		return c.Primary.Heartbeat
	case c.Peer != nil:
		return c.Peer.Heartbeat
	case c.Receive != nil:
		return c.Receive.Heartbeat
	}
	return c.Cache.Heartbeat
}

func hooksBlock(h *Hooks) reader {
	fields := []field{}
	for _, hook := range h.named() {
		fields = append(fields, field{hook.key, command(hook.command), ""})
	}
	return object(fields...)
}

type namedHook struct {
	key     string
	command *[]string
}

func (h *Hooks) named() []namedHook {
	return []namedHook{
		{"stalled", &h.Stalled}, {"behind_rpo", &h.BehindRPO}, {"verification_failed", &h.VerificationFailed},
		{"takeover", &h.Takeover}, {"recovered", &h.Recovered},
	}
}

// command reads a program by its whole path and its arguments. No shell takes it apart, so nothing in it can be taken for something else.
func command(dst *[]string) reader {
	read := list(dst, func(s *string) reader { return text(s, nil) })
	return func(d *document, n ast.Node, path string) {
		if _, ok := n.(*ast.SequenceNode); !ok {
			d.fault(place(n), `write a list: ["/usr/local/bin/tell", "argument"]; for a shell's line: ["/bin/sh", "-c", "…"]`, "%s is not a list of a program and its arguments", quoted(path))
			return
		}
		read(d, n, path)
		if len(*dst) == 0 {
			d.fault(place(n), "name a program, or remove the line", "%s is empty", path)
			return
		}
		if problem, fix := checkPath((*dst)[0]); problem != "" {
			d.fault(d.either(path+"[0]", path), fix, "%s: %s", path, problem)
		}
	}
}

func heartbeatBlock(h *Heartbeat) reader {
	read := object(
		field{"url", text(&h.URL, checkHeartbeat), "url: \"https://…\""},
		field{"every", duration(&h.Every, time.Second, 24*time.Hour), ""},
	)
	return func(d *document, n ast.Node, path string) {
		h.Every = time.Minute
		read(d, n, path)
	}
}

func checkHeartbeat(s string) (problem, fix string) {
	if u, err := url.Parse(s); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return "not the address of a web page", `write "https://host/path"`
	}
	return "", ""
}

// hooks looks whether the programs are there and may be run.
func (d *document) hooks(h Hooks) {
	for _, hook := range h.named() {
		if len(*hook.command) == 0 {
			continue
		}
		key, program := "hooks."+hook.key, (*hook.command)[0]
		st, err := os.Stat(program)
		switch {
		case err != nil:
			d.fault(d.at[key], "install it, or name another one", "%s: %v", key, err)
		case st.IsDir() || st.Mode()&0o111 == 0:
			d.fault(d.at[key], "chmod +x "+program, "%s: %s is not a program", key, program)
		case st.Mode()&0o022 != 0:
			d.fault(d.at[key], "chmod go-w "+program, "%s: others than its owner can write %s, and so run what they want as the daemon's user", key, program)
		}
	}
}
