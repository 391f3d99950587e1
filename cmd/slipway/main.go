// Command slipway is a backup layer that applications do not notice: one binary for the mount on a primary node, the shipper
// on a cache host, and everything a person asks of them. Each verb turns flags and configuration into a call of the
// packages below; what is true after a crash is said there.
package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"slipway/internal/config"
	"slipway/internal/service"
)

func main() {
	if source, dir, options, ok := calledByMount(os.Args); ok {
		os.Exit(mountHelper(source, dir, options))
	}
	os.Exit(run(os.Args[1:]))
}

// run is the whole command and returns its exit code.
func run(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := newRoot()
	root.SetArgs(args)
	ran, err := root.ExecuteContextC(ctx)
	return report(os.Stderr, ran, err)
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "slipway",
		Short: "A backup layer that applications do not notice",
		Long: `slipway mounts a directory through FUSE; people and programs write files normally. Every change is journaled as it
happens, sealed into immutable shards, pushed to a cache host and shipped from there to backup hosts over SFTP.

Every flag may be given in the environment as SLIPWAY_FLAG (--config is SLIPWAY_CONFIG); a flag comes before the
environment, and that before the configuration file.

Exit codes: 0 done, 1 error, 2 usage or configuration, 3 partly done, 4 findings, 5 try again later, 124 timed out.`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			return unknownCommand(cmd, args[0])
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			if err := fromEnvironment(cmd); err != nil {
				return err
			}
			format := text(cmd, "log-format")
			if format != "text" && format != "json" {
				return usagef("--log-format: %q is neither text nor json", format)
			}
			if err := logLevel(text(cmd, "log-level")); err != nil {
				return err
			}
			// In the environment, for the processes that mount starts, too.
			return errors.Join(os.Setenv(service.LogLevel, text(cmd, "log-level")), os.Setenv(service.LogFormat, format))
		},
	}
	root.SetFlagErrorFunc(wrongFlag)
	root.PersistentFlags().StringP("config", "c", config.DefaultPath, "configuration `FILE`")
	root.PersistentFlags().String("log-format", "text", "how the daemons log: text or `json`")
	root.PersistentFlags().String("log-level", "info", "how much the daemons log: `LEVEL` is debug, info, warn or error")
	root.AddCommand(
		initCommand(), keygenCommand(), configCommand(),
		mountCommand(), umountCommand(), fusefsCommand(), spoolerCommand(), shipCommand(), peerCommand(), receiveCommand(), receivedCommand(),
		statusCommand(), explainCommand(), spoolCommand(), waitCommand(), senderCommand(), promoteCommand(), demoteCommand(),
		restoreCommand(), lsCommand(), catCommand(), findCommand(), versionsCommand(), diffCommand(), browseCommand(), verifyCommand(), doctorCommand(),
		demoCommand(), versionCommand(), completionCommand(), commandsCommand(),
	)
	root.CompletionOptions.DisableDefaultCmd = true
	for _, c := range root.Commands() {
		strict(c)
	}
	if err := completeFlags(root); err != nil {
		panic(err) // a flag that this program does not define, or defines twice
	}
	return root
}

// group is a verb that only has verbs below it.
func group(use, short string, verbs ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{
		Use: use, Short: short,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return unknownCommand(cmd, args[0])
			}
			var list []string
			for _, sub := range cmd.Commands() {
				list = append(list, sub.Name())
			}
			return usagef("%q needs a verb: %s", cmd.CommandPath(), strings.Join(list, ", "))
		},
	}
	c.AddCommand(verbs...)
	return c
}

// fromEnvironment sets the flags that were not given from SLIPWAY_<FLAG>.
func fromEnvironment(cmd *cobra.Command) error {
	var err error
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		name := "SLIPWAY_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		value := os.Getenv(name)
		if value == "" || f.Changed || err != nil || f.Name == "help" {
			return
		}
		if set := cmd.Flags().Set(f.Name, value); set != nil {
			err = usagef("%s: %v", name, set)
		}
	})
	return err
}

// load reads the configuration that -c names.
func load(cmd *cobra.Command) (*config.Config, error) {
	return config.Load(text(cmd, "config"))
}

// work is a verb that needs a configuration.
type work func(cmd *cobra.Command, c *config.Config, args []string) error

// configured reads the configuration and goes to work.
func configured(do work) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		c, err := load(cmd)
		if err != nil {
			return err
		}
		return do(cmd, c, args)
	}
}

// primary is configured for verbs that only a primary node has.
func primary(do work) func(*cobra.Command, []string) error {
	return configured(func(cmd *cobra.Command, c *config.Config, args []string) error {
		if c.Primary == nil {
			return usagef("%s is the configuration of a %s; %q needs a primary's (with volume:)", c.Path, c.Role(), cmd.CommandPath())
		}
		return do(cmd, c, args)
	})
}

func text(cmd *cobra.Command, flag string) string {
	v, err := cmd.Flags().GetString(flag)
	if err != nil {
		panic(err) // a flag that this program does not define
	}
	return v
}

func number(cmd *cobra.Command, flag string) int {
	n, err := cmd.Flags().GetInt(flag)
	if err != nil {
		panic(err) // a flag that this program does not define
	}
	return n
}

func isSet(cmd *cobra.Command, flag string) bool {
	f := cmd.Flags().Lookup(flag)
	return f != nil && f.Value.String() == "true"
}
