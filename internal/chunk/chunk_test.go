package chunk

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
)

// testKeys returns the keys of a secret whose every byte is b.
func testKeys(b byte) Keys {
	var s Secret
	for i := range s {
		s[i] = b
	}
	return DeriveKeys(s)
}

// noise is n bytes that do not compress, the same for a seed on every machine.
func noise(seed byte, n int) []byte {
	data := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(data)
	return data
}

// The derivation and the id are part of the format: these values may never change.
func TestGoldenIDs(t *testing.T) {
	k := testKeys(1)
	for content, want := range map[string]string{
		"":                                "0c3c62339b9b1d7904604afbf7bb8579358bcd338a251aef857baa65093a6a7e",
		"slipway":                         "f746808d8886b59a73637ebb59ec0845ca7f8bb7a8780e8b111dcf8d94b78770",
		string(noise(7, 300<<10)):         "f9ae2f311baf1d24be05680e9b58a08a53a7e7e851d446a13b5fce7715a0cf1c",
		string(make([]byte, Max)):         "45157f4c08fe2d977a9a80f2e75c6c1f67897fff1e08d87c5fd4a50610cf1c57",
		"the same text under another key": "0851bd899df68b834b1d8ac93a2633691f33ab7a86ae193620a95f5de3cf75e1",
	} {
		if got := k.ID([]byte(content)).String(); got != want {
			t.Errorf("id of %d bytes is %s, want %s", len(content), got, want)
		}
	}
	if got := hex.EncodeToString(k.cut[:]); got != "db9ca3f166448512e1776dbec6fea551ae0191470c7027c49141f456ca1013bf" {
		t.Errorf("key of the cut points is %s", got)
	}
}

func TestOtherSecretOtherCutsAndIDs(t *testing.T) {
	data := noise(2, 32<<20)
	ends := func(k Keys) map[int]bool {
		lengths, _ := cut(t, k, bytes.NewReader(data))
		at, end := make(map[int]bool), 0
		for _, n := range lengths[:len(lengths)-1] {
			end += n
			at[end] = true
		}
		return at
	}
	one, two := ends(testKeys(1)), ends(testKeys(2))
	for end := range one {
		if two[end] {
			t.Errorf("both keys cut at %d", end)
		}
	}
	if testKeys(1).ID(data) == testKeys(2).ID(data) {
		t.Error("both keys give one id")
	}
	var zero Secret
	if DeriveKeys(zero).cut == zero {
		t.Error("key of the cut points is the secret itself")
	}
}

func TestIDsAtOnce(t *testing.T) {
	k, data := testKeys(1), noise(1, 100<<10)
	want := k.ID(data)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				if k.ID(data) != want {
					t.Error("another id at the same time")
				}
			}
		})
	}
	wg.Wait()
}

func TestIDText(t *testing.T) {
	id := testKeys(1).ID([]byte("slipway"))
	text, err := json.Marshal(map[ID]ID{id: id})
	if err != nil {
		t.Fatal(err)
	}
	var back map[ID]ID
	if err := json.Unmarshal(text, &back); err != nil || back[id] != id {
		t.Errorf("%s came back as %v: %v", text, back, err)
	}
	s := id.String()
	for _, bad := range []string{"", s[:63], s + "0", "G" + s[1:], "A" + s[1:], " " + s[1:]} {
		if _, err := ParseID(bad); !errors.Is(err, errID) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// Secrets end up in messages sooner or later, when they can.
func TestSecretsHide(t *testing.T) {
	var s Secret
	copy(s[:], "abcdefghijklmnopqrstuvwxyz012345")
	k := DeriveKeys(s)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x"} {
		for _, text := range []string{fmt.Sprintf(verb, s), fmt.Sprintf(verb, k), fmt.Sprintf(verb, &s)} {
			if bytes.Contains([]byte(text), []byte("6162")) || bytes.Contains([]byte(text), []byte("abc")) ||
				bytes.Contains([]byte(text), []byte("0x61")) || bytes.Contains([]byte(text), []byte("97 98")) {
				t.Errorf("%s shows %s", verb, text)
			}
		}
	}
}

func BenchmarkID(b *testing.B) {
	for _, size := range []int{4 << 10, 1 << 20} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			k, data := testKeys(1), noise(1, size)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				k.ID(data)
			}
		})
	}
}
