package sshd

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

func (s *Server) path(name string) string { return filepath.Join(s.Dir, name) }

// configure makes what is missing of the keys and writes sshd_config, authorized_keys and known_hosts.
func (s *Server) configure(opt Options) error {
	hostKey, err := publicKey(s.path("host_key"))
	if err != nil {
		return err
	}
	clientKey, err := publicKey(s.KeyFile)
	if err != nil {
		return err
	}
	host, port, err := net.SplitHostPort(s.Addr)
	if err != nil {
		return err
	}
	if err := os.WriteFile(s.KnownHosts, fmt.Appendf(nil, "[%s]:%s %s\n", host, port, hostKey), 0o600); err != nil {
		return err
	}
	if err := os.WriteFile(s.path("authorized_keys"), append(clientKey, '\n'), 0o600); err != nil {
		return err
	}
	return os.WriteFile(s.path("sshd_config"), s.config(opt), 0o600)
}

// config names everything that could otherwise be taken from the host's own set-up.
func (s *Server) config(opt Options) []byte {
	sftp := "internal-sftp"
	if opt.Trace {
		sftp = "exec 2>>'" + s.path("trace") + "' /usr/lib/openssh/sftp-server -e -l VERBOSE"
	}
	if !opt.AllowAll {
		sftp += " -u 0007 -P " + strings.Join(append([]string{denied}, opt.Deny...), ",")
	}
	if opt.ReadOnly {
		sftp += " -R"
	}
	return []byte(strings.Join([]string{
		"HostKey " + quote(s.path("host_key")),
		"AuthorizedKeysFile " + quote(strings.ReplaceAll(s.path("authorized_keys"), "%", "%%")), // alone of these it has escapes
		"PidFile none",
		"LogLevel INFO",
		"StrictModes no",
		"UsePAM no",
		"PermitRootLogin prohibit-password",
		"AuthenticationMethods publickey",
		"PasswordAuthentication no",
		"KbdInteractiveAuthentication no",
		"DisableForwarding yes",
		"PermitTTY no",
		"PermitUserRC no",
		"ClientAliveInterval 15",
		"ClientAliveCountMax 3",
		"MaxStartups 100",
		"Subsystem sftp internal-sftp",
		"ForceCommand " + sftp,
	}, "\n") + "\n")
}

// Allow lets one more client key in, given as a line of authorized_keys ("ssh-ed25519 AAAA…").
func (s *Server) Allow(publicKey string) error {
	f, err := os.OpenFile(s.path("authorized_keys"), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return fmt.Errorf("allow a client key: %w", err)
	}
	_, err = f.WriteString(strings.TrimSpace(publicKey) + "\n")
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("allow a client key: %w", err)
	}
	return nil
}

// publicKey returns the public half of the private key in path ("ssh-ed25519 AAAA…"), making the key if there is none.
func publicKey(path string) ([]byte, error) {
	if _, err := os.Lstat(path); os.IsNotExist(err) {
		if _, err := keygen("-q", "-t", "ed25519", "-N", "", "-C", "", "-f", path); err != nil {
			return nil, fmt.Errorf("make key %s: %w", path, err)
		}
	}
	line, err := keygen("-y", "-P", "", "-f", path)
	if err != nil {
		return nil, fmt.Errorf("read key %s: %w", path, err)
	}
	fields := bytes.Fields(line)
	if len(fields) < 2 {
		return nil, fmt.Errorf("read key %s: ssh-keygen printed no public key", path)
	}
	return bytes.Join(fields[:2], []byte(" ")), nil
}

func keygen(args ...string) ([]byte, error) {
	cmd := exec.Command("ssh-keygen", args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("ssh-keygen: %w: %s", err, bytes.TrimSpace(stderr.Bytes()))
	}
	return out, nil
}

// quote lets a path with blanks stand in sshd_config.
func quote(path string) string { return `"` + path + `"` }
