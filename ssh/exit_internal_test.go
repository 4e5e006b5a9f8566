package ssh

import (
	"testing"

	xssh "golang.org/x/crypto/ssh"
)

// What a server says of the end of a command is any bytes.
func FuzzParseExit(f *testing.F) {
	f.Add("exit-status", xssh.Marshal(struct{ S uint32 }{3}))
	f.Add("exit-signal", xssh.Marshal(struct {
		N    string
		C    bool
		M, L string
	}{"TERM", true, "m", "en"}))
	f.Add("exit-status", []byte{0})
	f.Fuzz(func(t *testing.T, kind string, payload []byte) {
		exit, ok := parseExit(kind, payload)
		if !ok && exit.OK() && exit != (Exit{}) {
			t.Errorf("%q: %+v of no meaning", payload, exit)
		}
		if ok && kind == "exit-signal" && exit.OK() {
			t.Errorf("%q: a signal is no success", payload)
		}
	})
}
