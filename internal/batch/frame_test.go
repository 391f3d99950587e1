package batch

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/google/go-cmp/cmp"
	"github.com/hiddeco/sshsig"
	"golang.org/x/crypto/ssh"

	"slipway/internal/shard"
)

func TestSealAndOpen(t *testing.T) {
	env, body := testEnvelope(), testBody()
	s := mustSeal(t, env, body)
	if s.Digest != sha256.Sum256(s.File) || s.BodyShards != nil {
		t.Errorf("digest %s, %d body shards", s.Digest, len(s.BodyShards))
	}
	b := mustParse(t, s.File)
	if b.Digest != s.Digest || !reflect.DeepEqual(b.Envelope, s.Envelope) {
		t.Errorf("parsed:\n%+v\nsealed:\n%+v", b.Envelope, s.Envelope)
	}
	env.OwnerKey, env.BodySize, env.BodyDigest = signerLine(testSigner), b.Envelope.BodySize, b.Envelope.BodyDigest
	if diff := cmp.Diff(env, b.Envelope); diff != "" {
		t.Errorf("envelope changed:\n%s", diff)
	}
	if b.Path() != "batches/00000001/00000000/000000000042-000000000042.batch" || len(b.Introduced()) != 2 {
		t.Errorf("path %s, %d shards", b.Path(), len(b.Introduced()))
	}
	if err := b.Verify([]string{signerLine(otherSigner), signerLine(testSigner) + " alpha"}); err != nil {
		t.Error(err)
	}
	got, err := b.Open([]age.Identity{mustIdentity(), testIdentity}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(body, got); diff != "" {
		t.Errorf("body changed:\n%s", diff)
	}
	var match *age.NoIdentityMatchError
	if _, err := b.Open([]age.Identity{mustIdentity()}, nil); !errors.As(err, &match) || errors.Is(err, ErrCorrupt) {
		t.Errorf("another identity: %v", err)
	}
	if _, err := b.Open(nil, nil); err == nil || errors.Is(err, ErrCorrupt) {
		t.Errorf("no identity: %v", err)
	}
}

func TestTimesAreUTC(t *testing.T) {
	env := testEnvelope()
	env.SealedAt = time.Now().In(time.FixedZone("", 3600))
	b := mustParse(t, mustSeal(t, env, &Body{}).File)
	if !b.Envelope.SealedAt.Equal(env.SealedAt) || !strings.HasSuffix(b.Envelope.SealedAt.Format(time.RFC3339), "Z") {
		t.Errorf("sealed at %s, read %s", env.SealedAt, b.Envelope.SealedAt)
	}
}

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

func TestUnknownVersions(t *testing.T) {
	file := mustSeal(t, testEnvelope(), &Body{}).File
	for head, newer := range map[string]bool{
		"slipway-batch 2\n": true, "slipway-batch 10\n": true, "slipway-batch 1 \n": true, "slipway-batch 1": false,
		"slipway-batch\n": false, "SLIPWAY-BATCH 1\n": false, "": false, "\n": false, "age-encryption.org/v1\n": false,
		strings.Repeat("x", 1<<20): false, "slipway-batch " + strings.Repeat("1", 1000): false,
	} {
		_, err := Parse(append([]byte(head), file[len(version):]...))
		if head == "slipway-batch 1" { // the rest then is no line of its own
			_, err = Parse([]byte(head))
		}
		if !errors.Is(err, ErrFormat) || strings.Contains(fmt.Sprint(err), "newer format") != newer {
			t.Errorf("%.40q: %v", head, err)
		}
	}
}

func TestHostileFrames(t *testing.T) {
	file := mustSeal(t, testEnvelope(), &Body{}).File
	b := mustParse(t, file)
	line, sig := string(b.line), string(b.armor)
	for name, text := range map[string]string{
		"no envelope":          version,
		"endless envelope":     version + strings.Repeat("x", MaxEnvelope+10),
		"endless newline-less": version + strings.Repeat("{", 2*MaxEnvelope) + "\n" + sig,
		"deep envelope":        version + strings.Repeat(`{"a":`, 100_000) + "\n" + sig,
		"no signature":         version + line,
		"text before it":       version + line + "x" + sig,
		"blank line before it": version + line + "\n" + sig,
		"endless signature":    version + line + sigBegin + strings.Repeat("AAAA\n", 10_000),
		"empty signature":      version + line + sigBegin + sigEnd,
		"end before begin":     version + line + sigEnd + sigBegin,
		"only an end":          version + line + sigEnd,
		"not base64":           version + line + sigBegin + "!!!!\n" + sigEnd,
		"not a signature":      version + line + sigBegin + "AAAA\n" + sigEnd,
		"other columns":        version + line + sigBegin + strings.Replace(sig[len(sigBegin):], "\n", "", 1),
		"blank in signature":   version + line + strings.Replace(sig, "\n", "\n\n", 1),
		"CRLF":                 version + line + strings.ReplaceAll(sig, "\n", "\r\n"),
		"another PEM type":     version + line + strings.ReplaceAll(sig, "SSH SIGNATURE", "SSH PRIVATES"),
		"space in envelope":    version + " " + line + sig,
		"trailing comma":       version + strings.Replace(line, "}\n", ",}\n", 1) + sig,
		"not JSON":             version + "hello\n" + sig,
		"null":                 version + "null\n" + sig,
		"another key":          version + strings.Replace(line, `{"volume_id"`, `{"extra":1,"volume_id"`, 1) + sig,
		"a key twice":          version + strings.Replace(line, `"volume":`, `"volume":"other","volume":`, 1) + sig,
		"key in capitals":      version + strings.Replace(line, `"volume":`, `"Volume":`, 1) + sig,
		"escaped":              version + strings.Replace(line, `"projects"`, `"\u0070rojects"`, 1) + sig,
		"number as float":      version + strings.Replace(line, `"first":42`, `"first":42.0`, 1) + sig,
		"negative number":      version + strings.Replace(line, `"first":42`, `"first":-42`, 1) + sig,
		"number too large":     version + strings.Replace(line, `"first":42`, `"first":18446744073709551616`, 1) + sig,
		"time in a zone":       version + strings.Replace(line, `6789Z"`, `6789+00:00"`, 1) + sig,
	} {
		if _, err := Parse(append([]byte(text), b.body...)); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
	size := strings.Replace(line, `"body_size":`, `"body_size":1`, 1) // ten times as much and more, with the right digest
	if _, err := Parse(append([]byte(version+size+sig), b.body...)); !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "envelope says") {
		t.Errorf("another size of the body: %v", err)
	}
	if _, err := Parse(make([]byte, MaxFile+1)); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a huge file: %v", err)
	}
}

// Every rule of the envelope is kept by the writer, and by the reader against another writer.
func TestEnvelopeRules(t *testing.T) {
	one := Object{Digest: shard.Sum([]byte("body")), Size: 100}
	signed := mustParse(t, mustSeal(t, testEnvelope(), &Body{}).File).SignedEnvelope()
	for name, change := range map[string]func(*Envelope){
		"no volume id":          func(e *Envelope) { e.VolumeID = VolumeID{} },
		"volume name":           func(e *Envelope) { e.Volume = "../x" },
		"no node":               func(e *Envelope) { e.Node = "" },
		"peer name":             func(e *Envelope) { e.Peers[0].Name = "a b" },
		"peer key":              func(e *Envelope) { e.Peers[0].Key = "ssh-rsa AAAA" },
		"peer key comment":      func(e *Envelope) { e.Peers[0].Key += " comment" },
		"many peers":            func(e *Envelope) { e.Peers = make([]Peer, 65) },
		"next key":              func(e *Envelope) { e.NextKeys[0] = "" },
		"many next keys":        func(e *Envelope) { e.NextKeys = make([]string, 66) },
		"epoch 0":               func(e *Envelope) { e.Epoch = 0 },
		"huge epoch":            func(e *Envelope) { e.Epoch = MaxEpoch + 1 },
		"first 0":               func(e *Envelope) { e.First = 0 },
		"last before first":     func(e *Envelope) { e.Last = 41 },
		"huge last":             func(e *Envelope) { e.Last = MaxSeq + 1 },
		"base 0":                func(e *Envelope) { e.Base = 0 },
		"base behind":           func(e *Envelope) { e.Base = 43 },
		"no previous":           func(e *Envelope) { e.Prev = nil },
		"previous of the first": func(e *Envelope) { e.First, e.Last = 1, 1 },
		"no time":               func(e *Envelope) { e.SealedAt = time.Time{} },
		"far time":              func(e *Envelope) { e.SealedAt = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) },
		"negative counts":       func(e *Envelope) { e.Counts.Bytes = -1 },
		"complete with reason":  func(e *Envelope) { e.Why = "gap" },
		"complete with last":    func(e *Envelope) { e.LastWhole = 41 },
		"incomplete, no reason": func(e *Envelope) { e.Complete = false },
		"incomplete, last":      func(e *Envelope) { e.Complete, e.Why, e.LastWhole = false, "gap", 43 },
		"shard twice":           func(e *Envelope) { e.Introduces = append(e.Introduces, e.Introduces[0]) },
		"abandons its own":      func(e *Envelope) { e.Abandons = append(e.Abandons, e.Introduces[0]) },
		"empty shard":           func(e *Envelope) { e.Introduces[0].Size = 0 },
		"huge shard":            func(e *Envelope) { e.Introduces[0].Size = shard.MaxSize + 1 },
		"negative shard":        func(e *Envelope) { e.Abandons[0].Size = -1 },
		"many shards":           func(e *Envelope) { e.Introduces = manyObjects(MaxShards + MaxBodyShards + 1) },
		"many abandoned":        func(e *Envelope) { e.Abandons = manyObjects(MaxAbandoned + 1) },
		"huge envelope":         func(e *Envelope) { e.NamedBy = strings.Repeat("x", MaxEnvelope) },
		"named by nonsense":     func(e *Envelope) { e.NamedBy = "bravo" },
		"named by a whole file": func(e *Envelope) { e.NamedBy = signed + "body" },
		"no body":               func(e *Envelope) { e.BodySize = 0 },
		"negative body":         func(e *Envelope) { e.BodySize = -1 },
		"huge body":             func(e *Envelope) { e.BodySize = shard.MaxSize + 1 },
		"body in both":          func(e *Envelope) { e.BodyShards, e.Introduces = []Object{one}, append(e.Introduces, one) },
		"body not introduced":   func(e *Envelope) { e.BodySize, e.BodyShards = 0, []Object{one} },
		"body shard twice":      func(e *Envelope) { e.BodySize, e.BodyShards, e.Introduces = 0, []Object{one, one}, []Object{one} },
		"no owner":              func(e *Envelope) { e.OwnerKey = "" },
	} {
		env := testEnvelope()
		env.OwnerKey, env.BodySize = signerLine(testSigner), 200
		if err := env.check(); err != nil {
			t.Fatal(err)
		}
		change(&env)
		line, err := env.encode()
		if err == nil {
			_, err = decodeEnvelope(line)
		}
		if !errors.Is(err, errEnvelope) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := Seal(env, &Body{}, []age.Recipient{testIdentity.Recipient()}, testSigner); err == nil && !strings.Contains(name, "body") && name != "no owner" {
			t.Errorf("%s is sealed", name)
		}
	}
	env := testEnvelope()
	env.First, env.Last, env.Prev = 1, 1, nil
	env.Complete, env.Why = false, "adoption"
	mustParse(t, mustSeal(t, env, &Body{}).File)
	env = testEnvelope()
	env.Epoch, env.NamedBy = 2, signed
	named := mustParse(t, mustSeal(t, env, &Body{}).File).Envelope.NamedBy
	by, err := ParseSigned(named)
	if err != nil || by.Verify([]string{signerLine(testSigner)}) != nil || by.SignedEnvelope() != signed {
		t.Errorf("the envelope that named the key: %v", err)
	}
}

func manyObjects(n int) []Object {
	list := make([]Object, n)
	for i := range list {
		list[i] = Object{Digest: shard.Sum([]byte(fmt.Sprint(i))), Size: 1}
	}
	return list
}

func TestSealRefuses(t *testing.T) {
	recipients := []age.Recipient{testIdentity.Recipient()}
	env := testEnvelope()
	env.Introduces = manyObjects(MaxShards + 1)
	if _, err := Seal(env, &Body{}, recipients, testSigner); !errors.Is(err, errSeal) {
		t.Errorf("too many shards: %v", err)
	}
	env.Introduces, env.Abandons = manyObjects(MaxShards), nil
	for _, o := range manyObjects(MaxShards + MaxAbandoned)[MaxShards:] {
		env.Abandons = append(env.Abandons, o)
	}
	for range 2 {
		env.Epoch, env.NamedBy = env.Epoch+1, mustParse(t, mustSeal(t, env, &Body{}).File).SignedEnvelope()
	}
	if _, err := Seal(env, &Body{}, recipients, testSigner); !errors.Is(err, errEnvelope) || !strings.Contains(err.Error(), "bytes, at most") {
		t.Errorf("an envelope above the limit: %v", err)
	}
	if _, err := Seal(testEnvelope(), &Body{}, nil, testSigner); err == nil {
		t.Error("sealed to nobody")
	}
}

func FuzzParse(f *testing.F) {
	file := mustSeal(f, testEnvelope(), testBody()).File
	f.Add(file)
	f.Add(file[:len(file)/2])
	f.Add([]byte(version + "{}\n" + sigBegin + sigEnd))
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := Parse(data)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrFormat) {
				t.Errorf("error without a class: %v", err)
			}
			return
		}
		if !bytes.Equal(append([]byte(b.SignedEnvelope()), b.body...), data) {
			t.Error("what was parsed is not what was there")
		}
		_ = b.Verify([]string{signerLine(testSigner)})
	})
}

// FuzzEnvelope gets past the signature, which FuzzParse seldom does.
func FuzzEnvelope(f *testing.F) {
	line, _ := mustSeal(f, testEnvelope(), &Body{}).Envelope.encode()
	f.Add(line)
	f.Add([]byte("{}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := decodeEnvelope(data)
		if err != nil {
			return
		}
		if again, err := e.encode(); err != nil || !bytes.Equal(again, data) {
			t.Errorf("%q is written as %q: %v", data, again, err)
		}
	})
}
