package verdict

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestUnanswered(t *testing.T) {
	for _, c := range []struct{ name, facts, want string }{
		{"a request that was acknowledged", "socket 1x tcp estab 10.0.0.1:30000 10.0.0.7:443 pid=7 ack=4m sent=4m recv=5m out=40 in=60",
			"7 10.0.0.7:443 x1 4m0s acknowledged sure"},
		{"the first request", "socket 3x tcp estab 10.0.0.1:30000+ 10.0.0.7:443 pid=7 ack=40s sent=40s recv=41s out=1 in=0",
			"7 10.0.0.7:443 x3 40s acknowledged"},
		{"a path that is dead: 0.2 s, 0.4 s … 6.4 s, and 2 s of the next", "socket 1x tcp estab 10.0.0.1:30000 10.0.0.7:443 pid=7 ack=60s sent=2s recv=60s rto=200ms unacked=1 retrans=6 timer=resend:10.8s out=40 in=60",
			"7 10.0.0.7:443 x1 14.6s not acknowledged sure"},
		{"a path that is gone: the kernel does not even send", "socket 1x tcp estab 10.0.0.1:30000 10.0.0.7:443 pid=7 ack=60s sent=20s recv=60s rto=200ms unacked=1 retrans=6 timer=resend:8s out=40 in=60",
			"7 10.0.0.7:443 x1 20s not acknowledged sure"},
		{"one that does not read", "socket 1x tcp estab 10.0.0.1:30000 10.0.0.7:443 pid=7 ack=1s sent=60s recv=2h notsent=4000 window=0 probes=1 out=9000 in=2",
			"7 10.0.0.7:443 x1 1m0s acknowledged full"},
		{"a goroutine makes it sure", "socket 1x tcp estab 10.0.0.1:30000 10.0.0.7:80 pid=7 ack=40s sent=40s recv=41s out=1 in=0\n" +
			"goroutine 5 pid=7 state=select since=30s stack=net/http.(*persistConn).roundTrip<main.main",
			"7 10.0.0.7:80 x1 40s acknowledged sure goroutines=1"},
		{"goroutines of several addresses", "socket 2x tcp estab 10.0.0.1:30000+ 10.0.0.7+:80 pid=7 ack=40s sent=40s recv=60s out=10 in=10\n" +
			"goroutine 2x 5 pid=7 state=select since=30s stack=net/http.(*persistConn).roundTrip<main.main",
			"7 10.0.0.7:80 x1 40s acknowledged sure; 7 10.0.0.8:80 x1 40s acknowledged sure; 7 invalid AddrPort x0 30s sure goroutines=2"},
		{"idle keepalive, answered", "socket 9x tcp estab 10.0.0.1:30000+ 10.0.0.7:443 pid=7 ack=60s sent=61s recv=60s out=40 in=60", ""},
		{"an echo of what came", "socket 1x tcp estab 10.0.0.1:30000 10.0.0.7:443 pid=7 ack=60s sent=60s recv=60.5s out=40 in=60", ""},
		{"too short", "socket 1x tcp estab 10.0.0.1:30000 10.0.0.7:443 pid=7 ack=1s sent=1s recv=60s out=40 in=60", ""},
		{"a single loss", "socket 1x tcp estab 10.0.0.1:30000 10.0.0.7:443 pid=7 ack=1s sent=100ms recv=60s rto=200ms unacked=1 retrans=1 out=40 in=60", ""},
		{"not read yet here", "socket 1x tcp estab 10.0.0.1:30000 10.0.0.7:443 pid=7 ack=60s sent=60s recv=90s rq=10 out=40 in=60", ""},
		{"the server's side", "listen 10.0.0.1:80 pid=7\nsocket 1x tcp estab 10.0.0.1:80 10.0.0.7:4430 pid=7 ack=60s sent=60s recv=90s out=40 in=60", ""},
	} {
		m, _, err := parse("process 7 client\n" + c.facts)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, w := range Unanswered(m, 2*time.Second) {
			text := fmt.Sprintf("%d %s x%d %v", w.PID, w.Peer, w.Count, w.Since)
			if acknowledged, ok := w.Acknowledged.Get(); ok && acknowledged {
				text += " acknowledged"
			} else if ok {
				text += " not acknowledged"
			}
			for _, word := range []struct {
				is   bool
				name string
			}{{w.Full, " full"}, {w.Sure, " sure"}, {len(w.Goroutines) > 0, fmt.Sprintf(" goroutines=%d", len(w.Goroutines))}} {
				if word.is {
					text += word.name
				}
			}
			got = append(got, text)
		}
		if all := strings.Join(got, "; "); all != c.want {
			t.Errorf("%s:\n got %s\nwant %s", c.name, all, c.want)
		}
	}
}
