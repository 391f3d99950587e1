package alert

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"slipway/internal/control"
	"slipway/internal/durable"
)

// calm is how long something has to stay away before it has ended. What comes and goes more often is one thing that lasts.
const calm = 5 * time.Minute

// News is what a command is told.
type News struct {
	Event   string    `json:"event"`
	Was     string    `json:"was,omitempty"` // of "recovered": the event that has ended
	Volume  string    `json:"volume"`
	Node    string    `json:"node"` // that tells it
	Store   string    `json:"store,omitempty"`
	Path    string    `json:"path,omitempty"`
	Message string    `json:"message"`
	Since   time.Time `json:"since"`
}

// lasting is something that was told and has not ended.
type lasting struct {
	News
	gone time.Time // when it was not there any more; zero: it is
}

// sending is who sent a volume when it was last looked at.
type sending struct {
	Node string `json:"node"`
	Term uint32 `json:"term"`
}

// memory is what was told.
type memory struct {
	Format  int                 `json:"format"`
	Lasting []*lasting          `json:"lasting"`
	Senders map[string]*sending `json:"senders"` // by volume
}

// recall reads what the last run kept.
func recall(path string) (*memory, error) {
	fresh := &memory{Format: 1, Senders: map[string]*sending{}}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return fresh, nil
	}
	if err != nil {
		return fresh, fmt.Errorf("read what was told: %w", err)
	}
	m := &memory{}
	if err := json.Unmarshal(data, m); err != nil {
		return fresh, fmt.Errorf("read what was told in %s: %w", path, err)
	}
	if m.Format != 1 {
		return fresh, fmt.Errorf("read what was told in %s: format %d is not known", path, m.Format)
	}
	if m.Senders == nil {
		m.Senders = map[string]*sending{}
	}
	return m, nil
}

func (m *memory) keep(path string) error {
	data, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("write what was told: %w", err)
	}
	if err := durable.Overwrite(path, append(data, '\n'), 0o600); err != nil {
		return fmt.Errorf("write what was told: %w", err)
	}
	return nil
}

// step compares what the daemon says with what was told, and returns what is to be told now.
func (m *memory) step(list []control.Status, now time.Time) (news []News, changed bool) {
	present := map[string]bool{}
	for i := range list {
		s := &list[i]
		for _, a := range s.Alarms {
			if a.Level != control.LevelError {
				continue
			}
			n := News{Event: a.Event, Volume: s.Volume, Node: s.Node, Store: a.Store, Path: a.Path, Message: a.Message, Since: now}
			present[n.key()] = true
			if m.begins(n) {
				news = append(news, n)
			}
		}
		if n, ok := m.takeover(s, now); ok {
			changed = true
			if n.Message != "" {
				news = append(news, n)
			}
		}
	}
	ended := m.end(present, now)
	return append(news, ended...), changed || len(news)+len(ended) > 0
}

// key tells one thing that goes wrong from another. Its words change as it lasts.
func (n News) key() string { return strings.Join([]string{n.Event, n.Volume, n.Store, n.Path}, "\x00") }

// begins notes something that goes wrong; false if it was told already.
func (m *memory) begins(n News) bool {
	for _, l := range m.Lasting {
		if l.key() == n.key() {
			l.gone = time.Time{}
			return false
		}
	}
	m.Lasting = append(m.Lasting, &lasting{News: n})
	return true
}

// end forgets what has stayed away long enough.
func (m *memory) end(present map[string]bool, now time.Time) (news []News) {
	m.Lasting = slices.DeleteFunc(m.Lasting, func(l *lasting) bool {
		switch {
		case present[l.key()]:
			return false
		case l.gone.IsZero():
			l.gone = now
			return false
		case now.Sub(l.gone) < calm:
			return false
		}
		over := l.News
		over.Event, over.Was, over.Message = control.Recovered, l.Event, "over: "+l.Message
		news = append(news, over)
		return true
	})
	return news
}

// takeover notices that another node sends; ok if there is anything new. The first sight of a volume is none.
func (m *memory) takeover(s *control.Status, now time.Time) (n News, ok bool) {
	if s.Sender.Node == "" {
		return n, false
	}
	before := m.Senders[s.Volume]
	if before != nil && (s.Sender.Term < before.Term || *before == (sending{s.Sender.Node, s.Sender.Term})) {
		return n, false // a lower term was read before the higher one: stale
	}
	m.Senders[s.Volume] = &sending{s.Sender.Node, s.Sender.Term}
	if before == nil || before.Node == s.Sender.Node {
		return n, true
	}
	return News{
		Event: control.Takeover, Volume: s.Volume, Node: s.Node, Since: now,
		Message: fmt.Sprintf("%s sends %s in the place of %s, term %d: %s", s.Sender.Node, s.Volume, before.Node, s.Sender.Term, s.Sender.Reason),
	}, true
}
