package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// xattr returns an extended attribute of a file of the mount; "" for none.
func (s *site) xattr(name, attr string) string {
	s.t.Helper()
	buf := make([]byte, 4096)
	n, err := unix.Getxattr(filepath.Join(s.mount, name), "user.slipway."+attr, buf)
	if err != nil && !errors.Is(err, unix.ENODATA) {
		s.t.Fatal(err)
	}
	return string(buf[:max(n, 0)])
}

// told is xattr for what has an answer: the mount waits for one for 50 ms only.
func (s *site) told(name, attr string) (value string) {
	s.t.Helper()
	s.eventually(20*time.Second, attr+" of "+name, func() error {
		if value = s.xattr(name, attr); value == "" {
			return errors.New("no answer")
		}
		return nil
	})
	return value
}

// TestXattrs follows a file through every stage by what its extended attributes say.
func TestXattrs(t *testing.T) {
	s := newSite(t, siteOptions{hosts: []string{"bravo", "cache1", "vault1"}, replicas: []string{"bravo"}, vaults: []string{"vault1"}, primary: "min_replicas: 1"})
	s.hosts["bravo"].down()
	s.hosts["cache1"].down()
	s.startPrimary()
	f, err := os.Create(filepath.Join(s.mount, "file"))
	must(t, err)
	_, err = f.WriteString("content")
	must(t, err)
	s.becomes("pending", "", "open for writing")
	if since, err := time.Parse(time.RFC3339Nano, s.told("file", "since")); err != nil || time.Since(since) > time.Minute {
		t.Errorf("since %v, %v", since, err)
	}
	if batch := s.xattr("file", "batch"); batch != "" {
		t.Errorf("pending in batch %q", batch)
	}
	must(t, f.Close())
	s.becomes("sealed", "", "waits for the replica peers")
	if row := s.jsonLines("explain", filepath.Join(s.mount, "file"), "-c", s.config)[0]; s.told("file", "batch") != fmt.Sprint(row["batch"]) || row["since"] != s.told("file", "since") {
		t.Errorf("batch %q since %q, explain says %v", s.xattr("file", "batch"), s.xattr("file", "since"), row)
	}
	s.serve(s.hosts["bravo"])
	s.becomes("replicated", "bravo", "waits for the cache")
	s.serve(s.hosts["cache1"])
	s.becomes("cached", "bravo,cache1", "waits for")
	s.startShipper()
	s.becomes("stored", "bravo,cache1,vault1", "waits to be read back")
	s.told(".", "stage")

	if n, err := unix.Listxattr(filepath.Join(s.mount, "file"), nil); err != nil || n != 0 {
		t.Errorf("%d bytes of names are listed, %v", n, err)
	}
	if err := unix.Setxattr(filepath.Join(s.mount, "file"), "user.slipway.stage", []byte("stored"), 0); !errors.Is(err, unix.EPERM) {
		t.Errorf("set: %v", err)
	}
	spooler := s.child("spooler")[0]
	must(t, syscall.Kill(spooler, syscall.SIGSTOP))
	defer syscall.Kill(spooler, syscall.SIGCONT) //nolint:errcheck // it is there
	began := time.Now()
	if stage := s.xattr("file", "stage"); stage != "" {
		t.Errorf("a stopped spooler says %q", stage)
	}
	if took := time.Since(began); took > time.Second*busy {
		t.Errorf("without an answer it took %v", took)
	}
}

// becomes waits until a file is said to be at a stage, in these stores, and to wait for something.
func (s *site) becomes(stage, copies, why string) {
	s.t.Helper()
	s.eventually(30*time.Second, "the file to be "+stage, func() error {
		is, at, waits := s.xattr("file", "stage"), s.xattr("file", "copies"), s.xattr("file", "waiting_for")
		if is != stage || at != copies || !strings.HasPrefix(waits, why) {
			return fmt.Errorf("it is %s, in %q, and waits for %q", is, at, waits)
		}
		return nil
	})
}
