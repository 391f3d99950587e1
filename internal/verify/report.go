package verify

import "sync"

// report collects findings, each object once.
type report struct {
	store string
	found func(Finding)

	mu   sync.Mutex
	seen map[string]bool
}

func newReport(store string, found func(Finding)) *report {
	if found == nil {
		found = func(Finding) {}
	}
	return &report{store: store, found: found, seen: map[string]bool{}}
}

func (r *report) add(object string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.seen[object] {
		return
	}
	r.seen[object] = true
	r.found(Finding{"finding", r.store, object, err.Error()})
}

func (r *report) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.seen)
}

// meter adds up progress from several goroutines.
type meter struct {
	tell  func(done, total int64)
	total int64

	mu   sync.Mutex
	done int64
}

func newMeter(tell func(done, total int64)) *meter {
	if tell == nil {
		tell = func(int64, int64) {}
	}
	return &meter{tell: tell}
}

func (m *meter) add(n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.done += n
	m.tell(m.done, m.total)
}
