package render

import (
	"strconv"

	"slipway/internal/config"
	"slipway/internal/receive"
)

// Received writes `received ls`.
var Received = Table(func(r receive.Row) []string {
	sealed, quota := "-", "-"
	if r.SealedAt != nil {
		sealed = when(*r.SealedAt)
	}
	if r.Quota > 0 {
		quota = config.FormatSize(r.Quota)
	}
	return []string{
		Name(r.Volume), Name(r.Node), strconv.FormatUint(r.Batch, 10), sealed, config.FormatSize(r.Bytes), quota, strconv.Itoa(r.Refused), r.State, r.Why,
	}
}, "VOLUME", "NODE", "BATCH", "SEALED", "BYTES", "QUOTA", "REFUSED", "STATE", "")
