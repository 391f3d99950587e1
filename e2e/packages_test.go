package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// makePackages runs `make packages` in a checkout and returns where the packages are.
func makePackages(t *testing.T, checkout, version string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	cmd := exec.Command("make", "-C", checkout, "packages", "PACKAGES="+dir, "VERSION="+version, "COMMIT=0123abc", "SOURCE_DATE_EPOCH=1790000000")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", cmd.Args, err, out)
	}
	return dir
}

// deb and rpm are the files' names as package managers expect them.
func deb(version string) string { return "slipway_" + version + "_" + runtime.GOARCH + ".deb" }
func rpm(version string) string {
	return "slipway-" + version + "-1." + map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[runtime.GOARCH] + ".rpm"
}

// TestPackages builds the packages, and installs, upgrades, removes and purges the deb, with a volume in use.
func TestPackages(t *testing.T) {
	first := makePackages(t, "..", "1.0")
	second := makePackages(t, "..", "1.1")
	t.Run("same bytes", func(t *testing.T) { sameBytes(t, first) })
	t.Run("deb", func(t *testing.T) {
		m := newMachine(t, "alpha", nil)
		m.copyIn(filepath.Join(first, deb("1.0")), "/root")
		m.copyIn(filepath.Join(second, deb("1.1")), "/root")
		calls := m.watchSystemctl()
		m.run("dpkg -i /root/" + deb("1.0"))
		m.installed("dpkg -L slipway")
		u, holder := m.inUse()
		m.besideMount()
		m.upgraded(u, "dpkg -i /root/"+deb("1.1"), "1.1")
		m.removed(u, holder, "dpkg -r slipway")
		m.purged()
		if got := strings.Fields(strings.ReplaceAll(calls(), "\n", " ")); len(got) == 0 || slices.ContainsFunc(got, func(c string) bool { return c != "daemon-reload" }) {
			t.Errorf("systemctl was called with %q; only daemon-reload is asked for", got)
		}
	})
	t.Run("rpm", func(t *testing.T) {
		sameContents(t, filepath.Join(first, deb("1.0")), filepath.Join(first, rpm("1.0")))
		m := newMachine(t, "alpha", nil)
		m.copyIn(filepath.Join(first, rpm("1.0")), "/root")
		m.copyIn(filepath.Join(second, rpm("1.1")), "/root")
		m.run("rpm -i --nodeps /root/" + rpm("1.0")) // this system's packages are not in rpm's books
		m.installed("rpm -ql slipway")
		m.run("rpm -V --nodeps slipway")
		u, holder := m.inUse()
		m.upgraded(u, "rpm -U --nodeps /root/"+rpm("1.1"), "1.1")
		m.removed(u, holder, "rpm -e slipway")
	})
}

// sameBytes builds once more, from a copy of the sources that lies elsewhere and knows no git, and compares.
func sameBytes(t *testing.T, first string) {
	t.Helper()
	copied := filepath.Join(t.TempDir(), "sources")
	if out, err := exec.Command("bash", "-c", `cd .. && mkdir -p "$1"/.build && cp -a .build/nfpm "$1"/.build && `+
		`find . -mindepth 1 -maxdepth 1 ! -name .git ! -name .build -exec cp -a {} "$1" \;`, "bash", copied).CombinedOutput(); err != nil {
		t.Fatalf("copy the sources: %v\n%s", err, out)
	}
	again := makePackages(t, copied, "1.0")
	for _, name := range []string{deb("1.0"), rpm("1.0"), "SHA256SUMS"} {
		a, err := os.ReadFile(filepath.Join(first, name))
		must(t, err)
		b, err := os.ReadFile(filepath.Join(again, name))
		must(t, err)
		if !bytes.Equal(a, b) {
			t.Errorf("%s differs between two builds: %d and %d bytes", name, len(a), len(b))
		}
	}
	check := exec.Command("sha256sum", "--check", "--strict", "SHA256SUMS")
	check.Dir = first
	if out, err := check.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// watchSystemctl has what scripts ask systemd for written down: a machine without systemd would not show it.
func (m *machine) watchSystemctl() (calls func() string) {
	m.t.Helper()
	m.run(`mkdir -p /run/systemd/system && printf '#!/bin/sh\necho "$@" >>/run/systemctl.calls\n' >/usr/bin/systemctl.new &&
		chmod 755 /usr/bin/systemctl.new && mv /usr/bin/systemctl.new /usr/bin/systemctl`)
	return func() string { return m.run("cat /run/systemctl.calls") }
}

// installed checks files, owners and modes of an installed package, by its list of files.
func (m *machine) installed(list string) {
	m.t.Helper()
	// Directories that the system has anyway are not ours to judge.
	got := m.run(list + ` | grep -e slipway | sort -u | xargs -d '\n' stat -c '%A %U:%G %n'`)
	for _, want := range []string{
		"-rwxr-xr-x root:root /usr/bin/slipway", "lrwxrwxrwx root:root /usr/sbin/mount.fuse.slipway", "lrwxrwxrwx root:root /usr/sbin/mount.slipway",
		"-rw-r--r-- root:root /usr/lib/systemd/system/slipway-mount@.service", "-rw-r--r-- root:root /usr/lib/systemd/system/slipway-ship.service",
		"-rw-r--r-- root:root /usr/lib/sysusers.d/slipway.conf", "-rw-r--r-- root:root /usr/lib/tmpfiles.d/slipway.conf", "-rw-r--r-- root:root /usr/share/bash-completion/completions/slipway",
		"-rw-r--r-- root:root /usr/share/man/man1/slipway-spool-ls.1.gz",
		"-rw-r--r-- root:root /usr/share/man/man5/slipway.yml.5.gz", "lrwxrwxrwx root:root /usr/share/man/man8/mount.slipway.8.gz", "-rw-r--r-- root:root /usr/share/doc/slipway/README.md", "-rw-r--r-- root:root /usr/share/doc/slipway/examples/primary.yml",
		"-rw-r--r-- root:root /usr/share/slipway/prometheus/slipway.rules.yml", "-rw-r--r-- root:root /usr/share/slipway/grafana/slipway.json",
		"drwxr-x--- root:slipway /etc/slipway", "drwxr-x--- root:slipway /etc/slipway/keys",
	} {
		if !strings.Contains(got, want+"\n") {
			m.t.Errorf("no %q in\n%s", want, got)
		}
	}
	for line := range strings.SplitSeq(strings.TrimSpace(got), "\n") {
		if !strings.Contains(line, " /etc/slipway") && !regexp.MustCompile(`^(-rw-r--r--|-rwxr-xr-x|drwxr-xr-x|lrwxrwxrwx) root:root `).MatchString(line) {
			m.t.Errorf("owner or mode: %s", line)
		}
	}
	if out := m.run("find /etc/slipway -type f"); out != "" {
		m.t.Errorf("a configuration nobody asked for: %s", out)
	}
	if out := m.run("getent passwd slipway"); !strings.Contains(out, ":/var/lib/slipway:") || !strings.Contains(out, "nologin") {
		m.t.Errorf("the account: %s", out)
	}
	if out, code := m.try("mount -f -t fuse.slipway projects /mnt"); code != 1 || !strings.Contains(out, "/etc/slipway/slipway.yml") {
		m.t.Errorf("mount(8) finds no helper: exit code %d\n%s", code, out)
	}
}

// inUse mounts a volume as its unit does, and has a program hold a file of it open.
func (m *machine) inUse() (mount, holder *unit) {
	m.t.Helper()
	m.run("mkdir /srv/projects /srv/cache && echo one > /srv/projects/before && slipway init --volume projects --node alpha --source /srv/projects " +
		"--mount /srv/projects --cache cache1=/srv/cache --identity /root/identity --config /etc/slipway/projects.yml")
	mount = m.startUnit("slipway-mount@projects")
	m.run("mkfifo /run/words")
	holder = m.startDaemon("holder", "exec 5>>/srv/projects/held 6<>/run/words; while read -r word <&6 && [ $word != end ]; do echo $word >&5; done", false)
	eventually(m.t, 10*time.Second, "a program to hold a file open", func() error { return m.reports("echo first > /run/words; cat /srv/projects/held", "first") })
	return mount, holder
}

// besideMount runs a daemon of the account slipway on the machine that mounts: neither takes the other's state.
func (m *machine) besideMount() {
	m.t.Helper()
	m.run(`install -d -o slipway -g slipway /srv/store /srv/vault && cat > /etc/slipway/ship.yml <<'EOF'
node: cache2
store: /srv/store
state: /var/lib/slipway/cache2
ship: {to: [{name: vault2, url: /srv/vault}]}
EOF`)
	m.startUnit("slipway-ship").stop()
	got := m.run("stat -c '%a %U:%G' /var/lib/slipway /var/lib/slipway/projects /var/lib/slipway/projects/node.key /var/lib/slipway/cache2")
	if want := "1770 root:slipway\n700 root:root\n600 root:root\n700 slipway:slipway\n"; got != want {
		m.t.Errorf("state directories\n%swant\n%s", got, want)
	}
}

// reports is an error until a line of shell prints a text.
func (m *machine) reports(line, want string) error {
	out, code := m.try(line)
	if code != 0 || !strings.Contains(out, want) {
		return fmt.Errorf("%s: exit code %d, no %q in\n%s", line, code, want, out)
	}
	return nil
}

// works checks that the volume is mounted by the same processes as before, that files opened before are written, and that changes are sealed and pushed.
func (m *machine) works(u *unit, before, when string) {
	m.t.Helper()
	if now := m.daemons(); now != before {
		m.t.Errorf("%s: processes %q, before %q", when, now, before)
	}
	m.run("grep -q ' /srv/projects .* fuse.slipway ' /proc/self/mountinfo && grep -qx one /srv/projects/before")
	word := strings.ReplaceAll(when, " ", "-")
	m.run("echo new > /srv/projects/" + word + "; echo " + word + " > /run/words")
	eventually(m.t, 10*time.Second, "the open file to be written", func() error { return m.reports("cat /srv/projects/held", word) })
	// The daemon's own program answers: the one on the disk may be gone.
	m.run("/proc/" + u.pid + "/exe wait /srv/projects/" + word + " --stage cached --timeout 4m -c /etc/slipway/projects.yml")
}

// upgraded: the mount does not notice an upgrade, and a child that has to be started again is of the same version as the others.
func (m *machine) upgraded(u *unit, install, version string) {
	m.t.Helper()
	before := m.daemons()
	if len(strings.Fields(before)) != 3 {
		m.t.Fatalf("processes %q, want supervisor, mount and spooler", before)
	}
	m.works(u, before, "before the upgrade")
	if out := m.run(install); strings.Contains(out, "WARNING: volumes") {
		m.t.Errorf("an upgrade warns:\n%s", out)
	}
	if out := m.run("slipway version"); !strings.HasPrefix(out, "slipway "+version+", commit 0123abc,") {
		m.t.Errorf("the upgraded program says %s", out)
	}
	m.works(u, before, "after the upgrade")
	m.run("slipway wait /srv/projects/before --stage cached --timeout 4m -c /etc/slipway/projects.yml") // the new program asks the old daemon

	m.run("pkill -KILL -f '^slipway spooler'")
	eventually(m.t, 20*time.Second, "another spooler", func() error {
		if now := m.daemons(); now == before || len(strings.Fields(now)) != 3 {
			return fmt.Errorf("processes %q, before %q", now, before)
		}
		return nil
	})
	for _, pid := range strings.Fields(m.daemons()) {
		if out := m.run("/proc/" + pid + "/exe version"); !strings.HasPrefix(out, "slipway 1.0,") {
			m.t.Errorf("process %s is %s", pid, out)
		}
	}
	m.works(u, m.daemons(), "with another spooler")
}

// removed: a removal warns of what is mounted and leaves it alone; configuration, keys and state stay.
func (m *machine) removed(u, holder *unit, remove string) {
	m.t.Helper()
	before := m.daemons()
	if out := m.run(remove); !strings.Contains(out, "WARNING: volumes are still mounted:\n  /srv/projects\n") {
		m.t.Errorf("no warning:\n%s", out)
	}
	m.works(u, before, "after the removal")
	for _, gone := range []string{"/usr/bin/slipway", "/usr/sbin/mount.slipway", "/usr/lib/systemd/system/slipway-mount@.service", "/usr/share/doc/slipway/README.md"} {
		if m.has(gone) {
			m.t.Errorf("%s is still there", gone)
		}
	}
	m.stays("the removal")
	m.run("echo end > /run/words")
	holder.ended() // a mount in use would not end at once
	u.stop()
	m.run("! grep -q fuse.slipway /proc/self/mountinfo && grep -qx one /srv/projects/before")
}

// stays checks that nothing is lost that cannot be made again.
func (m *machine) stays(what string) {
	m.t.Helper()
	for _, kept := range []string{"/etc/slipway/projects.yml", "/var/lib/slipway/projects/node.key", "/var/lib/slipway/projects/volume.secret"} {
		if !m.has(kept) {
			m.t.Errorf("%s took %s", what, kept)
		}
	}
}

// purged: a removal with nothing mounted says nothing, and a purge says what it leaves.
func (m *machine) purged() {
	m.t.Helper()
	m.run("dpkg -i /root/" + deb("1.1"))
	if out := m.run("dpkg -r slipway"); strings.Contains(out, "WARNING: volumes") {
		m.t.Errorf("a removal with nothing mounted warns:\n%s", out)
	}
	out := m.run("dpkg -P slipway")
	for _, dir := range []string{"/etc/slipway", "/var/lib/slipway"} {
		if !strings.Contains(out, "slipway: "+dir+" stays") {
			m.t.Errorf("purge does not say that %s stays:\n%s", dir, out)
		}
	}
	m.stays("the purge")
}

// sameContents checks that both packages hold the same files with the same owners and modes, apart from where zsh looks, and run the same scripts.
func sameContents(t *testing.T, deb, rpm string) {
	t.Helper()
	list := func(line, file string) []string {
		out, err := exec.Command("bash", "-o", "pipefail", "-c", line, "bash", file).Output()
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		return strings.Split(strings.TrimSpace(string(out)), "\n")
	}
	// rpm lists files only; dpkg-deb also the directories above them.
	ours := list(`dpkg-deb -c "$1" | sed -E 's/ -> .*//; s/^l\S+/link/' | awk '{sub(/^\./,"",$6); print $1,$2,$6}' | grep -vE '^d.* /(usr/.*|usr/|etc/|)$' | sed 's,/$,,' | sort`, deb)
	theirs := list(`rpm -qp --qf '[%{FILEMODES:perms} %{FILEUSERNAME}/%{FILEGROUPNAME} %{FILENAMES}\n]' "$1" | sed -E 's/^l\S+/link/; s,zsh/site-functions,zsh/vendor-completions,' | sort`, rpm)
	theirs = slices.DeleteFunc(theirs, func(s string) bool { return strings.HasPrefix(s, "d") && !strings.Contains(s, "/etc/slipway") })
	if len(ours) < 30 || !slices.Equal(ours, theirs) {
		t.Errorf("%d files in the deb\n%s\n\n%d in the rpm\n%s", len(ours), strings.Join(ours, "\n"), len(theirs), strings.Join(theirs, "\n"))
	}
	scripts := strings.Join(list(`rpm -qp --scripts "$1"`, rpm), "\n")
	for _, want := range []string{"preinstall scriptlet", "systemd-sysusers", "postinstall scriptlet", "daemon-reload", "preuninstall scriptlet", "still mounted", "postuninstall scriptlet"} {
		if !strings.Contains(scripts, want) {
			t.Errorf("no %q in the rpm's scripts:\n%s", want, scripts)
		}
	}
	for _, line := range list(`rpm -qp --scripts "$1" | grep -w systemctl`, rpm) {
		if !strings.Contains(line, "systemctl daemon-reload") {
			t.Errorf("the rpm's scripts run %s", line)
		}
	}
}
