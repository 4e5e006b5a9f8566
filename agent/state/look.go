package state

import "time"

// Site is a line of code that opened what is open: [verdict.LeakSite] in JSON.
type Site struct {
	ID        string    `json:"id"` // the same for as long as the process lives
	PID       int32     `json:"pid"`
	Process   string    `json:"process"`
	Container string    `json:"container,omitempty"`
	AskedBy   Call      `json:"asked_by"` // the program's own code; empty when it is not known
	OpenedAt  Call      `json:"opened_at"`
	Stack     []Call    `json:"stack"`
	Unknown   string    `json:"stack_unknown"` // why the stack is not all
	Peer      string    `json:"peer"`
	Accepted  bool      `json:"accepted"`
	Opened    int       `json:"opened"`
	Open      int       `json:"open"`
	Idle      *float64  `json:"idle_seconds"`
	Left      *float64  `json:"file_limit_in_seconds"`
	Verdict   string    `json:"verdict"` // leak, suspect, healthy
	Diagnosis string    `json:"diagnosis"`
	First     time.Time `json:"first_seen"`
	Over      []int     `json:"open_over_time"` // how many were open each minute of the last hour, oldest first
}

// Call is a line of source.
type Call struct {
	Function string `json:"function"`
	File     string `json:"file"`
	Line     int    `json:"line"`
}

// Waiting is a request that has no answer yet: [verdict.Waiting] in JSON.
type Waiting struct {
	PID          int32    `json:"pid"`
	Process      string   `json:"process"`
	Peer         string   `json:"peer"`
	Count        int      `json:"count"`
	Since        float64  `json:"since_seconds"`
	Acknowledged bool     `json:"acknowledged"` // the peer's kernel has it
	Goroutines   []string `json:"goroutines"`   // where Go programs wait, in words; those looked at
}

// Names is what the doctor saw last: the configuration of resolvers, each
// nameserver, and the names that the policy watches, in every way.
type Names struct {
	Time     time.Time    `json:"time"`
	Config   []Setting    `json:"config"` // resolv.conf, nsswitch.conf …: what each says, in a line
	Servers  []Nameserver `json:"servers"`
	Names    []Name       `json:"names"`    // watched ones
	Programs []Resolver   `json:"programs"` // on this machine, running or not, by how they resolve; empty before they were looked at
}

// Setting is one source of configuration.
type Setting struct {
	Source string `json:"source"`
	Text   string `json:"text"`
}

// Nameserver is a server of resolv.conf.
type Nameserver struct {
	Address string   `json:"address"`
	Way     string   `json:"way"` // interface and gateway, or why there is no route
	OK      *bool    `json:"ok"`  // nil when it was not asked
	MS      *float64 `json:"ms"`
	Error   string   `json:"error"`
}

// Name is a name that was asked for in every way.
type Name struct {
	Name string `json:"name"`
	Ways []Way  `json:"ways"`
}

// Way is one way to ask. Where it asks for one family of addresses alone its name
// ends with that: getaddrinfo, getaddrinfo A, nameserver 10.0.0.53 udp AAAA.
type Way struct {
	Way       string   `json:"way"`
	Family    string   `json:"family"` // both, A, AAAA
	OK        bool     `json:"ok"`
	Answer    string   `json:"answer"` // addresses, no such name, no address, refused, failed, silent
	Addresses []string `json:"addresses"`
	MS        float64  `json:"ms"`
	Error     string   `json:"error"`
}

// Resolver is how many programs resolve names in one way.
type Resolver struct {
	Resolver string   `json:"resolver"` // go, system, either, own, none, unknown
	Count    int      `json:"count"`
	Fails    *int     `json:"fail_here"` // cannot resolve names on this machine now; nil where it is not known of any
	Examples []string `json:"examples"`  // at most 5, those that fail first
}
