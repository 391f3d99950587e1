package drill

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"slipway/internal/control"
	"slipway/internal/durable"
)

// kept is drills.json.
type kept struct {
	Format int      `json:"format"`
	Drills []Result `json:"drills"` // the last of each host and volume
}

func file(state string) string { return filepath.Join(state, "drills.json") }

// Last returns how the last drill of each host went; none where there was none.
func Last(state string) ([]Result, error) {
	data, err := os.ReadFile(file(state))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read how the last drill went: %w", err)
	}
	var k kept
	if err := json.Unmarshal(data, &k); err != nil {
		return nil, fmt.Errorf("read how the last drill went in %s: %w", file(state), err)
	}
	if k.Format != 1 {
		return nil, fmt.Errorf("read how the last drill went in %s: format %d is not known", file(state), k.Format)
	}
	return k.Drills, nil
}

// keep writes down new results in the place of those of the same hosts and volumes. What cannot be read is written over.
func keep(state string, news []Result) error {
	k := kept{Format: 1, Drills: news}
	type key struct{ volume, store string }
	seen := map[key]bool{}
	for _, r := range news {
		seen[key{r.Volume, r.Store}] = true
	}
	last, _ := Last(state)
	for _, r := range last {
		if !seen[key{r.Volume, r.Store}] {
			k.Drills = append(k.Drills, r)
		}
	}
	data, err := json.Marshal(k)
	if err != nil {
		return fmt.Errorf("write how the drill went: %w", err)
	}
	if err := durable.Overwrite(file(state), append(data, '\n'), 0o640); err != nil {
		return fmt.Errorf("write how the drill went: %w", err)
	}
	return hand(state, file(state))
}

// hand gives a file to the owner of the state directory: a cache host's daemon is not root, and who drills may be.
func hand(state, path string) error {
	var st unix.Stat_t
	if err := unix.Stat(state, &st); err != nil {
		return fmt.Errorf("look at %s: %w", state, err)
	}
	if os.Geteuid() != 0 {
		return nil // it is its owner's already
	}
	if err := os.Lchown(path, int(st.Uid), int(st.Gid)); err != nil {
		return fmt.Errorf("give %s to the owner of its directory: %w", path, err)
	}
	return nil
}

// Amend returns what adds the last drills to a daemon's status, and says which have failed. Hosts that were drilled once and that status does not know any
// more are left out.
func Amend(state string) func(list []control.Status) {
	return func(list []control.Status) {
		last, err := Last(state)
		if err != nil && len(list) > 0 {
			list[0].Warnings = append(list[0].Warnings, err.Error()+"; the next drill writes it anew")
		}
		for i := range list {
			for _, r := range last {
				if r.Volume == list[i].Volume && knows(&list[i], r.Store) {
					add(&list[i], r.Drill)
				}
			}
		}
	}
}

func knows(s *control.Status, store string) bool {
	for _, st := range s.Stores {
		if st.Name == store && st.Kind == "backup" {
			return true
		}
	}
	return false
}

func add(s *control.Status, d control.Drill) {
	s.Drills = append(s.Drills, d)
	if !d.Passed {
		s.Warn(control.Alarm{Event: control.VerificationFailed, Level: control.LevelError, Store: d.Store, Message: fmt.Sprintf(
			"the drill of %s at %s failed: %s; mend it there, then run `slipway doctor --drill` again", d.Store, d.At.Format(time.DateTime), d.Problem)})
	}
}
