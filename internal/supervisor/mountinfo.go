package supervisor

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// fstype is what the kernel calls a slipway mount.
const fstype = "fuse.slipway"

// mount is a line of mountinfo.
type mount struct {
	id, parent int
	point      string
	fstype     string
}

// readMounts lists the mounts that the calling thread sees.
func readMounts() ([]mount, error) {
	text, err := os.ReadFile("/proc/thread-self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("list mounts: %w", err)
	}
	return parseMounts(string(text)), nil
}

// parseMounts reads mountinfo; lines it does not understand are left out.
func parseMounts(text string) []mount {
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	var all []mount
	for line := range strings.Lines(text) {
		head, tail, ok := strings.Cut(line, " - ")
		fields, types := strings.Fields(head), strings.Fields(tail)
		if !ok || len(fields) < 5 || len(types) < 1 {
			continue
		}
		id, err1 := strconv.Atoi(fields[0])
		parent, err2 := strconv.Atoi(fields[1])
		if err1 == nil && err2 == nil {
			all = append(all, mount{id: id, parent: parent, point: unescape.Replace(fields[4]), fstype: types[0]})
		}
	}
	return all
}

// topAt returns the mount that a path to point leads into: the one there that carries no other. The order of the lines says
// nothing, as a mount can be put beneath another.
func topAt(all []mount, point string) (mount, bool) {
	carries := map[int]bool{}
	for _, m := range all {
		if m.point == point && m.parent != m.id {
			carries[m.parent] = true
		}
	}
	for _, m := range all {
		if m.point == point && !carries[m.id] {
			return m, true
		}
	}
	return mount{}, false
}

// slipwayAbove returns the slipway mount inside which path lies, without that at path itself.
func slipwayAbove(all []mount, path string) (string, bool) {
	for _, m := range all {
		if m.fstype == fstype && isBelow(path, m.point) {
			return m.point, true
		}
	}
	return "", false
}

func isBelow(path, dir string) bool {
	return path != dir && strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}

// condition of what lies at a path.
type condition int

const (
	noSlipway condition = iota
	alive
	dead
)

// answerTime is how long a mount may take to say that it lives; one that is silent is not dead.
const answerTime = 2 * time.Second

// inspect tells what lies on top at path, as the calling thread sees it.
func inspect(path string) (condition, error) {
	all, err := readMounts()
	if err != nil {
		return noSlipway, err
	}
	if top, ok := topAt(all, path); !ok || top.fstype != fstype {
		return noSlipway, nil
	}
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return noSlipway, fmt.Errorf("look at %s: %w", path, err)
	}
	return probe(fd), nil
}

// probe asks the file system of fd for its figures, as that question is never answered from a cache, and closes fd.
func probe(fd int) condition {
	answer := make(chan error, 1)
	var g errgroup.Group
	// Not waited for: who asks a mount process that is stopped waits until that goes on, or this process ends.
	g.Go(func() error {
		var st unix.Statfs_t
		answer <- unix.Fstatfs(fd, &st)
		return unix.Close(fd)
	})
	t := time.NewTimer(answerTime)
	defer t.Stop()
	select {
	case err := <-answer:
		if errors.Is(err, unix.ENOTCONN) || errors.Is(err, unix.ECONNABORTED) {
			return dead
		}
		return alive
	case <-t.C:
		return alive
	}
}
