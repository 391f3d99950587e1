package keys

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"filippo.io/age"
	"slipway/internal/durable"
)

// An identity file is what age-keygen writes, and age reads it; slipway notes in comments whose signatures to trust, so that
// this one file restores everything and still checks every signature:
//
//	# created: 2026-11-23T10:00:00Z
//	# public key: age1…
//	# owner alpha ssh-ed25519 AAAA…
//	AGE-SECRET-KEY-1…

// Identity is what an identity file holds: the age identities and the owners' public keys noted beside them.
type Identity struct {
	Identities []age.Identity
	Owners     map[string][]string // node → authorized_keys lines, from "# owner NODE ssh-ed25519 AAAA…"
}

const ownerMark = "# owner "

var (
	errNode      = errors.New("node name is not one word")
	errOwnerKey  = errors.New("owner key is not an Ed25519 key in authorized_keys form (ssh-ed25519 AAAA…)")
	errEncrypted = errors.New("identity file is encrypted itself: decrypt it first (age -d FILE)")
	errIdentity  = errors.New("not an age identity file")
	errRecipient = errors.New("not an age recipient (age1…)")
	errNoOwner   = errors.New("owner line is not \"# owner NODE ssh-ed25519 AAAA…\"")
)

// NewIdentity makes an age X25519 identity file at path (0600, never over an existing file) with the owner line, and returns its recipient.
func NewIdentity(path, node, ownerKey string) (recipient string, err error) {
	owner, err := ownerLine(node, ownerKey)
	if err != nil {
		return "", fmt.Errorf("make identity %s: %w", path, err)
	}
	id, err := age.GenerateX25519Identity()
	if err != nil {
		return "", fmt.Errorf("make identity %s: %w", path, err)
	}
	recipient = id.Recipient().String()
	text := fmt.Sprintf("# created: %s\n# public key: %s\n%s%s\n", time.Now().UTC().Format(time.RFC3339), recipient, owner, id)
	if err := durable.CreateExclusive(path, []byte(text), 0o600); err != nil {
		return "", fmt.Errorf("make identity: %w", err)
	}
	return recipient, nil
}

// AddOwner adds an owner line to an existing identity file, if it is not there.
func AddOwner(path, node, ownerKey string) error {
	line, err := ownerLine(node, ownerKey)
	if err != nil {
		return fmt.Errorf("add owner to %s: %w", path, err)
	}
	data, err := ReadSecretFile(path)
	if err != nil {
		return fmt.Errorf("add owner: %w", err)
	}
	known, err := parseIdentity(data)
	if err != nil {
		return fmt.Errorf("add owner to %s: %w", path, err)
	}
	key := strings.TrimSuffix(strings.TrimPrefix(line, ownerMark+node+" "), "\n")
	if slices.Contains(known.Owners[node], key) {
		return nil
	}
	if !bytes.HasSuffix(data, []byte("\n")) {
		data = append(data, '\n')
	}
	// The old file or the new one is there after a crash, both with the secret key in it.
	if err := durable.Overwrite(path, append(data, line...), 0o600); err != nil {
		return fmt.Errorf("add owner: %w", err)
	}
	return nil
}

// LoadIdentity reads an identity file with a safe mode.
func LoadIdentity(path string) (*Identity, error) {
	data, err := ReadSecretFile(path)
	if err != nil {
		return nil, fmt.Errorf("load identity: %w", err)
	}
	id, err := parseIdentity(data)
	if err != nil {
		return nil, fmt.Errorf("load identity %s: %w", path, err)
	}
	return id, nil
}

// parseIdentity reads identities and owners. An owner line that does not parse is an error: to pass over it would be to
// trust fewer keys than the file says, and to find out in a restore.
func parseIdentity(data []byte) (*Identity, error) {
	if bytes.HasPrefix(data, []byte("age-encryption.org/")) || bytes.HasPrefix(data, []byte("-----BEGIN AGE ENCRYPTED FILE-----")) {
		return nil, errEncrypted
	}
	ids, err := age.ParseIdentities(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errIdentity, err)
	}
	id := &Identity{Identities: ids, Owners: make(map[string][]string)}
	for line := range strings.Lines(string(data)) {
		rest, ok := strings.CutPrefix(strings.TrimRight(line, "\r\n"), ownerMark)
		if !ok {
			continue
		}
		node, key, _ := strings.Cut(rest, " ")
		text, err := ownerLine(node, key)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errNoOwner, err)
		}
		key = strings.TrimSuffix(strings.TrimPrefix(text, ownerMark+node+" "), "\n")
		if !slices.Contains(id.Owners[node], key) {
			id.Owners[node] = append(id.Owners[node], key)
		}
	}
	return id, nil
}

// ownerLine writes "# owner NODE ssh-ed25519 AAAA…" without the key's comment.
func ownerLine(node, key string) (string, error) {
	if node == "" || strings.ContainsAny(node, " \t\r\n") {
		return "", fmt.Errorf("%q: %w", node, errNode)
	}
	line, err := ParsePublic([]byte(key))
	if err != nil {
		return "", fmt.Errorf("%q: %w", key, err)
	}
	return ownerMark + node + " " + line + "\n", nil
}

// ParseRecipients reads age recipients ("age1…"); each error names the offending one.
func ParseRecipients(list []string) ([]age.Recipient, error) {
	var recipients []age.Recipient
	var faults []error
	for i, text := range list {
		if strings.HasPrefix(strings.TrimSpace(text), "AGE-SECRET-KEY-") { // not to be repeated in a message
			faults = append(faults, fmt.Errorf("recipient %d: %w but a secret key: put its public key there", i+1, errRecipient))
			continue
		}
		r, err := parseRecipient(text)
		if err != nil {
			faults = append(faults, fmt.Errorf("recipient %q: %w: %w", text, errRecipient, err))
			continue
		}
		recipients = append(recipients, r)
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	if len(recipients) == 0 {
		return nil, nil
	}
	// age refuses some mixtures (post-quantum and classic): say so now, not at the first batch.
	if _, err := age.Encrypt(io.Discard, recipients...); err != nil {
		return nil, fmt.Errorf("recipients %s: %w", strings.Join(list, ", "), err)
	}
	return recipients, nil
}

// parseRecipient knows X25519 and post-quantum recipients, as age does.
func parseRecipient(text string) (age.Recipient, error) {
	if strings.ContainsAny(text, " \t\r\n#") {
		return nil, errRecipient
	}
	parsed, err := age.ParseRecipients(strings.NewReader(text))
	if err != nil {
		return nil, err
	}
	return parsed[0], nil
}
