package otlp

import (
	"encoding/json"
	"fmt"
	"time"

	dto "github.com/prometheus/client_model/go"
	common "go.opentelemetry.io/proto/slim/otlp/common/v1"
	logs "go.opentelemetry.io/proto/slim/otlp/logs/v1"
	metrics "go.opentelemetry.io/proto/slim/otlp/metrics/v1"
	resource "go.opentelemetry.io/proto/slim/otlp/resource/v1"

	"github.com/lifeline-go/lifeline/agent/state"
	"github.com/lifeline-go/lifeline/agent/verdict"
)

// scope is who measures.
var scope = &common.InstrumentationScope{Name: "github.com/lifeline-go/lifeline/agent"}

// resourceOf is whom all is about, by the names of OpenTelemetry's conventions.
func resourceOf(s *state.State) *resource.Resource {
	return &resource.Resource{Attributes: []*common.KeyValue{
		word("service.name", "lifeline"), word("service.version", s.Agent.Version), word("service.instance.id", s.Run), word("host.name", s.Host),
	}}
}

func word(key, value string) *common.KeyValue {
	return &common.KeyValue{Key: key, Value: &common.AnyValue{Value: &common.AnyValue_StringValue{StringValue: value}}}
}

func number(key string, value int) *common.KeyValue {
	return &common.KeyValue{Key: key, Value: &common.AnyValue{Value: &common.AnyValue_IntValue{IntValue: int64(value)}}}
}

// severities are those of OpenTelemetry's log records.
var severities = map[verdict.Severity]logs.SeverityNumber{
	verdict.Info: logs.SeverityNumber_SEVERITY_NUMBER_INFO, verdict.Warn: logs.SeverityNumber_SEVERITY_NUMBER_WARN, verdict.Fail: logs.SeverityNumber_SEVERITY_NUMBER_ERROR,
}

// record tells of a finding that begins, or is over, which is no more than a note.
func record(f *state.Finding, seen time.Time) *logs.LogRecord {
	r := &logs.LogRecord{
		TimeUnixNano: nanos(f.First), ObservedTimeUnixNano: nanos(seen), EventName: "lifeline.finding.begins",
		SeverityNumber: severities[f.Severity], SeverityText: f.Severity.String(),
		Body: word("", f.Title).Value,
		Attributes: []*common.KeyValue{
			word("lifeline.finding.id", f.ID), word("lifeline.finding.code", f.Code), word("lifeline.finding.promise", f.Promise.String()),
			word("lifeline.finding.why", f.Why), number("lifeline.finding.count", f.Count), number("lifeline.finding.times", f.Times),
			{Key: "lifeline.finding.subject", Value: values(f.Subject)}, {Key: "lifeline.finding.evidence", Value: values(f.Evidence)},
			{Key: "lifeline.finding.fix", Value: anyValue(f.Fix)},
		},
	}
	if f.Resolved != nil {
		r.EventName, r.TimeUnixNano = "lifeline.finding.ends", nanos(*f.Resolved)
		r.SeverityNumber, r.SeverityText = severities[verdict.Info], verdict.Info.String()
	}
	return r
}

// values are facts with their keys.
func values(list verdict.Values) *common.AnyValue {
	kv := &common.KeyValueList{}
	for _, v := range list {
		kv.Values = append(kv.Values, &common.KeyValue{Key: v.Key, Value: anyValue(v.V)})
	}
	return &common.AnyValue{Value: &common.AnyValue_KvlistValue{KvlistValue: kv}}
}

// anyValue is a value of a finding. Unknown is an empty value, as the protocol has it.
func anyValue(v any) *common.AnyValue {
	switch v := v.(type) {
	case nil:
		return &common.AnyValue{}
	case string:
		return word("", v).Value
	case int:
		return number("", v).Value
	case int32:
		return number("", int(v)).Value
	case int64:
		return number("", int(v)).Value
	case uint32:
		return number("", int(v)).Value
	case bool:
		return &common.AnyValue{Value: &common.AnyValue_BoolValue{BoolValue: v}}
	case float64:
		return &common.AnyValue{Value: &common.AnyValue_DoubleValue{DoubleValue: v}}
	case []string:
		a := &common.ArrayValue{}
		for _, one := range v {
			a.Values = append(a.Values, word("", one).Value)
		}
		return &common.AnyValue{Value: &common.AnyValue_ArrayValue{ArrayValue: a}}
	}
	text, err := json.Marshal(v)
	if err != nil {
		return word("", fmt.Sprint(v)).Value
	}
	return word("", string(text)).Value
}

// metricsOf are metrics of Prometheus as those of OpenTelemetry, by the
// specification of their compatibility: a counter is a sum since the process
// began. Histograms the agent has none.
func metricsOf(families []*dto.MetricFamily, now time.Time) (all []*metrics.Metric) {
	began := nanos(now)
	for _, f := range families {
		if f.GetName() == "process_start_time_seconds" && len(f.GetMetric()) == 1 {
			began = uint64(f.GetMetric()[0].GetGauge().GetValue() * float64(time.Second))
		}
	}
	for _, f := range families {
		m := &metrics.Metric{Name: f.GetName(), Description: f.GetHelp()}
		var points []*metrics.NumberDataPoint
		var summaries []*metrics.SummaryDataPoint
		for _, one := range f.GetMetric() {
			var labels []*common.KeyValue
			for _, l := range one.GetLabel() {
				labels = append(labels, word(l.GetName(), l.GetValue()))
			}
			point := func(value float64) {
				points = append(points, &metrics.NumberDataPoint{Attributes: labels, TimeUnixNano: nanos(now), Value: &metrics.NumberDataPoint_AsDouble{AsDouble: value}})
			}
			switch f.GetType() {
			case dto.MetricType_COUNTER:
				point(one.GetCounter().GetValue())
				points[len(points)-1].StartTimeUnixNano = began
			case dto.MetricType_GAUGE:
				point(one.GetGauge().GetValue())
			case dto.MetricType_UNTYPED:
				point(one.GetUntyped().GetValue())
			case dto.MetricType_SUMMARY:
				summaries = append(summaries, summary(one.GetSummary(), labels, began, nanos(now)))
			}
		}
		switch {
		case summaries != nil:
			m.Data = &metrics.Metric_Summary{Summary: &metrics.Summary{DataPoints: summaries}}
		case points == nil:
			continue
		case f.GetType() == dto.MetricType_COUNTER:
			m.Data = &metrics.Metric_Sum{Sum: &metrics.Sum{DataPoints: points, IsMonotonic: true,
				AggregationTemporality: metrics.AggregationTemporality_AGGREGATION_TEMPORALITY_CUMULATIVE}}
		default:
			m.Data = &metrics.Metric_Gauge{Gauge: &metrics.Gauge{DataPoints: points}}
		}
		all = append(all, m)
	}
	return all
}

func summary(s *dto.Summary, labels []*common.KeyValue, began, now uint64) *metrics.SummaryDataPoint {
	p := &metrics.SummaryDataPoint{Attributes: labels, StartTimeUnixNano: began, TimeUnixNano: now, Count: s.GetSampleCount(), Sum: s.GetSampleSum()}
	for _, q := range s.GetQuantile() {
		p.QuantileValues = append(p.QuantileValues, &metrics.SummaryDataPoint_ValueAtQuantile{Quantile: q.GetQuantile(), Value: q.GetValue()})
	}
	return p
}

// nanos is a time as the protocol has it; 0 is unknown.
func nanos(t time.Time) uint64 {
	if t.IsZero() || t.UnixNano() < 0 {
		return 0
	}
	return uint64(t.UnixNano())
}
