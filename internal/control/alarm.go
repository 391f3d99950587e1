package control

import (
	"context"
	"errors"
)

// Events that hooks tell of. Recovered is the end of one of the first three; Takeover is a moment and has none.
const (
	Stalled            = "stalled"             // there is something to do, and nothing has moved for a minute
	BehindRPO          = "behind_rpo"          // something takes longer than `rpo:` allows
	VerificationFailed = "verification_failed" // what was read back is not what was sealed
	Takeover           = "takeover"            // another node sends than before
	Recovered          = "recovered"
)

// Events of alarms that no hook tells of: as the operator has set things up, or over already.
const (
	OneRecipient = "one_recipient"
	Held         = "held"      // batches, by an operator
	WentBack     = "went_back" // a backup host had lost what it had; it is sent again
)

// Levels of an Alarm.
const (
	LevelWarning = "warning"
	LevelError   = "error"
)

// Alarm is something wrong that programs tell apart by its event, not by its words.
type Alarm struct {
	Event   string `json:"event"`
	Level   string `json:"level"`
	Store   string `json:"store,omitempty"`
	Path    string `json:"path,omitempty"` // pattern of the configuration
	Message string `json:"message"`        // in words, with what to do
}

// Warn adds an alarm whose words stand among the warnings as well.
func (s *Status) Warn(a Alarm) {
	s.Alarms = append(s.Alarms, a)
	s.Warnings = append(s.Warnings, a.Message)
}

// Amended is a Reporter whose status is completed by what others of the same process, or of this node, know.
type Amended struct {
	Reporter
	Amend func(list []Status)
}

// Status implements Reporter.
func (a Amended) Status(ctx context.Context) ([]Status, error) {
	list, err := a.Reporter.Status(ctx)
	if err == nil {
		a.Amend(list)
	}
	return list, err
}

// List implements Lister where the Reporter does.
func (a Amended) List(ctx context.Context, path string, recursive bool) ([]ListRow, error) {
	if l, ok := a.Reporter.(Lister); ok {
		return l.List(ctx, path, recursive)
	}
	return nil, errNoTree
}

// Durable implements Syncer where the Reporter does.
func (a Amended) Durable(ctx context.Context, q Durable) error {
	if s, ok := a.Reporter.(Syncer); ok {
		return s.Durable(ctx, q)
	}
	return errNoVolume
}

var errNoVolume = errors.New("durable: this daemon owns no volume")

var errNoTree = errors.New("list: this daemon keeps no tree")
