package e2e

import (
	"bufio"
	"cmp"
	"fmt"
	"net"
	"os"
	"regexp"
	"strings"
	"time"
)

// unit is a started service of a machine.
type unit struct {
	m    *machine
	name string
	pid  string // the machine's own

	reloads []string // the commands that have it read its configuration again
	log     *lockedBuffer
	told    *net.UnixConn // what it tells systemd
	done    chan struct{}
	err     error
}

// settings are the values that a unit file has for a key.
func settings(text, key string) (list []string) {
	for _, m := range regexp.MustCompile(`(?m)^`+key+`=(.*)$`).FindAllStringSubmatch(text, -1) {
		list = append(list, strings.TrimSpace(m[1]))
	}
	return list
}

// setting is the first of them; empty: there is none.
func setting(text, key string) string {
	return append(settings(text, key), "")[0]
}

// startUnit does what systemd does with an installed unit, as far as its settings concern who a daemon is: account, groups, capabilities, umask,
// state directory. It returns when the daemon has said that it is ready.
func (m *machine) startUnit(name string) *unit {
	m.t.Helper()
	file, instance := name, ""
	if before, after, ok := strings.Cut(name, "@"); ok {
		file, instance = before+"@", after
	}
	data, err := os.ReadFile(m.path("/usr/lib/systemd/system/" + file + ".service"))
	must(m.t, err)
	text := strings.ReplaceAll(string(data), "%i", instance)
	as := "exec setpriv"
	if mask := setting(text, "UMask"); mask != "" {
		as = "umask " + mask + "; " + as
	}
	if setting(text, "NoNewPrivileges") == "yes" {
		as += " --no-new-privs"
	}
	if bound := settings(text, "CapabilityBoundingSet"); len(bound) > 0 {
		as += " --bounding-set=-all"
		for _, c := range strings.Fields(bound[0]) {
			as += ",+" + strings.ToLower(strings.TrimPrefix(c, "CAP_"))
		}
	}
	user, group := setting(text, "User"), setting(text, "Group")
	if user != "" {
		as += " --reuid " + user + " --regid " + group + " --init-groups"
	}
	if dir := setting(text, "StateDirectory"); dir != "" { // with all that lies there already, as systemd does
		owner := cmp.Or(user, "root") + ":" + cmp.Or(group, "root")
		m.run(fmt.Sprintf("mkdir -p /var/lib/%[1]s; [ $(stat -c %%U:%%G /var/lib/%[1]s) = %[2]s ] || chown -R %[2]s /var/lib/%[1]s", dir, owner))
	}
	if dir := setting(text, "RuntimeDirectory"); dir != "" {
		m.run("install -d /run/" + dir)
	}
	m.run(as + " " + setting(text, "ExecStartPre"))
	u := m.startDaemon(name, as+" "+setting(text, "ExecStart"), true)
	u.reloads = settings(text, "ExecReload")
	return u
}

// startDaemon starts a daemon by a line of shell that ends in exec; one that notifies is waited for.
func (m *machine) startDaemon(name, line string, notifies bool) *unit {
	m.t.Helper()
	cmd := m.command("echo $$; " + line)
	ready := "/run/" + name + ".notify"
	_ = os.Remove(m.path(ready)) // of a start before
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: m.path(ready), Net: "unixgram"})
	must(m.t, err)
	must(m.t, os.Chmod(m.path(ready), 0o777))
	m.t.Cleanup(func() { _ = socket.Close() })
	u := &unit{m: m, name: name, log: &lockedBuffer{}, told: socket, done: make(chan struct{})}
	cmd.Env = append(cmd.Env, "NOTIFY_SOCKET="+ready)
	stdout, err := cmd.StdoutPipe()
	must(m.t, err)
	cmd.Stderr = u.log
	must(m.t, cmd.Start())
	pid, err := bufio.NewReader(stdout).ReadString('\n')
	must(m.t, err)
	u.pid = strings.TrimSpace(pid)
	go func() {
		u.err = cmd.Wait()
		close(u.done)
	}()
	m.t.Cleanup(func() {
		if m.t.Failed() {
			m.t.Logf("output of %s on %s:\n%s", name, m.name, tail(u.log.String(), 40))
		}
	})
	if notifies {
		u.hear("READY=1")
	}
	return u
}

// hear waits for a message of the daemon.
func (u *unit) hear(want string) {
	u.m.t.Helper()
	buf := make([]byte, 4096)
	must(u.m.t, u.told.SetReadDeadline(time.Now().Add(30*time.Second*busy)))
	for {
		n, err := u.told.Read(buf)
		if err != nil {
			u.m.t.Fatalf("%s on %s does not say %s: %v\n%s", u.name, u.m.name, want, err, tail(u.log.String(), 20))
		}
		if strings.Contains(string(buf[:n]), want) {
			return
		}
	}
}

// stop ends the daemon as systemd does.
func (u *unit) stop() {
	u.m.t.Helper()
	u.m.run("kill -TERM " + u.pid)
	u.ended()
}

// reload has the daemon read its configuration again.
func (u *unit) reload() {
	u.m.t.Helper()
	for _, line := range u.reloads {
		u.m.run(strings.ReplaceAll(line, "$MAINPID", u.pid))
	}
	u.hear("READY=1")
}

// ended waits until the daemon has ended well.
func (u *unit) ended() {
	u.m.t.Helper()
	select {
	case <-u.done:
		if u.err != nil {
			u.m.t.Errorf("%s on %s ended with %v\n%s", u.name, u.m.name, u.err, tail(u.log.String(), 20))
		}
	case <-time.After(30 * time.Second * busy):
		u.m.t.Fatalf("%s on %s does not end\n%s", u.name, u.m.name, tail(u.log.String(), 20))
	}
}
