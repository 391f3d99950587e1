package store

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"path"
	"path/filepath"
	"strconv"
	"strings"
)

// place is where a store lies.
type place struct {
	user, host, port string // empty for a local directory
	path             string // absolute over SFTP
}

func (p place) addr() string { return net.JoinHostPort(p.host, p.port) }

// CheckURL tells what is wrong with a store URL, with the fix.
func CheckURL(url string) error {
	_, err := parseURL(url)
	return err
}

const wanted = "write sftp://user@host:22/abs/path or the path of a directory"

func parseURL(s string) (place, error) {
	var p place
	err := checkCharacters(s)
	switch {
	case err != nil:
	case strings.HasPrefix(s, "sftp://"):
		p, err = parseSFTP(s)
	case strings.HasPrefix(s, "sftp:"):
		err = errors.New("the slashes are missing: " + wanted)
	case strings.Contains(s, "://"):
		err = errors.New("this kind of store is unknown: " + wanted)
	case strings.HasPrefix(s, "~"):
		err = errors.New("~ is not expanded here: write the directory out")
	default:
		p.path = filepath.Clean(s)
	}
	if err != nil {
		return place{}, fmt.Errorf("store %q: %w", redact(s), err)
	}
	return p, nil
}

func checkCharacters(s string) error {
	if s == "" {
		return errors.New("empty: " + wanted)
	}
	if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return errors.New("contains control characters: " + wanted)
	}
	return nil
}

func parseSFTP(s string) (place, error) {
	u, err := url.Parse(s)
	if err != nil {
		var inner *url.Error
		if errors.As(err, &inner) {
			err = inner.Err // the outer one would print the whole URL again
		}
		return place{}, fmt.Errorf("%w: %s", err, wanted)
	}
	p := place{user: u.User.Username(), host: u.Hostname(), port: u.Port(), path: u.Path}
	if p.port == "" {
		p.port = "22"
	}
	if _, has := u.User.Password(); has {
		return place{}, errors.New("a password has no place here: use an SSH key (ssh: {key: FILE})")
	}
	if p.user == "" {
		return place{}, errors.New("the user is missing: " + wanted)
	}
	if p.host == "" || strings.HasPrefix(p.host, "-") {
		return place{}, errors.New("the host is missing: " + wanted)
	}
	if n, err := strconv.Atoi(p.port); err != nil || n < 1 || n > 65535 {
		return place{}, errors.New("the port is not between 1 and 65535: " + wanted)
	}
	if u.RawQuery != "" || u.Fragment != "" || u.ForceQuery {
		return place{}, errors.New("? and # mean nothing here: " + wanted)
	}
	p.path, err = checkPath(p.path)
	return p, err
}

func checkPath(s string) (string, error) {
	switch {
	case s == "":
		return "", errors.New("the path is missing: " + wanted)
	case strings.HasPrefix(s, "//"):
		return "", errors.New("two slashes before the path: one already makes it absolute")
	case strings.HasPrefix(s, "/~"):
		return "", errors.New("~ is not expanded here: write the path out")
	}
	if err := checkCharacters(s); err != nil { // percent escapes are undone by now
		return "", err
	}
	for element := range strings.SplitSeq(s, "/") {
		if element == ".." {
			return "", errors.New(".. in the path: write where it leads")
		}
	}
	return path.Clean(s), nil
}

// redact keeps a password out of messages and logs.
func redact(s string) string {
	scheme, rest, ok := strings.Cut(s, "://")
	if !ok {
		return s
	}
	at := strings.LastIndex(rest, "@")
	if at < 0 {
		return s
	}
	user, _, has := strings.Cut(rest[:at], ":")
	if !has {
		return s
	}
	return scheme + "://" + user + ":…" + rest[at:]
}
