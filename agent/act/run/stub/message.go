//go:build linux

package stub

import (
	"encoding/binary"

	"golang.org/x/net/dns/dnsmessage"
)

// The header of a message, RFC 1035 section 4.1.1.
const (
	headerSize = 12

	flagResponse  = 1 << 15
	operationBits = 0x7800
	flagTruncated = 1 << 9
	flagRecursion = 1 << 8 // desired
	flagAvailable = 1 << 7 // recursion

	codeFormatError    = 1
	codeServerFailure  = 2
	codeNotImplemented = 4

	leastRoom = 512  // without EDNS, RFC 1035 section 2.3.4
	mostRoom  = 4096 // with it
)

// what a message is.
type what int

const (
	question what = iota
	noQuestion
	malformed
	otherOperation
)

// kindOf says what a message is: what can be asked of an [Exchanger], what must
// get an error and what must get no answer, or two servers would talk for ever.
func kindOf(message []byte) what {
	if len(message) < headerSize {
		return noQuestion
	}
	flags := binary.BigEndian.Uint16(message[2:])
	switch {
	case flags&flagResponse != 0:
		return noQuestion
	case flags&operationBits != 0:
		return otherOperation
	}
	if binary.BigEndian.Uint16(message[4:]) != 1 {
		return malformed
	}
	if _, ok := afterQuestion(message); !ok {
		return malformed
	}
	return question
}

// failure answers a message with nothing but a code.
func failure(query []byte, code uint16) []byte {
	end, ok := afterQuestion(query)
	if !ok || binary.BigEndian.Uint16(query[4:]) != 1 {
		end = headerSize
	}
	answer := append([]byte(nil), query[:end]...)
	flags := binary.BigEndian.Uint16(query[2:])&(operationBits|flagRecursion) | flagResponse | flagAvailable | code
	binary.BigEndian.PutUint16(answer[2:], flags)
	clear(answer[4:headerSize])
	if end > headerSize {
		answer[5] = 1
	}
	return answer
}

// room is how long a datagram may be that answers query: as EDNS says, RFC 6891
// section 6.2.3.
func room(query []byte) int {
	var p dnsmessage.Parser
	if _, err := p.Start(query); err != nil {
		return leastRoom
	}
	if p.SkipAllQuestions() != nil || p.SkipAllAnswers() != nil || p.SkipAllAuthorities() != nil {
		return leastRoom
	}
	for {
		header, err := p.AdditionalHeader()
		if err != nil {
			return leastRoom
		}
		if header.Type == dnsmessage.TypeOPT {
			return max(leastRoom, min(int(header.Class), mostRoom))
		}
		if p.SkipAdditional() != nil {
			return leastRoom
		}
	}
}

// fit shortens an answer that is longer than room: to nothing but the mark that
// it is truncated, so that the question comes again over TCP; or, where it would
// not, to as many records as fit, which are addresses enough.
func fit(answer []byte, room int, whole bool) []byte {
	end, ok := afterQuestion(answer)
	if len(answer) <= room || !ok {
		return answer
	}
	flags := binary.BigEndian.Uint16(answer[2:])
	kept, records := end, uint16(0)
	if whole {
		for range binary.BigEndian.Uint16(answer[6:]) {
			next, ok := afterRecord(answer, kept)
			if !ok || next > room {
				break
			}
			kept, records = next, records+1
		}
	} else {
		flags |= flagTruncated
	}
	short := append([]byte(nil), answer[:kept]...)
	binary.BigEndian.PutUint16(short[2:], flags)
	clear(short[6:headerSize])
	binary.BigEndian.PutUint16(short[6:], records)
	return short
}

// afterQuestion returns where the questions of a message end.
func afterQuestion(message []byte) (at int, ok bool) {
	if len(message) < headerSize {
		return 0, false
	}
	at = headerSize
	for range binary.BigEndian.Uint16(message[4:]) {
		if at, ok = afterName(message, at); !ok || at+4 > len(message) {
			return 0, false
		}
		at += 4
	}
	return at, true
}

func afterRecord(message []byte, at int) (end int, ok bool) {
	if at, ok = afterName(message, at); !ok || at+10 > len(message) {
		return 0, false
	}
	at += 10 + int(binary.BigEndian.Uint16(message[at+8:]))
	return at, at <= len(message)
}

// afterName returns where a name ends; a pointer is its end, wherever it leads.
func afterName(message []byte, at int) (end int, ok bool) {
	for start := at; at < len(message) && at-start < 256; {
		length := int(message[at])
		switch {
		case length == 0:
			return at + 1, true
		case length >= 0xC0:
			return at + 2, at+2 <= len(message)
		case length > 63:
			return 0, false
		}
		at += 1 + length
	}
	return 0, false
}
