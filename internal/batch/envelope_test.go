package batch

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"slipway/internal/shard"
)

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
	env.Introduces, env.Abandons = manyObjects(MaxShards), manyObjects(MaxShards + MaxAbandoned)[MaxShards:]
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
