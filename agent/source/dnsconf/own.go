package dnsconf

import (
	"fmt"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/source/procfs/bounded"
)

// hangs are reads that did not return.
var hangs bounded.Calls

// ReadOwn reads the configuration of this machine, with the routes of the network
// namespace of the process, as [Read] does, and does not wait longer than 1 s for
// a file system whose server is gone. The error is [bounded.ErrHung] then.
func ReadOwn() (fact.Names, []fact.Blind, error) {
	type read struct {
		names fact.Names
		blind []fact.Blind
	}
	r, err := bounded.Do(&hangs, "", func() (r read, err error) {
		r.names, r.blind = Read("")
		return r, nil
	})
	if err != nil {
		return fact.Names{}, nil, fmt.Errorf("the configuration of resolvers: %w", err)
	}
	return r.names, r.blind, nil
}
