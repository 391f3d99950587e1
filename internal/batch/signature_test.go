package batch

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"github.com/hiddeco/sshsig"
	"golang.org/x/crypto/ssh"
)

func TestVerifyRefuses(t *testing.T) {
	file := mustSeal(t, testEnvelope(), &Body{}).File
	owner := signerLine(testSigner)
	for name, keys := range map[string][]string{
		"no key": nil, "other key": {signerLine(otherSigner)}, "empty": {""}, "nonsense": {"ssh-ed25519 AAAA", owner[:40]},
	} {
		if err := mustParse(t, file).Verify(keys); !errors.Is(err, ErrSignature) {
			t.Errorf("%s: %v", name, err)
		}
	}
	resign := func(change func(*sshsig.Signature), signer ssh.Signer, hash sshsig.HashAlgorithm, namespace string) error {
		b := mustParse(t, file)
		sig, err := sshsig.Sign(bytes.NewReader(b.line), signer, hash, namespace)
		if err != nil {
			t.Fatal(err)
		}
		change(sig)
		forged := slices.Concat([]byte(version), b.line, armor(sig), b.body)
		if b, err = Parse(forged); err != nil {
			return err
		}
		return b.Verify([]string{owner, signerLine(otherSigner)})
	}
	same := func(*sshsig.Signature) {}
	if err := resign(same, testSigner, sshsig.HashSHA512, Namespace); err != nil {
		t.Errorf("the same again: %v", err)
	}
	if err := resign(same, testSigner, sshsig.HashSHA512, "git"); !errors.Is(err, ErrSignature) {
		t.Errorf("another namespace: %v", err)
	}
	if err := resign(same, testSigner, sshsig.HashSHA256, Namespace); !errors.Is(err, ErrSignature) {
		t.Errorf("another hash: %v", err)
	}
	if err := resign(same, otherSigner, sshsig.HashSHA512, Namespace); !errors.Is(err, ErrSignature) {
		t.Errorf("signed by another trusted key than the owner's: %v", err)
	}
	if err := resign(func(s *sshsig.Signature) { s.Signature.Blob[0] ^= 1 }, testSigner, sshsig.HashSHA512, Namespace); !errors.Is(err, ErrSignature) {
		t.Errorf("a wrong signature: %v", err)
	}
	// Bytes that no signature covers would let anybody make a second file with the same content: a fork that is none.
	if err := resign(func(s *sshsig.Signature) { s.Signature.Rest = []byte("x") }, testSigner, sshsig.HashSHA512, Namespace); !errors.Is(err, ErrCorrupt) {
		t.Errorf("bytes behind the signature: %v", err)
	}
}

// Every bit of a batch: either it does not parse, or its signature does not verify.
func TestFlippedBits(t *testing.T) {
	env := testEnvelope()
	env.Peers, env.NextKeys, env.Introduces, env.Abandons = nil, nil, nil, nil
	file := mustSeal(t, env, &Body{}).File
	keys := []string{signerLine(testSigner)}
	for i := range len(file) * 8 {
		file[i/8] ^= 1 << (i % 8)
		b, err := Parse(file)
		if err == nil {
			err = b.Verify(keys)
		}
		if !errors.Is(err, ErrFormat) && !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrSignature) {
			t.Fatalf("bit %d of byte %d (%q): %v", i%8, i/8, file[i/8], err)
		}
		file[i/8] ^= 1 << (i % 8)
	}
	for n := range file {
		if _, err := Parse(file[:n]); !errors.Is(err, ErrFormat) && !errors.Is(err, ErrCorrupt) {
			t.Fatalf("cut at %d: %v", n, err)
		}
	}
	if _, err := Parse(append(bytes.Clone(file), 0)); !errors.Is(err, ErrCorrupt) {
		t.Errorf("one byte more: %v", err)
	}
}

// The body of another batch under a valid envelope: whoever knows the recipients can make one.
func TestSwappedBody(t *testing.T) {
	a, b := mustSeal(t, testEnvelope(), &Body{}), mustSeal(t, testEnvelope(), &Body{})
	head := []byte(mustParse(t, a.File).SignedEnvelope())
	if _, err := Parse(append(head, b.File[len(b.File)-int(b.Envelope.BodySize):]...)); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a swapped body: %v", err)
	}
}
