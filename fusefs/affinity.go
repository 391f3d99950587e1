package fusefs

import (
	"bytes"
	"os"
	"runtime"
	"strconv"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// affinity has one reader of the device answer on the processor of the thread that asks. Waking a thread on another processor takes longer than
// an answer, in a virtual machine several times as long, and each request needs it twice.
//
// When one thread has asked many times in a row while some processor had nothing to do, the reader's thread is bound to that thread's
// processor. That alone would make the scheduler wake whoever asked on another processor, because the reader still runs on this one; but it takes
// a processor for free that runs nothing but SCHED_IDLE. So the bound thread is SCHED_IDLE from just before it answers until it has the next
// request. A processor that is wanted by somebody else would keep it from ever reading one: the device ends the bond when nothing has been
// read for a millisecond.
type affinity struct {
	processors *processors

	// Owned by the reader.
	client uint32 // the thread that asked last
	row    int    // how many times in a row
	cpu    int

	thread atomic.Int64 // the bound thread, 0 without a bond
}

// bindAfter is how many requests in a row bind, and after how many more the client's processor is looked up again.
const bindAfter = 32

// processors is what an affinity needs to know of the machine and of this process.
type processors struct {
	cpus   unix.CPUSet     // that this process may use
	normal *unix.SchedAttr // how its threads are scheduled; nil: do not bind
	spare  func() bool     // some processor has nothing to do
}

// newProcessors looks at the machine. mayReturn says that a thread that was SCHED_IDLE may become what it was (CAP_SYS_NICE).
func newProcessors(mayReturn bool) *processors {
	h := &processors{spare: spareProcessor}
	attr, err := unix.SchedGetAttr(0, 0)
	if err == nil {
		err = unix.SchedGetaffinity(0, &h.cpus)
	}
	if err == nil && mayReturn && attr.Policy == unix.SCHED_NORMAL && h.cpus.Count() > 1 {
		h.normal = attr
		h.normal.Size = unix.SizeofSchedAttr
	}
	return h
}

// request is told of each request that the reader gets. client is the thread that asks, 0 where the kernel does.
func (a *affinity) request(client uint32) {
	if t := a.thread.Load(); t != 0 {
		a.processors.normally(t)
	}
	switch {
	case client == 0 || a.processors.normal == nil:
		return
	case client != a.client:
		a.end()
		a.client, a.row = client, 0
	}
	if a.row++; a.row%bindAfter == 0 {
		a.look()
	}
}

// look binds the thread, keeps it bound where the client is now, or ends the bond.
func (a *affinity) look() {
	cpu, ok := processorOf(a.client)
	if !ok || !a.processors.spare() {
		a.end()
		return
	}
	self := int64(unix.Gettid())
	t := a.thread.Load()
	switch {
	case t == 0:
		a.thread.Store(self)
	case t != self: // the runtime has moved the reader to another thread
		a.end()
		return
	case cpu == a.cpu:
		return
	}
	a.cpu = cpu
	var one unix.CPUSet
	one.Set(cpu)
	_ = unix.SchedSetaffinity(int(self), &one) // the processor may have been taken away
	if a.thread.Load() == 0 {
		a.processors.unbind() // ended from outside meanwhile
	}
}

// answering comes just before an answer is written.
func (a *affinity) answering() {
	t := a.thread.Load()
	if t == 0 {
		return
	}
	idle := *a.processors.normal
	idle.Policy, idle.Flags = unix.SCHED_IDLE, unix.SCHED_FLAG_RESET_ON_FORK
	_ = unix.SchedSetAttr(int(t), &idle, 0)
	if a.thread.Load() == 0 {
		a.processors.normally(t) // ended from outside meanwhile
	}
}

// end ends the bond. Anybody may call it.
func (a *affinity) end() {
	if t := a.thread.Swap(0); t != 0 {
		a.processors.normally(t)
		a.processors.unbind()
	}
}

func (h *processors) normally(thread int64) {
	_ = unix.SchedSetAttr(int(thread), h.normal, 0) // ESRCH: the thread has ended
}

// unbind lets every thread of the process run where it may: those that the runtime began meanwhile have the bond from their parent.
func (h *processors) unbind() {
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return
	}
	for _, t := range tasks {
		if id, err := strconv.Atoi(t.Name()); err == nil {
			_ = unix.SchedSetaffinity(id, &h.cpus)
		}
	}
}

// processorOf tells where a thread ran last, field 39 of proc_pid_stat(5).
func processorOf(thread uint32) (cpu int, ok bool) {
	text, err := os.ReadFile("/proc/" + strconv.FormatUint(uint64(thread), 10) + "/stat")
	if err != nil {
		return 0, false
	}
	fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:]) // from field 3 on
	if len(fields) < 37 {
		return 0, false
	}
	cpu, err = strconv.Atoi(string(fields[36]))
	return cpu, err == nil
}

// spareProcessor goes by the number of running threads in /proc/loadavg. Where all processors work, none has to be woken, and a bond is
// only in the way.
func spareProcessor() bool {
	text, err := os.ReadFile("/proc/loadavg")
	fields := bytes.Fields(text)
	if err != nil || len(fields) < 4 {
		return false
	}
	running, _, _ := bytes.Cut(fields[3], []byte("/"))
	n, err := strconv.Atoi(string(running))
	return err == nil && n <= runtime.NumCPU()
}
