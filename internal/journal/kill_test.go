package journal

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"
)

// The test binary is its own victim: `journal.test write-until-killed DIR`.
const victim = "write-until-killed"

func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == victim {
		fmt.Fprintln(os.Stderr, writeUntilKilled(os.Args[2]))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// victims is how many goroutines of it append.
const victims = 4

// writeUntilKilled says on standard output what was answered, after it was.
func writeUntilKilled(dir string) error {
	w, err := Create(dir)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(context.Background())
	g.Go(func() error { return w.Run(ctx) })
	for i := range victims {
		g.Go(func() error {
			for n := 1; ; n++ {
				name := strings.Repeat("x", n%200+1)
				w.Append(&Record{Op: OpCreate, Node: Ident{FS: uint64(i) + 1, Ino: uint64(n)}, Name: name})
				if _, err := fmt.Printf("%d %d\n", i, n); err != nil {
					return err
				}
			}
		})
	}
	return g.Wait()
}

// TestKill: whenever the writer is killed, every record that was answered is there, whole and in order, and at most one
// torn record follows.
func TestKill(t *testing.T) {
	dir := t.TempDir()
	torn := 0
	for shot := range 20 {
		answered := killOne(t, dir, 1+rand.IntN(5000))
		r := open(t, dir, Position{Serial: uint64(shot) + 1, Instance: serialID(t, dir, uint64(shot)+1)})
		var seen [victims]int
		for {
			rec, _, err := r.Next()
			if errors.Is(err, ErrWait) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if rec.Op == OpGap {
				torn++
				continue
			}
			i := rec.Node.FS - 1
			seen[i]++
			if int(rec.Node.Ino) != seen[i] || len(rec.Name) != seen[i]%200+1 {
				t.Fatalf("shot %d: goroutine %d: record %d comes as number %d", shot, i, rec.Node.Ino, seen[i])
			}
		}
		for i, n := range answered {
			if seen[i] < n {
				t.Fatalf("shot %d: goroutine %d was answered %d records, the journal holds %d", shot, i, n, seen[i])
			}
		}
		t.Logf("shot %d: answered %v, found %v", shot, answered, seen)
	}
	t.Logf("%d torn records", torn)
}

// killOne lets a victim answer some lines, kills it with SIGKILL, and returns how many each of its goroutines answered.
func killOne(t *testing.T, dir string, lines int) (answered [victims]int) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", victim, dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	scanner := bufio.NewScanner(out)
	for n := 0; scanner.Scan(); n++ {
		if n == lines {
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
		i, count, ok := strings.Cut(scanner.Text(), " ")
		if !ok {
			continue // the last line may be cut
		}
		goroutine, err1 := strconv.Atoi(i)
		number, err2 := strconv.Atoi(count)
		if err1 == nil && err2 == nil {
			answered[goroutine] = max(answered[goroutine], number)
		}
	}
	if err := cmd.Wait(); err == nil {
		t.Fatal("the victim ended by itself")
	}
	return answered
}

func serialID(t *testing.T, dir string, serial uint64) uint64 {
	t.Helper()
	all, err := instances(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range all {
		if i.serial == serial {
			return i.id
		}
	}
	t.Fatalf("no instance %d among %v", serial, all)
	return 0
}
