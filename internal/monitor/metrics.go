package monitor

import (
	"context"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"slipway/internal/control"
	"slipway/internal/health"
	"slipway/internal/release"
)

// metric is one that each volume has, or each store of a volume. docs/monitoring.md has them all.
type metric struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
}

func gauge(name, help string, labels ...string) metric {
	return metric{prometheus.NewDesc("slipway_"+name, help, labels, nil), prometheus.GaugeValue}
}

func counter(name, help string, labels ...string) metric {
	m := gauge(name, help, labels...)
	m.kind = prometheus.CounterValue
	return m
}

var (
	up        = gauge("up", "Whether the daemon answers for itself (0 or 1).")
	buildInfo = gauge("build_info", "Always 1; the labels say what was built.", "version", "goversion")

	volumes = []struct {
		metric
		value func(s *control.Status) float64
	}{
		{gauge("volume_epoch", "Epoch of the volume; it grows with each owner.", "volume"), func(s *control.Status) float64 { return float64(s.Epoch) }},
		{gauge("volume_head_batch", "Number of the newest batch sealed.", "volume"), func(s *control.Status) float64 { return float64(s.HeadBatch) }},
		{gauge("volume_complete", "Whether the newest batch holds the whole volume: 0 during an adoption or after a gap.", "volume"), func(s *control.Status) float64 { return number(s.Complete) }},
		{gauge("pending_files", "Files whose latest content is not sealed.", "volume"), func(s *control.Status) float64 { return float64(s.Pending.Files) }},
		{gauge("pending_bytes", "Size of the files whose latest content is not sealed.", "volume"), func(s *control.Status) float64 { return float64(s.Pending.Bytes) }},
		{gauge("pending_oldest_seconds", "How long the oldest change has not been sealed.", "volume"), func(s *control.Status) float64 { return s.Pending.OldestSeconds }},
		{gauge("journal_unsealed_bytes", "Bytes of the journal that no batch covers.", "volume"), func(s *control.Status) float64 { return float64(max(s.Journal.Head-s.Journal.Sealed, 0)) }},
		{counter("journal_gaps_total", "Times that records were lost, so that the tree was compared with the source.", "volume"), func(s *control.Status) float64 { return float64(s.Journal.Gaps) }},
		{gauge("spool_bytes", "Size of the node's own store.", "volume"), func(s *control.Status) float64 { return float64(s.Spool.Bytes) }},
		{gauge("spool_limit_bytes", "Its cap; 0: none.", "volume"), func(s *control.Status) float64 { return float64(s.Spool.Cap) }},
		{gauge("sender_term", "Term of the sender.", "volume"), func(s *control.Status) float64 { return float64(s.Sender.Term) }},
		{gauge("sender_active", "Whether this node sends.", "volume"), func(s *control.Status) float64 { return number(s.Sender.Here == "sending") }},
		{gauge("sender_rate_bytes_per_second", "What the sender gets delivered.", "volume"), func(s *control.Status) float64 { return s.Sender.Rate }},
		{gauge("behind_rpo_warning", "Deadlines of rpo that are missed so far that status warns.", "volume"), func(s *control.Status) float64 { return behind(s, control.LevelWarning) }},
		{gauge("behind_rpo_error", "Deadlines of rpo that are missed so far that it is an error.", "volume"), func(s *control.Status) float64 { return behind(s, control.LevelError) }},
		{gauge("fsyncs_waiting", "Fsyncs that wait for a stage.", "volume"), func(s *control.Status) float64 { return float64(fsyncs(s).Waiting) }},
		{counter("fsyncs_timed_out_total", "Fsyncs that waited for a stage in vain and were answered with EIO.", "volume"), func(s *control.Status) float64 { return float64(fsyncs(s).TimedOut) }},
		{gauge("config_last_reload_successful", "Whether the configuration file was read the last time that it was asked for (0 or 1).", "volume"), func(s *control.Status) float64 { return number(s.Config == nil || s.Config.Error == "") }},
		{gauge("config_last_reload_success_timestamp_seconds", "When the configuration in force was read.", "volume"), func(s *control.Status) float64 { return float64(loadedAt(s).UnixNano()) / 1e9 }},
		{gauge("warnings", "Things that the daemon wants the operator to look at; status has them in words.", "volume"), func(s *control.Status) float64 { return float64(len(s.Warnings)) }},
	}

	stores = []struct {
		metric
		value func(s *control.StoreStatus) float64
	}{
		{gauge("store_up", "0 when the store is down, full or refuses.", "volume", "store", "kind"), func(s *control.StoreStatus) float64 { return number(!health.Wrong(s.State)) }},
		{gauge("store_batch", "Newest batch that the store has whole.", "volume", "store", "kind"), func(s *control.StoreStatus) float64 { return float64(s.Batch) }},
		{gauge("store_lag_batches", "Batches sealed that the store has not.", "volume", "store", "kind"), func(s *control.StoreStatus) float64 { return float64(s.LagBatches) }},
		{gauge("store_rate_bytes_per_second", "What the store confirms.", "volume", "store", "kind"), func(s *control.StoreStatus) float64 { return s.Rate }},
		{gauge("store_lag_bytes", "Size of what the store has not; 0 too where it is not counted.", "volume", "store", "kind"), func(s *control.StoreStatus) float64 { return float64(s.LagBytes) }},
		{gauge("store_lag_seconds", "Age of the oldest batch that the store has not.", "volume", "store", "kind"), func(s *control.StoreStatus) float64 { return s.LagSeconds }},
	}

	drills = []struct {
		metric
		value func(d *control.Drill) float64
	}{
		{gauge("drill_success", "Whether the last drill restored its sample from the backup host as it was sealed.", "volume", "store"), func(d *control.Drill) float64 { return number(d.Passed) }},
		{gauge("drill_last_timestamp_seconds", "When the last drill of the backup host began.", "volume", "store"), func(d *control.Drill) float64 { return float64(d.At.UnixNano()) / 1e9 }},
		{gauge("drill_duration_seconds", "How long the last drill of the backup host took.", "volume", "store"), func(d *control.Drill) float64 { return d.Seconds }},
	}

	stalled = gauge("stalled", "Whether there is something to do and nothing has moved for a minute.")
)

// fsyncs returns what waits at a volume that has `durability:`.
func fsyncs(s *control.Status) control.FsyncStatus {
	if s.Fsyncs == nil {
		return control.FsyncStatus{}
	}
	return *s.Fsyncs
}

func number(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}

// loadedAt is the beginning of Unix time where nobody says.
func loadedAt(s *control.Status) time.Time {
	if s.Config == nil {
		return time.Unix(0, 0)
	}
	return s.Config.LoadedAt
}

// behind counts the deadlines that are missed.
func behind(s *control.Status, level string) (n float64) {
	for _, a := range s.Alarms {
		if a.Event == control.BehindRPO && a.Level == level {
			n++
		}
	}
	return n
}

// collector asks the daemon at every scrape.
type collector struct{ m *monitor }

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, m := range []metric{up, buildInfo, stalled} {
		ch <- m.desc
	}
	for _, v := range volumes {
		ch <- v.desc
	}
	for _, s := range stores {
		ch <- s.desc
	}
	for _, d := range drills {
		ch <- d.desc
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	give := func(m metric, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(m.desc, m.kind, v, labels...)
	}
	give(buildInfo, 1, release.Version, runtime.Version())
	list, err := c.m.status(context.Background())
	give(up, number(err == nil))
	if err != nil {
		return
	}
	give(stalled, number(len(c.m.health.Stalled(list, time.Now())) > 0))
	for i := range list {
		s := &list[i]
		for _, v := range volumes {
			give(v.metric, v.value(s), s.Volume)
		}
		for j := range s.Stores {
			for _, v := range stores {
				give(v.metric, v.value(&s.Stores[j]), s.Volume, s.Stores[j].Name, s.Stores[j].Kind)
			}
		}
		for j := range s.Drills {
			for _, d := range drills {
				give(d.metric, d.value(&s.Drills[j]), s.Volume, s.Drills[j].Store)
			}
		}
	}
}
