package fusefs

import (
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var stressFor = flag.Duration("stress", time.Minute, "how long TestStressors takes altogether")

// stressors are those of stress-ng's file-system classes that work on files of one directory. The rest is about mounts, other file systems and
// kernel interfaces.
const stressors = "access chattr chdir chmod chown copy-file dentry dir dirdeep dirmany dnotify fallocate fcntl fiemap file-ioctl filename flock fpunch " +
	"fsize fstat getdent handle hdd inode-flags inotify io iomix lease link locka lockf lockofd mknod mmap open readahead rename revio seek " +
	"sendfile splice symlink sync-file touch utime xattr"

// stressorArgs: chdir holds 8192 directories open a process, each two descriptors of the mount process, which are limited where the tests run.
var stressorArgs = map[string][]string{"chdir": {"--chdir-dirs", "1000"}}

// TestStressors runs each of stress-ng's stressors on the mount, two processes at a time, which check what they read and what calls answer.
func TestStressors(t *testing.T) {
	f := mounted(t)
	names := strings.Fields(stressors)
	each := max(time.Second, *stressFor/time.Duration(len(names))).Round(time.Second)
	for _, name := range names {
		dir := f.path(name)
		must(t, os.Mkdir(dir, 0o777))
		cmd := exec.Command("timeout", append([]string{"--kill-after=5", "120", "stress-ng", "--temp-path", dir, "--verify", "--timeout", each.String(), "--" + name, "2"},
			stressorArgs[name]...)...)
		cmd.Dir = t.TempDir()
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v\n%s", name, err, out)
		} else if !strings.Contains(string(out), "successful run completed") {
			t.Errorf("%s does not say that it went well:\n%s", name, out)
		}
		if name == "chattr" { // ended between two ioctls, it leaves what may not be removed; on a bare file system, too
			clearFlags(t, dir)
		}
		if left, _ := filepath.Glob(filepath.Join(dir, "*")); len(left) > 0 {
			t.Errorf("%s leaves %q", name, left)
		}
	}
}

// clearFlags removes a tree whose files may be immutable or append-only.
func clearFlags(t *testing.T, dir string) {
	t.Helper()
	if out, err := exec.Command("chattr", "-R", "-ia", dir).CombinedOutput(); err != nil {
		t.Errorf("chattr -R -ia: %v\n%s", err, out)
	}
	left, err := filepath.Glob(filepath.Join(dir, "*"))
	must(t, err)
	for _, path := range left {
		must(t, os.RemoveAll(path))
	}
}
