package export

import (
	"maps"
	"strings"
	"time"

	"github.com/lifeline-go/lifeline/agent/state"
	"github.com/lifeline-go/lifeline/agent/verdict"
)

// alert is one alert as POST /api/v2/alerts of Alertmanager takes it
// (api/v2/openapi.yaml, postableAlert).
type alert struct {
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
	StartsAt    time.Time         `json:"startsAt"`
	EndsAt      time.Time         `json:"endsAt"`
	Generator   string            `json:"generatorURL,omitempty"`
}

// same says whether there is nothing to tell of b beyond a: what it is, not
// until when it holds. Titles carry numbers that change with each look; these
// alone are worth telling with the next resend.
func (a alert) same(b alert) bool {
	return maps.Equal(a.Labels, b.Labels) && a.StartsAt.Equal(b.StartsAt)
}

// severities are the words for them in most Alertmanager configurations. Info
// is not told: nothing is wrong.
var severities = map[verdict.Severity]string{verdict.Warn: "warning", verdict.Fail: "critical"}

// alertsOf makes alerts of the open findings that no other explains, by
// identity: a finding that becomes worse is another alert, since its labels are
// what an alert is known by. Left is how many there were too many.
func alertsOf(s *state.State, page string, end time.Time) (open map[string]alert, left int) {
	open = make(map[string]alert)
	for i := range s.Findings {
		f := &s.Findings[i]
		severity := severities[f.Severity]
		if f.Resolved != nil || f.Cause != "" || severity == "" {
			continue
		}
		if len(open) == mostAlerts {
			left++
			continue
		}
		a := alert{
			Labels: map[string]string{
				"alertname": "Lifeline" + f.Code,
				"code":      f.Code,
				"finding":   f.ID,
				"instance":  s.Host,
				"promise":   f.Promise.String(),
				"severity":  severity,
			},
			Annotations: map[string]string{"summary": f.Title, "description": f.Why},
			StartsAt:    f.First,
			EndsAt:      end,
			Generator:   page,
		}
		if len(f.Fix) > 0 {
			a.Annotations["fix"] = strings.Join(f.Fix, "\n")
		}
		if a.StartsAt.IsZero() || a.StartsAt.After(s.Time) {
			a.StartsAt = s.Time
		}
		open[f.ID+" "+severity] = a
	}
	return open, left
}
