package fact

import (
	"testing"
	"time"
)

func TestBaseRTO(t *testing.T) {
	const base = 204 * time.Millisecond
	for _, test := range []struct {
		name string
		life Life
		want time.Duration
	}{
		{"at rest", Life{RTO: base}, base},
		{"retransmitting", Life{RTO: base << 3, Retransmits: 3, Backoff: 3, Unacked: 1}, base},
		{"a closed window refuses what is in flight", Life{RTO: base << 7, Backoff: 7, Unacked: 1}, base},
		{"window probes", Life{RTO: base, Backoff: 7, NotSent: 100}, base},
	} {
		if got := test.life.BaseRTO(); got != test.want {
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
	}
}
