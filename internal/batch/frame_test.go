package batch

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/google/go-cmp/cmp"
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
