package names

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/lifeline-go/lifeline/internal/dnsclient"
)

// What an answer may say beside addresses.
var (
	errNoName    = errors.New("no such host")
	errNoData    = errors.New("no address of this kind") // the name exists
	errMalformed = errors.New("a malformed answer")
)

// refusal is an answer that says that the server cannot help.
type refusal struct {
	code dnsmessage.RCode
	lame bool
}

func (r *refusal) Error() string {
	if r.lame {
		return "answers that it does not know and does not ask others (lame)"
	}
	return "answers " + dnsclient.CodeName(r.code)
}

// owned is what an answer has of one name: addresses, or the name that it is an
// alias of.
type owned struct {
	addrs []netip.Addr
	alias string
	ttl   time.Duration
}

// parseAddrs takes the addresses of name, which has a dot at its end, out of an
// answer: those of the name itself and of where its CNAME records lead. Records
// of other names are none of its business. A no is errNoName or errNoData; after
// every other error somebody else should be asked.
func parseAddrs(message []byte, name string, kind dnsmessage.Type) (found, error) {
	var parser dnsmessage.Parser
	header, err := parser.Start(message)
	if err != nil {
		return found{}, errMalformed
	}
	switch {
	case header.RCode == dnsmessage.RCodeNameError:
		return found{}, errNoName
	case header.RCode != dnsmessage.RCodeSuccess:
		return found{}, &refusal{code: header.RCode}
	case header.Truncated:
		return found{}, errors.New("the answer is truncated over TCP too")
	}
	if err := parser.SkipAllQuestions(); err != nil {
		return found{}, errMalformed
	}
	records, err := parseRecords(&parser, kind)
	if err != nil {
		return found{}, fmt.Errorf("%w: %v", errMalformed, err)
	}
	if len(records) == 0 && !header.Authoritative && !header.RecursionAvailable {
		return found{}, &refusal{lame: true} // glibc and Go pass it over too
	}
	return follow(records, name)
}

// parseRecords reads the answer section, by the owners of its records.
func parseRecords(parser *dnsmessage.Parser, kind dnsmessage.Type) (map[string]*owned, error) {
	const mostRecords = 4096
	records := make(map[string]*owned, 2)
	for range mostRecords {
		header, err := parser.AnswerHeader()
		if errors.Is(err, dnsmessage.ErrSectionDone) {
			return records, nil
		}
		if err != nil {
			return nil, err
		}
		if header.Class != dnsmessage.ClassINET || header.Type != kind && header.Type != dnsmessage.TypeCNAME {
			if err := parser.SkipAnswer(); err != nil {
				return nil, err
			}
			continue
		}
		key, ttl := strings.ToLower(header.Name.String()), lifetime(header.TTL)
		o := records[key]
		if o == nil {
			o = &owned{ttl: ttl}
			records[key] = o
		}
		o.ttl = min(o.ttl, ttl)
		if header.Type == dnsmessage.TypeA && header.Length != 4 || header.Type == dnsmessage.TypeAAAA && header.Length != 16 {
			return nil, fmt.Errorf("an address of %d bytes", header.Length)
		}
		if err := o.read(parser, header.Type); err != nil {
			return nil, err
		}
	}
	return nil, errors.New("too many records")
}

// lifetime is a TTL; one with the highest bit set is zero, RFC 2181 section 8.
func lifetime(ttl uint32) time.Duration {
	if ttl > 1<<31-1 {
		return 0
	}
	return time.Duration(ttl) * time.Second
}

func (o *owned) read(parser *dnsmessage.Parser, kind dnsmessage.Type) error {
	switch kind {
	case dnsmessage.TypeA:
		r, err := parser.AResource()
		o.addrs = append(o.addrs, netip.AddrFrom4(r.A))
		return err
	case dnsmessage.TypeAAAA:
		r, err := parser.AAAAResource()
		o.addrs = append(o.addrs, netip.AddrFrom16(r.AAAA))
		return err
	default:
		r, err := parser.CNAMEResource()
		if o.alias == "" {
			o.alias = r.CNAME.String()
		}
		return err
	}
}

// follow goes from name along CNAME records to the addresses at their end.
func follow(records map[string]*owned, name string) (found, error) {
	const mostAliases = 16
	f := found{canonical: name, ttl: lifetime(1<<31 - 1)}
	for range mostAliases {
		o := records[strings.ToLower(f.canonical)]
		if o == nil {
			break
		}
		f.ttl = min(f.ttl, o.ttl)
		if len(o.addrs) > 0 {
			f.addrs = o.addrs
			return f, nil
		}
		f.canonical = o.alias
	}
	return found{}, errNoData
}
