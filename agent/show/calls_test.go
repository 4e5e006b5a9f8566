package show

import (
	"bytes"
	"net/netip"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/verdict"
)

// waiting is the story's manager, with a crowd that hangs like its first call,
// and other programs that wait.
func waiting() []verdict.Waiting {
	const lib = "golang.org/x/crypto@v0.58.0/ssh/"
	channel := []fact.Call{{Func: "golang.org/x/crypto/ssh.(*mux).openChannel", File: lib + "mux.go", Line: 360},
		{Func: "golang.org/x/crypto/ssh.(*mux).OpenChannel", File: lib + "mux.go", Line: 338},
		{Func: "golang.org/x/crypto/ssh.(*Client).NewSession", File: lib + "client.go", Line: 161},
		{Func: "main.reconcile", File: "/src/cke/manager.go", Line: 41}}
	http := []fact.Call{{Func: "net/http.(*persistConn).roundTrip", File: "net/http/transport.go", Line: 2911}}
	for line := range 6 {
		http = append(http, fact.Call{Func: "net/http.(*Client).do", File: "net/http/client.go", Line: 400 + line})
	}
	http = append(http, fact.Call{Func: "net/http.Get", File: "net/http/client.go", Line: 458}, fact.Call{Func: "main.poll"})
	var crowd []verdict.Waiter
	for i := range time.Duration(4000) {
		crowd = append(crowd, verdict.Waiter{For: "an SSH channel to be confirmed", Prompt: true, Asked: channel[3],
			Goroutine: &fact.Goroutine{ID: 2153 + uint64(i), State: "chan receive", Since: 242*time.Second - i*time.Millisecond, Stack: channel,
				Created: fact.Call{Func: "main.main", File: "/src/cke/main.go", Line: 23}}})
	}
	crowd = append(crowd, verdict.Waiter{For: "an HTTP answer", Goroutine: &fact.Goroutine{ID: 9, State: "select", Since: 2 * time.Second, Looked: true, Stack: http, Cut: true}})
	return []verdict.Waiting{
		{PID: 812, Process: "manager", Netns: 1, Peer: netip.MustParseAddrPort("10.0.0.7:22"), Count: 1, Since: 242 * time.Second, Acknowledged: fact.Seen(true),
			Sure: true, Sent: fact.Seen(uint64(5120)), Received: fact.Seen(uint64(9000)), Goroutines: crowd},
		{PID: 9, Process: "shop", Container: "0123456789abcdef", Netns: 2, Peer: netip.MustParseAddrPort("10.0.0.8:5432"), Count: 3, Since: 40 * time.Second,
			Acknowledged: fact.Seen(false), Sure: true, Queued: 1200, Sent: fact.Seen(uint64(1)), Received: fact.Seen(uint64(0))},
		{PID: 9, Process: "shop", Netns: 2, Peer: netip.MustParseAddrPort("10.0.0.9:80"), Count: 1, Since: 35 * time.Second, Acknowledged: fact.Seen(true)},
		{PID: 812, Process: "manager", Netns: 1, Peer: netip.MustParseAddrPort("[fd00::1]:514"), Count: 1, Since: 3 * time.Second, Acknowledged: fact.Seen(true), Full: true},
		{Peer: netip.MustParseAddrPort("10.0.0.9:81"), Netns: 1, Count: 1, Since: 2 * time.Second, Acknowledged: fact.Seen(true), Sure: true},
		{PID: 7, Since: 2 * time.Second, Sure: true, Goroutines: crowd[4000:]},
	}
}

func TestCallsText(t *testing.T) {
	var b bytes.Buffer
	Calls(&b, waiting(), Style{})
	b.WriteString("\n")
	Calls(&b, nil, Style{})
	golden(t, "calls.txt", b.Bytes())
}

func TestCallsJSON(t *testing.T) {
	var b bytes.Buffer
	all := waiting()
	all[0].Goroutines = all[0].Goroutines[3999:]
	if err := CallsJSON(&b, machine(), all); err != nil {
		t.Fatal(err)
	}
	if err := CallsJSON(&b, machine(), nil); err != nil {
		t.Fatal(err)
	}
	golden(t, "calls.json", b.Bytes())
}
