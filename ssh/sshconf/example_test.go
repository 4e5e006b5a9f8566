package sshconf_test

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/lifeline-go/lifeline/ssh/sshconf"
)

// What OpenSSH would do, without doing it.
func ExampleConfig_Host() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "config")
	text := "Host web*\n HostName %h.example.com\n User admin\n ProxyJump bastion\n Frobnicate yes\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		panic(err)
	}
	config, err := sshconf.Load(sshconf.Options{
		File:    file,
		Set:     []string{"Port=2222"},
		Account: sshconf.Account{User: "me", Home: "/home/me"}, // or sshconf.Here(os.LookupEnv)
	})
	if err != nil {
		panic(err)
	}
	host, err := config.Host("web1")
	if err != nil {
		panic(err)
	}
	fmt.Println(host.User, "at", host.Address(), "by way of", host.Jumps[0].Address())
	for _, warning := range host.Warnings {
		fmt.Println("line", warning.At.Line, warning.Text)
	}
	_, err = config.Host("$(reboot)")
	fmt.Println(err)
	// Output:
	// admin at web1.example.com:2222 by way of bastion:22
	// line 5 unknown directive "frobnicate"
	// sshconf: the host name "$(reboot)" has the character '$', which a shell could act on
}
