package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"slipway/e2e/netns"
)

// step is one command of a document, for each of the hosts before its prompt, and what it has to print.
type step struct {
	hosts   []string
	command string
	want    []string
}

var (
	prompt  = regexp.MustCompile(`^([a-z0-9]+(?: [a-z0-9]+)*)# (.+)$`)
	heredoc = regexp.MustCompile(`<<'(\w+)'$`)
)

// steps takes the commands out of a document's console blocks. A command goes on behind a backslash, and to the end of its here-document.
func steps(t *testing.T, document string) (list []step) {
	t.Helper()
	text, err := os.ReadFile(document)
	must(t, err)
	for _, block := range strings.Split(string(text), "```console\n")[1:] {
		block, _, _ := strings.Cut(block, "```")
		lines := strings.Split(strings.TrimSpace(block), "\n")
		for i := 0; i < len(lines); i++ {
			m := prompt.FindStringSubmatch(lines[i])
			if m == nil {
				list[len(list)-1].want = append(list[len(list)-1].want, lines[i])
				continue
			}
			s := step{hosts: strings.Fields(m[1]), command: m[2]}
			for strings.HasSuffix(lines[i], `\`) {
				i++
				s.command += "\n" + lines[i]
			}
			if end := heredoc.FindStringSubmatch(s.command); end != nil {
				for lines[i] != end[1] {
					i++
					s.command += "\n" + lines[i]
				}
			}
			list = append(list, s)
		}
	}
	return list
}

// hour is the three machines of docs/newcomer.md.
type hour struct {
	t        *testing.T
	machines map[string]*machine
	units    map[string]*unit // by host and name
	printed  string           // by the command before, to be pasted
	stored   time.Time        // when everything written was last known to be stored
	spoilt   time.Time        // when a good file became a bad one
}

// TestNewcomersHour does what docs/newcomer.md says, with the packages' files, the units' command lines and the hosts' own sshd. Of the ten minutes
// that pass there, the short form waits ten seconds.
func TestNewcomersHour(t *testing.T) {
	packages := makePackages(t, "..", "1.0")
	h := newHour(t, "alpha", "cache1", "vault1")
	for _, name := range []string{"alpha", "cache1"} {
		h.machines[name].copyIn(filepath.Join(packages, deb("1.0")), "/root")
	}
	list := steps(t, "../docs/newcomer.md")
	for _, s := range list {
		for _, host := range s.hosts {
			h.do(host, s)
		}
	}
	if len(list) < 30 {
		t.Errorf("only %d commands were run", len(list))
	}
	for _, u := range h.units {
		u.stop()
	}
}

// newHour makes the machines as the document wants them: they find each other by name, and OpenSSH's server runs, with keys of its own.
func newHour(t *testing.T, names ...string) *hour {
	t.Helper()
	network, err := netns.New(names...)
	must(t, err)
	t.Cleanup(func() { must(t, network.Close()) })
	h := &hour{t: t, machines: map[string]*machine{}, units: map[string]*unit{}}
	hosts := "127.0.0.1 localhost\n"
	for _, name := range names {
		hosts += network.Node(name).Addr + " " + name + "\n"
	}
	for _, name := range names {
		m := newMachine(t, name, network.Node(name))
		h.machines[name] = m
		must(t, os.WriteFile(m.path("/etc/hosts"), []byte(hosts), 0o644))
		m.run("rm -f /etc/ssh/ssh_host_* /etc/ssh/sshd_config.d/* && ssh-keygen -q -A")
		h.systemctl(name, "start", "ssh")
	}
	return h
}

// do does one step on one host.
func (h *hour) do(host string, s step) {
	h.t.Helper()
	h.t.Logf("%s# %s", host, s.command)
	m := h.machines[host]
	command := h.age(s.command)
	switch args := strings.Fields(command); {
	case args[0] == "systemctl":
		h.systemctl(host, args[1], args[len(args)-1])
	case command == "cat >> "+args[len(args)-1]:
		must(h.t, os.WriteFile(m.path("/root/pasted"), []byte(h.printed), 0o600))
		m.run(command + " < pasted")
	case strings.HasPrefix(command, "slipway init"):
		h.converse(m, command, s.want)
	case len(s.want) > 0: // sooner or later: what happens elsewhere takes its time
		eventually(h.t, 20*time.Second, command, func() (err error) {
			h.printed, err = m.prints(command, s.want)
			return err
		})
	default:
		h.printed = m.run(command)
	}
	if strings.Contains(h.printed, "fault") && !strings.Contains(h.printed, "no faults") {
		h.t.Errorf("%s# %s\n%s", host, command, h.printed)
	}
	if strings.Contains(command, "--stage stored") {
		h.stored = time.Now()
	}
}

// converse answers a program's questions as the document does: each line is a question, and the answer behind the colon and the blank.
func (h *hour) converse(m *machine, command string, lines []string) {
	h.t.Helper()
	d := onTerminal(h.t, m.command(command))
	for _, line := range lines {
		question, answer, _ := strings.Cut(line+" ", ": ")
		d.expect(question + ": ")
		d.answer(strings.TrimSpace(answer) + "\r")
	}
	if out, err := d.end(); err != nil {
		h.t.Fatalf("%s: %v\n%s", command, err, out)
	}
}

// age has ten minutes pass between the last time that everything was stored and the moment a file is spoilt. The short form waits less, and asks by the
// same command for an age that leads between the two as well.
func (h *hour) age(command string) string {
	pass := 10 * time.Second // also what a busy machine may take to start the command that asks
	if *full {
		pass = 10*time.Minute + time.Second
	}
	if strings.HasPrefix(command, "echo 'oh no'") {
		<-time.After(time.Until(h.stored.Add(pass)))
		h.spoilt = time.Now()
	}
	if *full {
		return command
	}
	return strings.ReplaceAll(command, "10m ago", fmt.Sprintf("%ds ago", int((time.Since(h.spoilt)+pass).Seconds())))
}

// prints is an error until a command prints all this. Blanks are as many as the table needs, and … stands for anything on the line.
func (m *machine) prints(command string, want []string) (out string, err error) {
	out, code := m.try(command)
	if code != 0 {
		return out, fmt.Errorf("exit code %d\n%s", code, out)
	}
	for _, line := range want {
		words := strings.Fields(line)
		for i, w := range words {
			words[i] = strings.ReplaceAll(regexp.QuoteMeta(w), "…", ".*")
		}
		if !regexp.MustCompile(strings.Join(words, `[ \t]*`)).MatchString(out) {
			return out, fmt.Errorf("no %q in\n%s", line, out)
		}
	}
	return out, nil
}

// systemctl does what systemd would.
func (h *hour) systemctl(host, verb, name string) {
	h.t.Helper()
	key := host + " " + name
	switch verb {
	case "start", "enable":
		h.units[key] = h.machines[host].startUnit(name)
	case "stop":
		h.units[key].stop()
		delete(h.units, key)
	case "reload":
		h.units[key].reload()
	default:
		h.t.Fatalf("systemctl %s is nothing that this test knows", verb)
	}
}
