package state

import "time"

// End is one side of a link: processes of one program, in one unit or
// container, on this machine; or a peer.
type End struct {
	Name      string `json:"name"`           // program, or address, or network, or what was folded: "1,204 others"
	PID       int32  `json:"pid,omitempty"`  // when it is one process
	Processes int    `json:"processes"`      // how many it stands for; 0 for an address
	Unit      string `json:"unit,omitempty"` // systemd unit
	Container string `json:"container,omitempty"`
	Folded    int    `json:"folded"` // how many ends it stands for; 0 = itself
}

// Link is the connections between processes and a peer.
type Link struct {
	From     End      `json:"from"` // on this machine
	To       End      `json:"to"`   // peer, or program on this machine
	Port     string   `json:"port"` // of the service: ":8080" where it is served here, ">443" where it is called, the path of a unix socket; "" for several, or none
	Netns    uint32   `json:"netns"`
	Protocol string   `json:"protocol"` // tcp, udp, unix …; "" for several
	Count    int      `json:"count"`
	Verdict  string   `json:"verdict"`            // alive, silent, unsure; worst of what is folded
	Idle     *float64 `json:"bound_idle_seconds"` // the longest; nil with Never false = unknown
	Sending  *float64 `json:"bound_sending_seconds"`
	Never    bool     `json:"bound_never"` // some of it would never be noticed while idle
	Unacked  int      `json:"unacked"`     // connections with bytes not acknowledged
	Here     bool     `json:"here"`        // both ends are on this machine
}

// Peer is another machine.
type Peer struct {
	Peer      string     `json:"peer"`
	Netns     uint32     `json:"netns"`
	Count     int        `json:"count"`
	Verdict   string     `json:"verdict"` // alive, silent, unsure
	Since     *time.Time `json:"since"`   // of the verdict silent
	QuietMS   *int64     `json:"quiet_ms"`
	Processes []Holder   `json:"processes"` // most connections first, at most 8
	Idle      *float64   `json:"bound_idle_seconds"`
	Sending   *float64   `json:"bound_sending_seconds"`
	Never     bool       `json:"bound_never"`
	Unknown   int        `json:"bound_unknown"`
}

// Holder is a process and how many connections it has.
type Holder struct {
	PID   int32  `json:"pid"` // 0 = none, or not seen
	Name  string `json:"process"`
	Count int    `json:"count"`
}

// Query chooses connections. The zero Query takes the first hundred.
type Query struct {
	Peer    string // address or network; "" = all
	Process string // name; "" = all
	PID     int32
	State   string
	Netns   uint32 // network namespace; 0 = all
	Sort    string // bound, idle, queue, peer, process; "" = bound, longest first. Not age: the kernel does not say when a connection began
	Reverse bool   // the other way round
	After   int    // how many to leave out
	Most    int    // 0 = 100; at most 1,000
}

// Connections is what a Query found in the last census.
type Connections struct {
	Time  time.Time    `json:"time"`
	Total int          `json:"total"` // that fit, however many are listed
	List  []Connection `json:"connections"`
}

// Connection is one socket with what is to be said of it.
type Connection struct {
	Cookie   uint64   `json:"cookie,string"`
	Protocol string   `json:"protocol"`
	State    string   `json:"state"`
	Local    string   `json:"local"`
	Remote   string   `json:"remote"`
	Netns    uint32   `json:"netns"`
	Process  Holder   `json:"process"` // first owner; Count is how many descriptors refer to it
	HeardMS  *int64   `json:"heard_ms"`
	RTTMS    *float64 `json:"rtt_ms"`
	Send     uint32   `json:"send_queue_bytes"`
	Receive  uint32   `json:"receive_queue_bytes"`
	Resent   uint32   `json:"resent_segments"`
	Idle     *float64 `json:"bound_idle_seconds"`
	Sending  *float64 `json:"bound_sending_seconds"`
	Never    bool     `json:"bound_never"`
	ByIdle   string   `json:"bound_idle_by"` // keepalive, user timeout, none …
}

// Loss is what the death of a peer would do: [verdict.Loss] in JSON.
type Loss struct {
	Peer      string  `json:"peer"`
	Netns     uint32  `json:"netns"` // whose connections alone are meant; 0 = all
	Count     int     `json:"count"`
	Addresses int     `json:"addresses"`
	Processes []Stake `json:"processes"`
	Idle      Notice  `json:"idle"`
	Sending   Notice  `json:"sending"`
	Unknown   int     `json:"bound_unknown"`
	Transit   *int    `json:"transit"` // flows that this machine forwards; nil where they were not read
}

// Stake is what one process would lose.
type Stake struct {
	Holder
	Idle    Notice `json:"idle"`
	Sending Notice `json:"sending"`
}

// Notice is when programs learn of it.
type Notice struct {
	First *float64 `json:"first_seconds"`
	Last  *float64 `json:"last_seconds"`
	Never int      `json:"never"`
}
