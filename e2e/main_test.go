// Package e2e tests whole systems: a real mount, real OpenSSH servers, several nodes as separate processes of the real binary.
//
// Short forms run by default. The full counts of the issues are run with -full. Every random choice comes from a seed that is printed;
// -seed repeats a run.
package e2e

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

var (
	full     = flag.Bool("full", false, "full counts instead of the short forms")
	seedFlag = flag.Uint64("seed", 0, "seed of random choices; 0: a new one, printed")

	binary string // the slipway binary under test
)

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "slipway-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	binary = filepath.Join(dir, "slipway")
	build := exec.Command("go", "build", "-o", binary, "slipway/cmd/slipway")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build slipway: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// random returns a seeded source and prints the seed.
func random(t *testing.T) *rand.Rand {
	t.Helper()
	seed := *seedFlag
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// count returns n in the full form and short otherwise.
func count(short, n int) int {
	if *full {
		return n
	}
	return short
}
