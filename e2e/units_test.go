package e2e

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// unitFiles copies the units of dist/ to a place where they can be checked, with the binary under test in the place of the installed one.
func unitFiles(t *testing.T) (dir string, texts map[string]string) {
	t.Helper()
	files, err := filepath.Glob("../dist/systemd/*.[st]*[er]")
	must(t, err)
	dir, texts = t.TempDir(), map[string]string{}
	for _, f := range files {
		if ext := filepath.Ext(f); ext != ".service" && ext != ".timer" {
			continue
		}
		text, err := os.ReadFile(f)
		must(t, err)
		texts[filepath.Base(f)] = string(text)
		must(t, os.WriteFile(filepath.Join(dir, filepath.Base(f)), bytes.ReplaceAll(text, []byte("/usr/bin/slipway"), []byte(binary)), 0o644))
	}
	if len(texts) < 6 {
		t.Fatalf("only %d units", len(texts))
	}
	return dir, texts
}

// TestUnitsVerify: systemd finds nothing wrong with any unit.
func TestUnitsVerify(t *testing.T) {
	dir, texts := unitFiles(t)
	for name := range texts {
		unit := strings.Replace(name, "@.", "@projects.", 1)
		cmd := exec.Command("systemd-analyze", "verify", "--man=no", "--recursive-errors=no", filepath.Join(dir, unit))
		cmd.Env = append(os.Environ(), "SYSTEMD_UNIT_PATH="+dir+":")
		if out, err := cmd.CombinedOutput(); err != nil || len(bytes.TrimSpace(out)) > 0 {
			t.Errorf("%s: %v\n%s", unit, err, out)
		}
	}
}

// TestMountUnitKeepsTheMount: a directive that makes a mount namespace would hide the mount from the host.
func TestMountUnitKeepsTheMount(t *testing.T) {
	_, texts := unitFiles(t)
	banned := regexp.MustCompile(`(?m)^(PrivateTmp|PrivateDevices|PrivateMounts|PrivateNetwork|PrivateIPC|PrivateUsers|Protect\w+|ProcSubset|Root\w+|(ReadOnly|ReadWrite|Inaccessible|Exec|NoExec)Paths|` +
		`Bind\w*Paths|TemporaryFileSystem|MountImages|Extension\w+|MountFlags|LogNamespace|DynamicUser|RestrictSUIDSGID)=`)
	if found := banned.FindAllString(texts["slipway-mount@.service"], -1); len(found) > 0 {
		t.Errorf("the mount's unit has %q", found)
	}
	if !banned.MatchString(texts["slipway-ship.service"]) {
		t.Error("the pattern finds nothing in a unit that is full of them")
	}
}

// TestUnitsStart runs each daemon by its unit's own command line: it says when it is ready, keeps the watchdog content, and says when it stops.
func TestUnitsStart(t *testing.T) {
	s := newSite(t, siteOptions{plain: true, vaults: []string{"vault1"}})
	_, texts := unitFiles(t)
	receive := filepath.Join(s.dir, "receive.yml")
	must(t, os.Mkdir(filepath.Join(s.dir, "received"), 0o755))
	owner, err := os.ReadFile(filepath.Join(s.dir, "state", "node.key.pub"))
	must(t, err)
	must(t, os.WriteFile(receive, fmt.Appendf(nil, "node: vault2\nstore: %s\nstate: %s\nowners: {projects: [%q]}\nreceive: {}\n",
		filepath.Join(s.dir, "received"), filepath.Join(s.dir, "receive-state"), bytes.TrimSpace(owner)), 0o600))
	peer := filepath.Join(s.dir, "peer.yml")
	must(t, os.Mkdir(filepath.Join(s.dir, "replicas"), 0o755))
	must(t, os.WriteFile(peer, []byte("node: bravo\nstore: "+filepath.Join(s.dir, "replicas")+"\nstate: "+filepath.Join(s.dir, "peer-state")+
		"\npeer: {cache: {name: cache1, url: "+s.hosts["cache1"].data+"}}\n"), 0o600))
	for unit, conf := range map[string]string{"slipway-mount@": s.config, "slipway-ship": s.cacheCf, "slipway-peer": peer, "slipway-receive": receive} {
		t.Run(strings.TrimSuffix(unit, "@"), func(t *testing.T) {
			text := texts[unit+".service"]
			for _, line := range []string{"ExecStartPre", "ExecStart"} {
				m := regexp.MustCompile(`(?m)^` + line + `=/usr/bin/slipway (.*)$`).FindStringSubmatch(text)
				if m == nil {
					t.Fatalf("no %s", line)
				}
				args := strings.Fields(regexp.MustCompile(`/etc/slipway/\S+`).ReplaceAllString(m[1], conf))
				if line == "ExecStart" {
					notifies(t, args)
				} else if out, err := exec.Command(binary, args...).CombinedOutput(); err != nil {
					t.Fatalf("%q: %v\n%s", args, err, out)
				}
			}
		})
	}
}

// notifies starts a daemon as systemd does and listens.
func notifies(t *testing.T, args []string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	must(t, err)
	defer func() { must(t, socket.Close()) }()
	cmd := exec.Command(binary, args...)
	out := &lockedBuffer{}
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+path, "WATCHDOG_USEC=400000")
	must(t, cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	hear := func(want string) {
		t.Helper()
		buf := make([]byte, 4096)
		must(t, socket.SetReadDeadline(time.Now().Add(20*time.Second*busy)))
		for {
			n, err := socket.Read(buf)
			if err != nil {
				_ = cmd.Process.Kill()
				t.Fatalf("waiting for %s: %v\n%s", want, err, tail(out.String(), 20))
			}
			if strings.Contains(string(buf[:n]), want) {
				return
			}
		}
	}
	hear("READY=1")
	hear("WATCHDOG=1")
	hear("STATUS=")
	must(t, cmd.Process.Signal(syscall.SIGHUP)) // as ExecReload does
	hear("RELOADING=1\nMONOTONIC_USEC=")
	hear("READY=1")
	must(t, cmd.Process.Signal(syscall.SIGTERM))
	hear("STOPPING=1")
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("%q ended with %v\n%s", args, err, tail(out.String(), 20))
		}
	case <-time.After(20 * time.Second * busy):
		_ = cmd.Process.Kill()
		t.Fatalf("%q does not end", args)
	}
}
