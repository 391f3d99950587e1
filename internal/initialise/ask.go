package initialise

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"filippo.io/age"

	"slipway/internal/config"
)

// Terminal is where a person answers.
type Terminal interface {
	io.Writer
	// ReadLine shows a prompt and returns what is typed, or io.EOF when the person wants no more of it.
	ReadLine(prompt string) (string, error)
}

// ErrDeclined says that a person did not want the files written.
var ErrDeclined = errors.New("nothing was written")

// question is one thing to ask for.
type question struct {
	text     string
	fallback string // taken for an empty answer; empty: an answer is needed
	take     func(answer string)
}

// Ask asks for what the options do not say, each answer judged at once by the configuration's own rules, shows what will be written, and asks whether
// to write it. What was given already is not asked for.
func (o *Options) Ask(t Terminal) error {
	if _, err := os.Lstat(o.Config); err == nil {
		return fmt.Errorf("%s %w", o.Config, ErrExists)
	}
	if err := o.judge(); err != nil {
		return err // a flag is wrong: no answer would mend it
	}
	for _, ask := range []func(Terminal) error{o.askFiles, o.askStores, o.askSecrets} {
		if err := ask(t); err != nil {
			return declined(err)
		}
	}
	return o.confirm(t)
}

func declined(err error) error {
	if errors.Is(err, io.EOF) {
		return ErrDeclined
	}
	return err
}

// askFiles asks what is backed up, and where programs see it.
func (o *Options) askFiles(t Terminal) error {
	if o.Source == "" {
		if err := o.ask(t, question{"Directory with the files", "", func(a string) { o.Source = a }}); err != nil {
			return err
		}
	}
	if o.Volume == "" {
		if err := o.ask(t, question{"Name of the volume", filepath.Base(o.Source), func(a string) { o.Volume = a }}); err != nil {
			return err
		}
	}
	if o.Mount == "" {
		if err := o.ask(t, question{"Directory to mount on", o.Source, func(a string) { o.Mount = a }}); err != nil {
			return err
		}
	}
	if o.Node != "" {
		return nil
	}
	host, _ := os.Hostname() // without one the person has to say
	return o.ask(t, question{"Name of this machine", host, func(a string) { o.Node = a }})
}

// askStores asks where it goes.
func (o *Options) askStores(t Terminal) error {
	if o.Cache.URL == "" {
		if err := o.ask(t, question{"The cache host's store, [NAME=]sftp://USER@HOST/PATH or a directory", "", func(a string) { o.Cache = config.ParseStore(a) }}); err != nil {
			return err
		}
	}
	given, text := o.Backups, "A backup host's store, in the same way"
	for more := len(given) == 0; more; text = "One more backup host's store" {
		more = false
		have := o.Backups
		take := func(a string) {
			o.Backups = have
			if more = a != "-"; more {
				o.Backups = append(have[:len(have):len(have)], config.ParseStore(a))
			}
		}
		if err := o.ask(t, question{text + ", - for none", "-", take}); err != nil {
			return err
		}
	}
	return nil
}

// askSecrets asks where keys lie.
func (o *Options) askSecrets(t Terminal) error {
	if o.needsSSH() && o.SSHKey == "" {
		if err := o.ask(t, question{"SSH key for the stores' accounts", o.sshKey(), func(a string) { o.SSHKey = a }}); err != nil {
			return err
		}
	}
	if o.needsSSH() && o.KnownHosts == "" {
		if err := o.ask(t, question{"Pinned host keys", o.knownHosts(), func(a string) { o.KnownHosts = a }}); err != nil {
			return err
		}
	}
	if o.Identity != "" {
		return nil
	}
	return o.ask(t, question{"Identity file to make, which every restore needs", "slipway-" + o.Volume + ".identity", func(a string) { o.Identity = a }})
}

// ask asks until the answer is taken.
func (o *Options) ask(t Terminal, q question) error {
	prompt := q.text + ": "
	if q.fallback != "" {
		prompt = fmt.Sprintf("%s [%s]: ", q.text, q.fallback)
	}
	for {
		answer, err := t.ReadLine(prompt)
		if err != nil {
			return err
		}
		if answer = strings.TrimSpace(answer); answer == "" {
			answer = q.fallback
		}
		if answer == "" {
			continue
		}
		before := *o
		q.take(answer)
		if err = o.judge(); strings.HasPrefix(answer, "~") {
			err = errors.New("~ is a matter of the shell: write the whole path")
		}
		if err == nil {
			return nil
		}
		*o = before
		if _, err := fmt.Fprint(t, advice(err)); err != nil {
			return err
		}
	}
}

// judge finds what is wrong with the answers so far; others stand in for those that are missing.
func (o *Options) judge() error {
	all := *o
	for _, later := range []struct {
		what    *string
		standIn string
	}{
		{&all.Source, "/slipway-files"}, {&all.Volume, "volume"}, {&all.Node, "node"}, {&all.Cache.URL, "/slipway-store"},
		{&all.SSHKey, "/slipway-key"}, {&all.KnownHosts, "/slipway-hosts"},
	} {
		if *later.what == "" {
			*later.what = later.standIn
		}
	}
	if err := all.complete(); err != nil {
		return err
	}
	if _, err := os.Lstat(all.Identity); err == nil {
		return fmt.Errorf("%s %w", all.Identity, ErrExists)
	}
	return all.check()
}

// advice says what is wrong with an answer.
func advice(err error) string {
	var faults *config.Faults
	if !errors.As(err, &faults) {
		return fmt.Sprintf("  %v\n", err)
	}
	var b strings.Builder
	for _, f := range faults.Found {
		fmt.Fprintf(&b, "  %s\n", f.Message)
		if f.Fix != "" {
			fmt.Fprintf(&b, "  fix: %s\n", f.Fix)
		}
	}
	return b.String()
}

// confirm shows what will be written, and where.
func (o *Options) confirm(t Terminal) error {
	all := *o
	if err := all.complete(); err != nil {
		return err
	}
	stand, err := age.GenerateX25519Identity()
	if err != nil {
		return err
	}
	recipient := stand.Recipient().String()
	text := strings.ReplaceAll(string(all.yaml(recipient)), recipient, "age1…")
	if _, err := fmt.Fprintf(t, "\nTo be written: %s\n\n    %s\n\nand %s, the node's key and the volume's secret in it, and %s.\n\n", all.Config,
		strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n    "), all.State, all.Identity); err != nil {
		return err
	}
	for {
		answer, err := t.ReadLine("Write all this? [y]: ")
		if err != nil {
			return declined(err)
		}
		switch strings.ToLower(strings.TrimSpace(answer)) {
		case "", "y", "yes":
			return nil
		case "n", "no":
			return ErrDeclined
		}
	}
}
