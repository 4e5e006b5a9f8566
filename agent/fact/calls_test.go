package fact

import "testing"

func TestPackage(t *testing.T) {
	for function, want := range map[string]string{
		"golang.org/x/crypto/ssh.(*mux).openChannel": "golang.org/x/crypto/ssh",
		"net.(*Dialer).DialContext":                  "net",
		"main.main.func1":                            "main",
		"gopkg.in/yaml%2ev3.Unmarshal":               "gopkg.in/yaml%2ev3",
		"go.uber.org/zap.New":                        "go.uber.org/zap",
		"":                                           "",
	} {
		if got := (Call{Func: function}).Package(); got != want {
			t.Errorf("%s: %q, want %q", function, got, want)
		}
	}
}
