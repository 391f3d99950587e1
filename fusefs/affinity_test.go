package fusefs

import (
	"os"
	"runtime"
	"strconv"
	"testing"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// schedulingOf returns the calling thread's processors and policy.
func schedulingOf(t *testing.T, thread int) (cpus unix.CPUSet, policy uint32) {
	t.Helper()
	must(t, unix.SchedGetaffinity(thread, &cpus))
	attr, err := unix.SchedGetAttr(thread, 0)
	must(t, err)
	return cpus, attr.Policy
}

// TestAffinity: whose thread asks many times in a row while a processor has nothing to do is answered on its processor, until somebody else asks,
// the processors are all busy, or the reader goes on in another thread.
func TestAffinity(t *testing.T) {
	const otherClient = 1 // init is always there
	spare := true
	h := newProcessors(true)
	h.spare = func() bool { return spare }
	must(t, unix.SchedGetaffinity(0, &h.cpus))
	if h.cpus.Count() < 2 {
		t.Fatal("this test needs two processors")
	}
	client := uint32(os.Getpid())
	self := 0 // the thread of a subtest

	// bound asks as often as it takes to be bound, and checks what the thread is when it has answered and when it has the next request.
	bound := func(t *testing.T, a *affinity) {
		t.Helper()
		for range bindAfter {
			a.request(client)
		}
		a.answering()
		cpus, policy := schedulingOf(t, self)
		if where, _ := processorOf(client); cpus.Count() != 1 || policy != unix.SCHED_IDLE {
			t.Fatalf("after %d requests: %d processors (the client ran on %d), policy %d", bindAfter, cpus.Count(), where, policy)
		}
		a.request(client)
		if _, policy := schedulingOf(t, self); policy != unix.SCHED_NORMAL {
			t.Fatalf("a request is answered with policy %d", policy)
		}
		a.answering()
	}
	free := func(t *testing.T, a *affinity) {
		t.Helper()
		cpus, policy := schedulingOf(t, self)
		if cpus.Count() != h.cpus.Count() || policy != unix.SCHED_NORMAL {
			t.Errorf("%d processors, policy %d", cpus.Count(), policy)
		}
		a.answering()
		if _, policy := schedulingOf(t, self); policy != unix.SCHED_NORMAL {
			t.Errorf("policy %d without a bond", policy)
		}
	}
	begin := func(t *testing.T) *affinity {
		runtime.LockOSThread()
		t.Cleanup(runtime.UnlockOSThread)
		self = unix.Gettid()
		a := &affinity{processors: h}
		bound(t, a)
		t.Cleanup(a.end)
		return a
	}

	t.Run("another asks", func(t *testing.T) {
		a := begin(t)
		a.request(0) // the kernel by itself is nobody
		a.answering()
		if _, policy := schedulingOf(t, self); policy != unix.SCHED_IDLE {
			t.Errorf("policy %d after a request of the kernel's", policy)
		}
		a.request(otherClient)
		free(t, a)
	})
	t.Run("ended from outside", func(t *testing.T) {
		a := begin(t)
		var g errgroup.Group
		g.Go(func() error { a.end(); return nil })
		must(t, g.Wait())
		free(t, a)
		bound(t, a)
	})
	t.Run("all processors busy", func(t *testing.T) {
		a := begin(t)
		spare = false
		defer func() { spare = true }()
		for range bindAfter {
			a.request(client)
		}
		free(t, a)
		for range 2 * bindAfter {
			a.request(client)
		}
		free(t, a)
	})
	t.Run("another thread", func(t *testing.T) {
		a := begin(t)
		var g errgroup.Group
		g.Go(func() error { // this goroutine keeps its thread
			for range bindAfter {
				a.request(client)
			}
			return nil
		})
		must(t, g.Wait())
		free(t, a)
	})
	t.Run("threads begun meanwhile", func(t *testing.T) {
		a := begin(t)
		var set unix.CPUSet
		set.Set(0)
		for _, id := range threads(t) {
			must(t, unix.SchedSetaffinity(id, &set))
		}
		a.end()
		for _, id := range threads(t) {
			if cpus, _ := schedulingOf(t, id); cpus.Count() != h.cpus.Count() {
				t.Errorf("thread %d is left with %d processors", id, cpus.Count())
			}
		}
	})
	t.Run("not allowed", func(t *testing.T) {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		self = unix.Gettid()
		not := newProcessors(false)
		not.spare = h.spare
		a := &affinity{processors: not}
		for range 2 * bindAfter {
			a.request(client)
		}
		free(t, a)
	})
}

func threads(t *testing.T) []int {
	t.Helper()
	names, err := os.ReadDir("/proc/self/task")
	must(t, err)
	var ids []int
	for _, n := range names {
		id, err := strconv.Atoi(n.Name())
		must(t, err)
		ids = append(ids, id)
	}
	return ids
}
