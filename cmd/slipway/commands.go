package main

import (
	"encoding/json"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// commandRow is what there is to say about one command.
type commandRow struct {
	Path    string    `json:"path"` // "slipway spool ls"
	Use     string    `json:"use"`
	Short   string    `json:"short"`
	Long    string    `json:"long,omitempty"`
	Example string    `json:"example,omitempty"`
	Below   []string  `json:"below,omitempty"` // paths of its verbs
	Flags   []flagRow `json:"flags,omitempty"`
}

type flagRow struct {
	Name      string `json:"name"`
	Shorthand string `json:"shorthand,omitempty"`
	Value     string `json:"value,omitempty"` // what it takes: "FILE"; empty: nothing
	Usage     string `json:"usage"`
	Default   string `json:"default,omitempty"`
}

// commandsCommand is not for people: tools/man makes the man pages of what it prints.
func commandsCommand() *cobra.Command {
	return &cobra.Command{
		Use: "commands", Short: "Print every command and its flags as JSON lines", Hidden: true, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return printCommands(json.NewEncoder(cmd.OutOrStdout()), cmd.Root())
		},
	}
}

// printCommands prints a command and those below it that people are shown.
func printCommands(e *json.Encoder, c *cobra.Command) error {
	row := commandRow{Path: c.CommandPath(), Use: c.UseLine(), Short: c.Short, Long: c.Long, Example: c.Example}
	var below []*cobra.Command
	for _, sub := range c.Commands() {
		if sub.IsAvailableCommand() {
			below = append(below, sub)
			row.Below = append(row.Below, sub.CommandPath())
		}
	}
	add := func(f *pflag.Flag) {
		if f.Hidden {
			return
		}
		value, usage := pflag.UnquoteUsage(f)
		flag := flagRow{Name: f.Name, Shorthand: f.Shorthand, Value: value, Usage: usage, Default: f.DefValue}
		if value == "" || f.DefValue == "[]" || f.DefValue == "0" || f.DefValue == "0s" {
			flag.Default = ""
		}
		row.Flags = append(row.Flags, flag)
	}
	c.LocalFlags().VisitAll(add)
	c.InheritedFlags().VisitAll(add)
	if err := e.Encode(row); err != nil {
		return err
	}
	for _, sub := range below {
		if err := printCommands(e, sub); err != nil {
			return err
		}
	}
	return nil
}
