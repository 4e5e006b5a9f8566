package sockdiag

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/internal/need"
)

// TestAgreesWithSS makes sockets of every kind in a namespace of its own and
// compares them with what ss says, one by one and in both directions.
func TestAgreesWithSS(t *testing.T) {
	need.Program(t, "ss")
	quiet(t, func(inode uint32) error {
		var fds closer
		defer fds.close()
		if err := fds.zoo(t.TempDir()); err != nil {
			return err
		}
		// Between the two looks a timer may fire, so there are some tries.
		var differences []string
		for range 5 {
			sockets, err := Read(nil, inode, Want{})
			if err != nil {
				return err
			}
			want, err := fromSS()
			if err != nil {
				return err
			}
			got := make(map[string]row)
			for i := range sockets {
				s := &sockets[i]
				if s.Netns != inode {
					t.Errorf("Netns %d, want %d", s.Netns, inode)
				}
				id, r := fromFact(s)
				if _, twice := got[id]; twice {
					t.Errorf("socket %s came twice", id)
				}
				got[id] = r
			}
			if err := complete(want); err != nil {
				return err
			}
			if differences = compare(got, want); len(differences) == 0 {
				t.Logf("%d sockets agree", len(got))
				return nil
			}
			time.Sleep(50 * time.Millisecond)
		}
		return fmt.Errorf("ss says otherwise:\n%s", strings.Join(differences, "\n"))
	})
}

// row is what both sides tell of a socket, in the words of ss.
type row struct {
	kind, state   string
	local, remote string // of a unix socket: path and inode of the peer
	recv, send    uint32
	inode         uint32
	uid           string
	mark          string
	cgroup        bool
	timer         string
	left          time.Duration
	info          string // some of TCP_INFO
}

// compare returns a line for every socket that is not the same in both.
func compare(got, want map[string]row) (differences []string) {
	const tolerance = 5 * time.Second
	for id, w := range want {
		g, ok := got[id]
		if !ok {
			differences = append(differences, fmt.Sprintf("missing  %s %+v", id, w))
			continue
		}
		if apart := (g.left - w.left).Abs(); apart <= tolerance {
			g.left = w.left
		}
		if g != w {
			differences = append(differences, fmt.Sprintf("got      %s %+v\nss says  %s %+v", id, g, id, w))
		}
	}
	for id, g := range got {
		if _, ok := want[id]; !ok {
			differences = append(differences, fmt.Sprintf("too much %s %+v", id, g))
		}
	}
	slices.Sort(differences)
	return differences
}

// complete checks that the zoo has the animals that the test is about.
func complete(rows map[string]row) error {
	missing := map[string]bool{
		"tcp LISTEN": true, "tcp ESTAB": true, "tcp SYN-SENT": true, "tcp SYN-RECV": true, "tcp FIN-WAIT-1": true,
		"tcp FIN-WAIT-2": true, "tcp CLOSE-WAIT": true, "tcp TIME-WAIT": true, "udp ESTAB": true, "udp UNCONN": true,
		"u_str ESTAB": true, "u_str LISTEN": true, "u_dgr ESTAB": true, "u_dgr UNCONN": true, "u_seq ESTAB": true,
	}
	for _, r := range rows {
		delete(missing, r.kind+" "+r.state)
	}
	if len(missing) > 0 {
		return fmt.Errorf("the test made no %s", strings.Join(slices.Collect(maps.Keys(missing)), ", "))
	}
	return nil
}

var stateNames = map[fact.State]string{
	fact.Established: "ESTAB", fact.SynSent: "SYN-SENT", fact.SynRecv: "SYN-RECV", fact.FinWait1: "FIN-WAIT-1",
	fact.FinWait2: "FIN-WAIT-2", fact.TimeWait: "TIME-WAIT", fact.Close: "UNCONN", fact.CloseWait: "CLOSE-WAIT",
	fact.LastAck: "LAST-ACK", fact.Listen: "LISTEN", fact.Closing: "CLOSING",
}

var protocolNames = map[fact.Protocol]string{
	fact.TCP: "tcp", fact.UDP: "udp", fact.UnixStream: "u_str", fact.UnixDatagram: "u_dgr", fact.UnixSeqpacket: "u_seq",
}

var timerNames = []string{"", "on", "keepalive", "timewait", "persist"}

// fromFact tells a socket in the words of ss, and what to know it by.
func fromFact(s *fact.Socket) (id string, r row) {
	r = row{
		kind: protocolNames[s.Protocol], state: stateNames[s.State],
		recv: s.RecvQueue, send: s.SendQueue, inode: s.Inode,
	}
	if s.Family == fact.Unix {
		r.local, r.remote = s.Path, strconv.Itoa(int(s.PeerInode))
		return fmt.Sprint(r.kind, " ", s.Inode), r
	}
	r.local, r.remote = address(s, s.Local), address(s, s.Remote)
	if s.Interface != 0 {
		r.local = fmt.Sprint(r.local, "%", s.Interface)
	}
	if s.UID != 0 {
		r.uid = strconv.Itoa(int(s.UID))
	}
	if mark, _ := s.Mark.Get(); mark != 0 {
		r.mark = fmt.Sprintf("0x%x", mark)
	}
	r.cgroup = s.Cgroup != 0
	r.timer, r.left = timerNames[s.Timer], s.TimerLeft
	if c := s.Conn; c != nil {
		r.info = fmt.Sprint("rto:", c.RTO.Seconds()*1e3, " unacked:", c.Unacked, " notsent:", c.NotSent,
			" bytes_acked:", c.Acked.Value, " bytes_received:", c.Received.Value, " data_segs_out:", c.SegmentsOut.Value,
			" data_segs_in:", c.SegmentsIn.Value, " snd_wnd:", c.SendWindow.Value, " backoff:", c.Backoff)
	}
	return fmt.Sprintf("%s sk:%x", r.kind, s.Cookie), r
}

// address undoes the folding, to tell that it was folded rightly.
func address(s *fact.Socket, a netip.AddrPort) string {
	if s.Mapped && a.Addr().IsUnspecified() {
		return netip.AddrPortFrom(netip.IPv6Unspecified(), a.Port()).String()
	}
	if s.Mapped {
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr().As16()), a.Port()).String()
	}
	return a.String()
}

// fromSS runs ss in the namespace of the calling thread.
func fromSS() (map[string]row, error) {
	rows := make(map[string]row)
	for _, kind := range []string{"tcp", "udp"} {
		out, err := output("ss", "-H", "-O", "-n", "-a", "-e", "-i", "-o", "--"+kind)
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(out) {
			id, r, err := inetRow(kind, line)
			if err != nil {
				return nil, fmt.Errorf("%w in %q", err, line)
			}
			rows[id] = r
		}
	}
	out, err := output("ss", "-H", "-O", "-n", "-a", "--unix")
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(out) {
		f := strings.Fields(line)
		if len(f) < 8 {
			return nil, fmt.Errorf("few fields in %q", line)
		}
		r := row{kind: f[0], state: f[1], recv: number(f[2]), send: number(f[3]), inode: number(f[5]), remote: f[7]}
		if f[4] != "*" {
			r.local = f[4]
		}
		rows[r.kind+" "+f[5]] = r
	}
	return rows, nil
}

// inetRow reads a line of ss: state, queues, addresses, and words of the form
// key:value.
func inetRow(kind, line string) (id string, r row, err error) {
	f := strings.Fields(line)
	if len(f) < 5 {
		return "", row{}, fmt.Errorf("few fields")
	}
	r = row{kind: kind, state: f[0], recv: number(f[1]), send: number(f[2])}
	if r.local, err = addressOfSS(f[3]); err != nil {
		return "", row{}, err
	}
	if r.remote, err = addressOfSS(f[4]); err != nil {
		return "", row{}, err
	}
	words := make(map[string]string)
	for _, word := range f[5:] {
		key, value, _ := strings.Cut(word, ":")
		words[key] = value
	}
	r.inode, r.uid, r.mark = number(words["ino"]), words["uid"], words["fwmark"]
	_, r.cgroup = words["cgroup"]
	if timer := strings.Split(strings.Trim(words["timer"], "()"), ","); len(timer) > 1 {
		r.timer = timer[0]
		if r.left, err = timeOfSS(timer[1]); err != nil {
			return "", row{}, err
		}
	}
	if _, ok := words["rto"]; ok {
		for _, key := range []string{"rto", "unacked", "notsent", "bytes_acked", "bytes_received", "data_segs_out", "data_segs_in", "snd_wnd", "backoff"} {
			value := words[key]
			if value == "" {
				value = "0"
			}
			r.info += " " + key + ":" + value
		}
		r.info = r.info[1:]
	}
	return kind + " sk:" + words["sk"], r, nil
}

// addressOfSS reads address and port as ss writes them: *:53, [::1]:53,
// [fe80::1]%lo:53. The only interface is lo, with index 1.
func addressOfSS(text string) (string, error) {
	i := strings.LastIndexByte(text, ':')
	host, port := text[:i], strings.Replace(text[i+1:], "*", "0", 1)
	host, onInterface := strings.CutSuffix(host, "%lo")
	host = strings.Trim(host, "[]")
	if host == "*" {
		host = "::"
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return "", err
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return "", err
	}
	full := netip.AddrPortFrom(addr, uint16(n)).String()
	if onInterface {
		full += "%1"
	}
	return full, nil
}

// timeOfSS reads 1min59sec, 14sec, 1.204ms (which ss means as 1.204 s), 712ms,
// and nothing for zero.
func timeOfSS(text string) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	if strings.HasSuffix(text, "ms") && strings.Contains(text, ".") {
		text = strings.TrimSuffix(text, "ms") + "s"
	}
	return time.ParseDuration(strings.NewReplacer("min", "m", "sec", "s").Replace(text))
}

func number(text string) uint32 {
	n, _ := strconv.ParseUint(text, 10, 32)
	return uint32(n)
}
