package shipper

import (
	"fmt"

	"golang.org/x/sync/semaphore"

	"slipway/internal/config"
	"slipway/internal/store"
)

// host is a backup host: one store, with all volumes' connections, its rate limit and what may be in flight to it.
type host struct {
	name  string
	url   string
	store store.Store
	meter *store.Meter
	// slots bounds the shards in flight, and with them the memory: each holds a shard of 8 MiB at most. Waiters are served
	// in order, so that a volume with much to send does not keep another one waiting more than its share.
	slots *semaphore.Weighted
	lanes int // slots in all
}

// A connection carries a shard while the next one's first packets are on the way.
const shardsPerConnection = 2

func newHost(st config.Store, open func(config.Store) (store.Store, error)) (*host, error) {
	opened, err := open(st)
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", st.Name, err)
	}
	lanes := shardsPerConnection * st.Connections
	if lanes <= 0 {
		lanes = shardsPerConnection * 4
	}
	return &host{name: st.Name, url: st.URL, store: opened, meter: store.NewMeter(opened), slots: semaphore.NewWeighted(int64(lanes)), lanes: lanes}, nil
}
