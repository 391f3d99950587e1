// Package reload runs a daemon, and again with what its configuration file says then whenever that is asked for (SIGHUP). A file that is
// not fit to run with changes nothing: the daemon goes on as it was, and its status says so.
//
// It keeps nothing. A daemon that ends for a reload ends as it does for a shutdown, and what is true then is true here.
package reload

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"slipway/internal/config"
	"slipway/internal/control"
	"slipway/internal/service"
)

// Options say what to run.
type Options struct {
	Config *config.Config
	Asked  <-chan os.Signal // each is a wish to read the file again
	// Run is the daemon, until its context ends. It hands its status through known.Amend.
	Run func(ctx context.Context, c *config.Config, known *State) error
	Log *slog.Logger

	again func(path string) (*config.Config, error) // nil: read and check the file
}

// State is what is known of the configuration in force.
type State struct {
	mu     sync.Mutex
	at     time.Time
	failed time.Time // of the newest attempt; zero: it went well
	why    string
}

// Amend adds it to a status.
func (s *State) Amend(list []control.Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range list {
		list[i].Config = &control.ConfigStatus{LoadedAt: s.at, Error: s.why}
		if s.why != "" {
			list[i].Warnings = append(list[i].Warnings, fmt.Sprintf("the configuration was not read again at %s, the one of %s is in force: %s",
				s.failed.Local().Format(time.DateTime), s.at.Local().Format(time.DateTime), s.why))
		}
	}
}

func (s *State) set(at, failed time.Time, why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if failed.IsZero() {
		s.at = at
	}
	s.failed, s.why = failed, why
}

// Run runs the daemon until ctx ends or it fails.
func Run(ctx context.Context, o Options) error {
	if o.again == nil {
		o.again = read
	}
	known := &State{at: time.Now()}
	for {
		next, err := o.until(ctx, known)
		if next == nil || err != nil || ctx.Err() != nil {
			return err
		}
		o.Config = next
		known.set(time.Now(), time.Time{}, "")
		o.Log.Info("configuration read again", "file", next.Path)
	}
}

// until runs the daemon until it ends by itself or has been ended for another configuration, which is returned.
func (o *Options) until(ctx context.Context, known *State) (*config.Config, error) {
	running, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- o.Run(running, o.Config, known) }()
	for {
		select {
		case err := <-ended:
			return nil, err
		case <-o.Asked:
		}
		service.Reloading()
		next, err := o.next()
		if err == nil {
			stop()
			return next, <-ended // it says that it is ready when it runs again
		}
		known.set(time.Time{}, time.Now(), oneLine(err))
		o.Log.Error("the configuration is not read again, the old one stays in force", "file", o.Config.Path, "error", err)
		service.Ready()
	}
}

// next reads the file and finds whether it can be run with.
func (o *Options) next() (*config.Config, error) {
	next, err := o.again(o.Config.Path)
	if err != nil {
		return nil, err
	}
	if fixed := o.Config.Fixed(next); len(fixed) > 0 {
		return nil, fmt.Errorf("%w: %s", errFixed, strings.Join(fixed, ", "))
	}
	return next, nil
}

var errFixed = errors.New("this needs a restart of the daemon")

func read(path string) (*config.Config, error) {
	c, err := config.Load(path)
	if err != nil {
		return nil, err
	}
	return c, c.CheckKeys()
}

// oneLine keeps a list of faults readable where there is one line.
func oneLine(err error) string {
	var faults *config.Faults
	if !errors.As(err, &faults) {
		return err.Error()
	}
	var list []string
	for _, f := range faults.Found {
		list = append(list, fmt.Sprintf("line %d: %s", f.Line, f.Message))
	}
	return strings.Join(list, "; ")
}
