package store

import (
	"errors"
	"io/fs"
)

// Remedy says what an operator can do about a class of error; empty: nothing is known.
func Remedy(err error) string {
	switch {
	case errors.Is(err, ErrHostKey):
		return "compare the key with the host's own (ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub) and add the line to known_hosts"
	case errors.Is(err, ErrAuth):
		return "add this node's public key to the account's authorized_keys"
	case errors.Is(err, ErrFull):
		return "make room there"
	case errors.Is(err, ErrNotDir):
		return "see the path in the store's URL: something else is there"
	case errors.Is(err, ErrReadOnly), errors.Is(err, fs.ErrPermission):
		return "see what the account may do, and who owns the directory"
	case errors.Is(err, ErrTemporary):
		return "see that the host is up and sshd answers"
	}
	return ""
}

// WithRemedy is an error's text for reports, with what to do about it. An unknown host key ends in the line to add, and says all itself.
func WithRemedy(err error) string {
	if do := Remedy(err); do != "" && !errors.Is(err, ErrHostKey) {
		return err.Error() + "; " + do
	}
	return err.Error()
}
