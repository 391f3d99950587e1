package store

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"
)

// TestRemedy: what an operator reads of a store that does not work says what to do, once.
func TestRemedy(t *testing.T) {
	for class, want := range map[error]string{
		ErrTemporary: "; see that the host is up and sshd answers", ErrAuth: "; add this node's public key to the account's authorized_keys",
		ErrFull: "; make room there", ErrReadOnly: "; see what the account may do, and who owns the directory", ErrNotDir: "; see the path in the store's URL: something else is there",
		fs.ErrPermission: "; see what the account may do, and who owns the directory", ErrHostKey: "pinned one", ErrNotExist: "does not exist",
	} {
		if got := WithRemedy(fmt.Errorf("push shard X: %w", class)); !strings.HasSuffix(got, want) || !strings.HasPrefix(got, "push shard X: ") {
			t.Errorf("%v: %q", class, got)
		}
	}
	if Remedy(errors.New("something else")) != "" || Remedy(ErrHostKey) == "" {
		t.Error("a remedy for nothing, or none for an unknown host key")
	}
}
