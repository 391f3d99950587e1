package restore_test

import (
	"context"
	"sync"

	"slipway/internal/store"
)

// counting counts the reads of each object.
type counting struct {
	store.Store
	mu   sync.Mutex
	seen map[string]int
}

func (c *counting) Read(ctx context.Context, name string, limit int64) ([]byte, error) {
	c.mu.Lock()
	c.seen[name]++
	c.mu.Unlock()
	return c.Store.Read(ctx, name, limit)
}
