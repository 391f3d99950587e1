package stages

import (
	"strings"
	"testing"
	"time"

	"slipway/internal/ack"
)

// TestWaits: what keeps a cached batch from the backup hosts is told in the cache host's words, with the time when enough of them will have it.
func TestWaits(t *testing.T) {
	now := time.Date(2026, 11, 23, 18, 48, 0, 0, time.UTC)
	night, later := now.Add(3*time.Hour+12*time.Minute), now.Add(5*time.Hour)
	window := func(until *time.Time) *ack.Wait {
		return &ack.Wait{From: 5, For: "the window 22:00-06:00", Until: until}
	}
	const waits = "waits for the window 22:00-06:00 on cache1, in 3h12m"
	for _, tt := range []struct {
		name   string
		copies int
		acks   []ack.Acks
		want   string
		until  *time.Time
	}{
		{"nobody has said", 0, nil, "waits for the cache's shipper, which has not said anything yet", nil},
		{"no host has said", 2, nil, "waits for 2 backup hosts to acknowledge it", nil},
		{"a window", 1, []ack.Acks{{Store: "vault1", Waits: window(&night)}}, "vault1 " + waits, &night},
		{"one window for both", 2, []ack.Acks{{Store: "vault1", Waits: window(&night)}, {Store: "vault2", Waits: window(&night)}}, "vault1, vault2 " + waits, &night},
		{"two windows, one copy", 1, []ack.Acks{{Store: "vault1", Waits: window(&later)}, {Store: "vault2", Waits: window(&night)}},
			"vault1 waits for the window 22:00-06:00 on cache1, in 5h; vault2 " + waits, &night},
		{"one has it", 2, []ack.Acks{{Store: "vault1", Head: 5}, {Store: "vault2", Waits: window(&night)}}, "vault2 " + waits, &night},
		{"one has it, the other says nothing", 2, []ack.Acks{{Store: "vault1", Head: 5}}, "waits for 1 more backup hosts to acknowledge it", nil},
		{"one is down", 2, []ack.Acks{{Store: "vault1", Error: "no route"}, {Store: "vault2", Waits: window(&night)}}, "vault1 is down: no route; vault2 " + waits, nil},
		{"nobody knows when", 1, []ack.Acks{{Store: "vault1", Waits: window(nil)}}, "vault1 waits for the window 22:00-06:00 on cache1", nil},
		{"on its way", 1, []ack.Acks{{Store: "vault1", Head: 4}}, "vault1 has not acknowledged it yet", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := New(0, tt.copies, nil)
			s.Delivered("cache", "cache1", 5)
			for i := range tt.acks {
				tt.acks[i].Kind = "backup"
			}
			s.Acked(tt.acks)
			why, until := s.waits(5, now)
			if why != tt.want {
				t.Errorf("%q, want %q", why, tt.want)
			}
			if (until == nil) != (tt.until == nil) || until != nil && !until.Equal(*tt.until) {
				t.Errorf("until %v, want %v", until, tt.until)
			}
		})
	}
}

// TestReached: each stage with the time that its store has written down, as far as its acks still tell.
func TestReached(t *testing.T) {
	at := time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)
	second := func(n int) time.Time { return at.Add(time.Duration(n) * time.Second) }
	s := New(0, 0, nil)
	s.Acked([]ack.Acks{
		{Store: "vault1", Kind: "backup", Head: 6, Recent: []ack.Mark{{Seq: 4, At: second(2)}, {Seq: 6, At: second(5)}}},
		{Store: "vault2", Kind: "backup", Head: 4, Recent: []ack.Mark{{Seq: 4, At: second(9)}}},
		{Store: "cache1", Kind: "cache", Head: 6, Copies: 2, Recent: []ack.Mark{{Seq: 5, At: second(3)}}},
		{Store: "bravo", Kind: "replica", Head: 6, Recent: []ack.Mark{{Seq: 6, At: second(1)}}},
	})
	var got []string
	for _, r := range s.Reached(5, at) {
		got = append(got, strings.TrimSpace(r.Stage+" "+r.Store)+" "+r.At.Format("05"))
	}
	if text := strings.Join(got, ", "); text != "sealed 00, replicated bravo 01, cached cache1 03, stored vault1 05" {
		t.Error(text)
	}
}
