package names_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"

	"github.com/lifeline-go/lifeline/names"
)

// All that asks net.DefaultResolver, net/http among them.
func ExampleInstall() {
	undo := names.Install()
	defer undo()
	_, _ = http.Get("http://localhost:1")
}

// One lookup, and where its answer comes from.
func ExampleResolver_Lookup() {
	answer, err := names.Default.Lookup(context.Background(), "ip4", "127.0.0.1")
	var name *net.DNSError
	switch {
	case errors.As(err, &name) && name.IsNotFound:
		fmt.Println("there is no such name")
	case err != nil:
		fmt.Println("could not find out:", err)
	default:
		fmt.Println(answer.Addrs, "by", answer.Way, "because", answer.Why)
	}
	// Output: [127.0.0.1] by address because the name is an address
}

// What the ways and servers did so far.
func ExampleResolver_Ways() {
	for _, way := range names.Default.Ways() {
		if way.Dead {
			fmt.Printf("%s has not answered since %s: %v\n", way.Way, way.Failed, way.Err)
		}
	}
}
