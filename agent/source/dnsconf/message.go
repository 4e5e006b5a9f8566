//go:build linux

package dnsconf

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/net/dns/dnsmessage"
)

// question returns the message that asks for the name servers of the root. It
// tells nobody which names this machine looks up; every resolver has the answer
// at hand, as it needs it itself (priming, RFC 8109); and one that may not or
// cannot answer says so, which is a sign of life as well. It has no EDNS, which
// a few servers still drop.
//
// RFC 1035 section 4.1: a header with the recursion desired bit and one
// question, the empty name, type NS, class IN.
func question(id uint16) []byte {
	const recursionDesired = 1
	return append(binary.BigEndian.AppendUint16(nil, id),
		recursionDesired, 0,
		0, 1, 0, 0, 0, 0, 0, 0,
		0, 0, byte(dnsmessage.TypeNS), 0, byte(dnsmessage.ClassINET))
}

// parseAnswer returns the response code of an answer to the question numbered
// id; it is not ok when data is anything else. What follows the question does
// not matter, and an error may leave the question out, as some servers do.
func parseAnswer(data []byte, id uint16) (code string, ok bool) {
	var parser dnsmessage.Parser
	header, err := parser.Start(data)
	if err != nil || !header.Response || header.ID != id || header.OpCode != 0 {
		return "", false
	}
	questions, err := parser.AllQuestions()
	switch {
	case err != nil:
		return "", false
	case len(questions) == 0:
		return codeName(header.RCode), header.RCode != dnsmessage.RCodeSuccess
	case len(questions) > 1:
		return "", false
	}
	q := questions[0]
	if q.Name.String() != "." || q.Type != dnsmessage.TypeNS || q.Class != dnsmessage.ClassINET {
		return "", false
	}
	return codeName(header.RCode), true
}

// codeNames are the mnemonics of RFC 6895 section 2.3 that fit a header.
var codeNames = [...]string{
	"NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED",
	"YXDOMAIN", "YXRRSET", "NXRRSET", "NOTAUTH", "NOTZONE", "DSOTYPENI",
}

func codeName(code dnsmessage.RCode) string {
	if int(code) < len(codeNames) {
		return codeNames[code]
	}
	return fmt.Sprintf("RCODE%d", code)
}
