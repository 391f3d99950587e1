package demo

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// What is taken of a real tree: enough to see something, and no more than a temporary place has room for.
const (
	mostFiles = 60
	mostBytes = 16 << 20
)

// writeTree writes a real tree and some awkward files into the mount, and returns the regular files' paths and their bytes.
func (d *demo) writeTree() (files []string, bytes int64, err error) {
	files, bytes, err = d.copyTree(d.realTree())
	if err != nil {
		return nil, 0, err
	}
	awkward, n, err := d.writeAwkward()
	return append(files, awkward...), bytes + n, err
}

// realTree is a directory with files that somebody wrote.
func (d *demo) realTree() string {
	candidates := []string{d.opt.Tree, "/usr/local/go/src/net", "/usr/share/doc", "/usr/share", "/etc"}
	for _, dir := range candidates {
		if st, err := os.Stat(dir); dir != "" && err == nil && st.IsDir() {
			return dir
		}
	}
	return "/"
}

var errEnough = errors.New("enough files")

func (d *demo) copyTree(from string) (files []string, bytes int64, err error) {
	d.say("a real tree: some of %s", from)
	to := d.path("mnt", "tree")
	err = filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return nil //nolint:nilerr // what cannot be read is not copied
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, rel)
		if e.IsDir() {
			return os.MkdirAll(target, 0o755)
		}
		if !e.Type().IsRegular() {
			return nil
		}
		n, err := copyFile(path, target)
		if err != nil {
			return err
		}
		files, bytes = append(files, filepath.Join("tree", rel)), bytes+n
		if len(files) >= mostFiles || bytes >= mostBytes {
			return errEnough
		}
		return nil
	})
	if errors.Is(err, errEnough) {
		err = nil
	}
	return files, bytes, err
}

func copyFile(from, to string) (n int64, err error) {
	in, err := os.Open(from)
	if err != nil {
		return 0, err
	}
	defer func() { _ = in.Close() }()
	out, err := os.Create(to)
	if err != nil {
		return 0, err
	}
	n, err = io.Copy(out, io.LimitReader(in, mostBytes))
	return n, errors.Join(err, out.Close())
}

// writeAwkward writes what backup programs get wrong, and returns what of it are regular files.
func (d *demo) writeAwkward() (files []string, bytes int64, err error) {
	root := d.path("mnt", "awkward")
	at := func(name string) string { return filepath.Join(root, name) }
	content := map[string]string{
		"name with\na newline": "1", "name that is not UTF-8 \xff\xfe": "2", `"quotes" and 'more'`: "3", "empty": "", "program": "#!/bin/sh\n",
	}
	err = errors.Join(os.MkdirAll(at("an empty directory"), 0o751), os.MkdirAll(at("deep/er"), 0o755))
	for name, text := range content {
		err = errors.Join(err, os.WriteFile(at(name), []byte(text), 0o640))
		files = append(files, filepath.Join("awkward", name))
		bytes += int64(len(text))
	}
	moment := time.Date(2001, 2, 3, 4, 5, 6, 789, time.UTC)
	err = errors.Join(err,
		os.Symlink("nowhere/at all", at("dangling link")), os.Link(at("empty"), at("deep/er/hard link")),
		unix.Mkfifo(at("fifo"), 0o600), unix.Chmod(at("program"), 0o4755), os.Chown(at(`"quotes" and 'more'`), 1234, 4321),
		unix.Setxattr(at("empty"), "user.demo", []byte("an attribute"), 0), os.Chtimes(at("empty"), moment, moment),
	)
	n, holes := sparse(at("holes"))
	return append(files, "awkward/holes"), bytes + n, errors.Join(err, holes)
}

// sparse writes a file of 64 MiB that holds a few bytes at both ends.
func sparse(path string) (n int64, err error) {
	f, err := os.Create(path)
	if err != nil {
		return 0, err
	}
	_, err = f.WriteAt([]byte("begin"), 0)
	_, err2 := f.WriteAt([]byte("end"), 64<<20)
	return 8, errors.Join(err, err2, f.Close())
}
