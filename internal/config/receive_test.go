package config

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestReceive(t *testing.T) {
	c, err := Parse("r.yml", []byte("node: vault1\nstore: /srv/received\nstate: /var/lib/slipway/receive\nowners:\n  projects: [\""+publicKey+
		"\"]\n  media: [\""+publicKey+"\"]\nreceive:\n  quota: 500GiB\n  quotas: {media: 2TiB}\n"))
	if err != nil {
		t.Fatal(err)
	}
	want := &Receive{
		Node: "vault1", Name: "vault1", Store: "/srv/received", State: "/var/lib/slipway/receive", Quota: 500 << 30, Quotas: map[string]int64{"media": 2 << 40},
		Owners: map[string][]string{"projects": {publicKey}, "media": {publicKey}},
	}
	if d := cmp.Diff(want, c.Receive); d != "" {
		t.Error(d)
	}
	if c.State() != want.State || c.Receive.QuotaOf("media") != 2<<40 || c.Receive.QuotaOf("projects") != 500<<30 {
		t.Errorf("state %q, quotas %d and %d", c.State(), c.Receive.QuotaOf("media"), c.Receive.QuotaOf("projects"))
	}
}

func TestReceiveFaults(t *testing.T) {
	for text, fault := range map[string]string{
		"node: vault1\nstore: /srv/r\nreceive: {}\n": "owners",
		"node: vault1\nstore: /srv/r\nowners: {projects: [\"" + publicKey + "\"]}\nreceive: {quotas: {other: 1GiB}}\n":   "not accepted",
		"node: vault1\nstore: /srv/r\nowners: {projects: [\"" + publicKey + "\"]}\nreceive: {quota: 10KiB}\n":            "too small",
		"node: vault1\nstore: /srv/r\nowners: {projects: [\"" + publicKey + "\"]}\nreceive: {quotas: 5}\n":               "mapping",
		"node: vault1\nstore: /srv/r\nstate: /srv/r/s\nowners: {projects: [\"" + publicKey + "\"]}\nreceive: {}\n":       "one below the other",
		"node: vault1\nstore: /srv/r/s\nstate: /srv/r\nowners: {projects: [\"" + publicKey + "\"]}\nreceive: {}\n":       "one below the other",
		"node: vault1\nstore: /srv/r\nowners: {projects: [\"" + publicKey + "\"]}\nreceive: {quotas: {\"a b\": 1GiB}}\n": `"a b" is not a name`,
		"node: vault1\nstore: /srv/r\nowners: {projects: [\"" + publicKey + "\"]}\nreceive: {}\nship: {to: []}\n":        "more than one",
		"node: vault1\nstore: /srv/r\nowners: {projects: [\"" + publicKey + "\"]}\nreceive: {}\nvolume: projects\n":      "both",
		"node: vault1\nstore: /srv/r\nowners: {projects: [\"" + publicKey + "\"]}\nreceive: {quotta: 1GiB}\n":            "quota",
	} {
		if _, err := Parse("r.yml", []byte(text)); err == nil || !strings.Contains(err.Error(), fault) {
			t.Errorf("%s: %v, want %q in it", text, err, fault)
		}
	}
}
