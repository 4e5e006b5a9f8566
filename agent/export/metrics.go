// Package export tells other systems what the agent knows: metrics for
// Prometheus and alerts for Alertmanager, both made from a [state.State].
//
// The number of series is bounded, however many sockets, peers and processes
// there are: no address, process or name is ever a label.
package export

import (
	"net/http"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/lifeline-go/lifeline/agent/state"
)

// Metric is one metric family that the agent has.
type Metric struct {
	Name   string
	Help   string
	Labels []string
	Total  bool // a counter; else a gauge

	desc *prometheus.Desc
}

// Metrics returns all of Lifeline's own metrics, in the order in which they are
// documented.
func Metrics() []Metric { return slices.Clone(metrics) }

func gauge(name, help string, labels ...string) Metric {
	return Metric{name, help, labels, false, prometheus.NewDesc(name, help, labels, nil)}
}

func counter(name, help string, labels ...string) Metric {
	return Metric{name, help, labels, true, prometheus.NewDesc(name, help, labels, nil)}
}

// metrics is what there is. What was not seen has no sample: unknown is not
// zero.
var metrics = []Metric{
	gauge("lifeline_build_info", "Always 1; its label is the agent's version.", "version"),
	gauge("lifeline_start_time_seconds", "When the agent started, in seconds since 1970."),
	gauge("lifeline_state_timestamp_seconds", "Of what moment all other samples tell, in seconds since 1970."),
	gauge("lifeline_acts_allowed", "Acts that the policy lets the agent do by itself."),
	counter("lifeline_acts_total", "Acts that ended since the agent started, by what they came to: done, partly, failed, left_alone.", "act", "outcome"),
	counter("lifeline_act_connections_total", "Connections that they touched.", "act"),
	gauge("lifeline_policy_valid", "1 when the policy file as it is now is the one in force; 0 when it has an error and an older one still is."),
	gauge("lifeline_policy_loaded_timestamp_seconds", "When the policy in force was read, in seconds since 1970; none without a policy file."),
	gauge("lifeline_history_written", "1 when the history is written, 0 when it cannot be; none where no history is kept."),

	gauge("lifeline_promise_status", "1 for the status that a promise has, 0 for the others: kept, warned, broken, unknown.", "promise", "status"),
	gauge("lifeline_promise_looked_timestamp_seconds", "When it was last looked at whether a promise is kept, in seconds since 1970.", "promise"),
	gauge("lifeline_findings", "Open findings, those that another explains left out; none for a promise that could not be looked at.", "promise", "code", "severity"),
	gauge("lifeline_findings_hidden", "Open findings that another explains.", "promise"),
	gauge("lifeline_findings_flapping", "Open findings that come and go.", "promise"),
	gauge("lifeline_finding_connections", "What open findings count, most often connections, those that another explains left out.", "promise", "code"),

	gauge("lifeline_sockets", "Sockets of all network namespaces, those in TIME_WAIT left out.", "family"),
	gauge("lifeline_tcp_sockets", "TCP sockets of all network namespaces.", "state"),
	gauge("lifeline_processes", "Processes that hold sockets."),
	gauge("lifeline_namespaces", "Network namespaces."),
	gauge("lifeline_peers", "Machines with connections to this one."),
	gauge("lifeline_silent_peers", "Peers that are silent."),
	gauge("lifeline_silent_connections", "Connections to peers that are silent."),
	gauge("lifeline_links", "Pairs of program and peer."),
	gauge("lifeline_opened_connections_per_second", "Connections opened a second, over the last minute."),
	gauge("lifeline_resets_per_second", "Established TCP connections that a reset ended a second, of either end, over the last minute."),
	gauge("lifeline_retransmitted_segments_per_second", "Segments sent again a second, over the last minute."),
	gauge("lifeline_conntrack_used_ratio", "How full the fullest table of connection tracking is, from 0 to 1."),
	gauge("lifeline_file_limit_used_ratio", "How near the process that is nearest is to its limit of open files, from 0 to 1."),
	gauge("lifeline_census_timestamp_seconds", "When sockets were last counted, in seconds since 1970."),
	gauge("lifeline_census_duration_seconds", "How long that took."),

	gauge("lifeline_leak_sites", "Lines of code that opened what is open."),
	gauge("lifeline_leaked_sockets", "Open sockets of the lines of code that leak."),
	gauge("lifeline_unanswered_requests", "Requests without an answer so far, of the oldest groups."),
	gauge("lifeline_unanswered_oldest_seconds", "How long the oldest of them waits."),
	gauge("lifeline_nameservers", "Nameservers that are configured; none before names were looked at."),
	gauge("lifeline_nameservers_silent", "Nameservers that were asked and did not answer rightly."),
	gauge("lifeline_names_watched", "Names that the policy has looked up."),
	gauge("lifeline_names_failing", "Of them, names that at least one way does not resolve."),

	gauge("lifeline_source_up", "1 when the last look at a source worked and is not late; none for a source that is off.", "source"),
	gauge("lifeline_source_last_success_timestamp_seconds", "When the last look at a source that worked ended, in seconds since 1970.", "source"),
	gauge("lifeline_source_duration_seconds", "How long that took.", "source"),
	gauge("lifeline_blind_spots", "What could not be looked at.", "source"),

	counter("lifeline_webhook_alerts_sent_total", "Alerts that the webhook's receiver took."),
	counter("lifeline_webhook_alerts_dropped_total", "Alerts that were not sent: too many, refused, or tried too often."),
	counter("lifeline_webhook_requests_failed_total", "Requests to the webhook's receiver that failed."),
	gauge("lifeline_webhook_alerts_pending", "Alerts that wait to be sent."),
}

// Bounds of a scrape: its time, and how many go on at once.
const (
	scrapeTimeout = 10 * time.Second
	mostScrapes   = 4
)

// Registry returns a registry of Lifeline's metrics, and those of the agent's
// own process and Go runtime. Now is asked at each scrape and may return nil,
// before the first State; hook may be nil.
func Registry(now func() *state.State, hook *Webhook) *prometheus.Registry {
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(&collector{now, hook}, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

// Handler serves /metrics from a [Registry] of its arguments. It takes four
// scrapes at a time, each for ten seconds at most.
func Handler(now func() *state.State, hook *Webhook) http.Handler {
	return promhttp.HandlerFor(Registry(now, hook), promhttp.HandlerOpts{
		ErrorHandling:       promhttp.ContinueOnError,
		MaxRequestsInFlight: mostScrapes,
		Timeout:             scrapeTimeout,
	})
}

// collector makes the samples of one scrape from one State.
type collector struct {
	now  func() *state.State
	hook *Webhook
}

func (c *collector) Describe(out chan<- *prometheus.Desc) {
	for i := range metrics {
		out <- metrics[i].desc
	}
}

func (c *collector) Collect(out chan<- prometheus.Metric) {
	s := sampler{out}
	if c.hook != nil {
		stats := c.hook.Stats()
		s.set("lifeline_webhook_alerts_sent_total", float64(stats.Sent))
		s.set("lifeline_webhook_alerts_dropped_total", float64(stats.Dropped))
		s.set("lifeline_webhook_requests_failed_total", float64(stats.Failed))
		s.set("lifeline_webhook_alerts_pending", float64(stats.Pending))
	}
	if now := c.now(); now != nil {
		s.agent(now)
		s.acts(now.Tally)
		s.promises(now)
		s.totals(&now.Totals)
		s.lists(now)
		s.sources(now)
	}
}

type sampler struct{ out chan<- prometheus.Metric }

// set adds a sample. Its name is one of metrics, which a test of all holds to.
func (s sampler) set(name string, v float64, labels ...string) {
	m := &metrics[slices.IndexFunc(metrics, func(m Metric) bool { return m.Name == name })]
	kind := prometheus.GaugeValue
	if m.Total {
		kind = prometheus.CounterValue
	}
	s.out <- prometheus.MustNewConstMetric(m.desc, kind, v, labels...)
}

// known adds a sample of what may not have been seen.
func (s sampler) known(name string, v *float64, labels ...string) {
	if v != nil {
		s.set(name, *v, labels...)
	}
}

// moment adds a time; none for the zero Time.
func (s sampler) moment(name string, t time.Time, labels ...string) {
	if !t.IsZero() {
		s.set(name, float64(t.UnixMilli())/1000, labels...)
	}
}

func one(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}
