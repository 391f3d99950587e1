package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"slipway/internal/access"
	"slipway/internal/render"
	"slipway/internal/restore"
	"slipway/internal/restore/chain"
	"slipway/internal/restore/verify"
)

func verifyCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "verify --from URL...",
		Short: "Check what stores hold: signatures, chain, shards; exit code 4 when something is found",
		Long: `verify checks each store by itself: every batch's signature and place in the chain, that every shard is there and has its
size. With --read-data every shard is read and compared with its digest; with an identity as well everything is opened, and
every chunk compared with its id. Without an owner's key (the identity file notes it) signatures are compared with the
key that the oldest batch names, which is said. Exit code 4: something was found.`,
		Example: `  slipway verify --from sftp://slipway-projects@vault1/data --identity projects.identity --read-data
  slipway verify -c /etc/slipway/slipway.yml`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := request(cmd)
			if err != nil {
				return err
			}
			return verifyAll(cmd, r, isSet(cmd, "read-data"))
		},
	}
	readFlags(c, false)
	c.Flags().Bool("read-data", false, "read every shard, not only its size")
	jsonFlag(c)
	return c
}

// verifyAll checks every store of a request by itself, so that one that does not answer does not hide what another holds.
func verifyAll(cmd *cobra.Command, r access.Request, readData bool) error {
	v, err := access.Open(cmd.Context(), r)
	if err != nil {
		return err
	}
	defer func() { _ = v.Close() }()
	findings := 0
	var unreached []error
	for _, s := range v.Stores {
		report, err := verifyStore(cmd, v, s, r, readData)
		if err != nil {
			unreached = append(unreached, fmt.Errorf("verify %s: %w", s.Name, err))
			continue
		}
		findings += len(report.Findings)
		out := render.Verified{Store: s.Name, Volume: v.Name, DataRead: readData, Report: report}
		if isSet(cmd, "json") {
			err = out.JSON(cmd.OutOrStdout())
		} else {
			err = out.Text(cmd.OutOrStdout())
		}
		if err != nil {
			return err
		}
	}
	if findings > 0 {
		return errors.Join(append([]error{errFindings(findings)}, unreached...)...)
	}
	return errors.Join(unreached...)
}

func verifyStore(cmd *cobra.Command, v *access.Volume, s chain.NamedStore, r access.Request, readData bool) (*verify.Report, error) {
	bar := render.NewProgress(cmd.ErrOrStderr(), s.Name, true)
	defer bar.End()
	src := restore.Source{Stores: []chain.NamedStore{s}, IDs: v.IDs, Owners: v.Owners}
	return verify.Verify(cmd.Context(), src, verify.Options{
		ReadData: readData, MayEvict: map[string]bool{s.Name: r.Evicts(s.Name)}, Progress: bar.Set,
	})
}
