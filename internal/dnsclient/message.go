package dnsclient

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/net/dns/dnsmessage"
)

const (
	flagResponse = 1 << 15
	opcodeBits   = 0x7800
	codeBits     = 0xF
)

// buffers are for datagrams, which can be larger than anybody asked for.
var buffers = sync.Pool{New: func() any { b := make([]byte, datagramMax); return &b }}

// question is the question section of a message, which has one question whose
// name is not compressed: there is nothing before it that it could point to.
type question struct {
	name []byte  // with letters in lower case
	rest [4]byte // type and class
	end  int     // where it ends in the message
}

var errMalformed = errors.New("malformed")

// parseQuestion finds the one question of a message.
func parseQuestion(message []byte) (question, error) {
	if len(message) < headerSize || binary.BigEndian.Uint16(message[4:]) != 1 {
		return question{}, errMalformed
	}
	at := headerSize
	for {
		if at >= len(message) {
			return question{}, errMalformed
		}
		length := int(message[at])
		if length > 63 { // a pointer, or of a future
			return question{}, errMalformed
		}
		at += 1 + length
		if at-headerSize > 255 {
			return question{}, errMalformed
		}
		if length == 0 {
			break
		}
	}
	if len(message) < at+4 {
		return question{}, errMalformed
	}
	q := question{name: lower(message[headerSize:at]), end: at + 4}
	copy(q.rest[:], message[at:])
	return q, nil
}

// lower returns a name with its ASCII letters in lower case, RFC 4343; the
// lengths of labels are less than any letter.
func lower(name []byte) []byte {
	folded := bytes.Clone(name)
	for i, b := range folded {
		if 'A' <= b && b <= 'Z' {
			folded[i] = b + 'a' - 'A'
		}
	}
	return folded
}

// answers reports that message answers the question with this id. What follows
// the question is not looked at. An answer that is an error may leave the
// question out, as some servers do.
func answers(message []byte, id uint16, asked question) bool {
	if len(message) < headerSize || binary.BigEndian.Uint16(message) != id {
		return false
	}
	flags := binary.BigEndian.Uint16(message[2:])
	if flags&flagResponse == 0 || flags&opcodeBits != 0 {
		return false
	}
	if binary.BigEndian.Uint16(message[4:]) == 0 {
		code := dnsmessage.RCode(flags & codeBits)
		return code != dnsmessage.RCodeSuccess && code != dnsmessage.RCodeNameError
	}
	got, err := parseQuestion(message)
	return err == nil && bytes.Equal(got.name, asked.name) && got.rest == asked.rest
}

// payloadSize is what is announced with EDNS: what fits a packet of IPv6's
// least MTU, RFC 9715 section 3.
const payloadSize = 1232

// NewQuery returns a message that asks for the records of name, which ends with
// a dot, with recursion desired and, when edns is set, with EDNS(0), RFC 6891.
func NewQuery(name string, kind dnsmessage.Type, edns bool) ([]byte, error) {
	wire, err := dnsmessage.NewName(name)
	if err != nil {
		return nil, fmt.Errorf("%q: %w", name, err)
	}
	b := dnsmessage.NewBuilder(make([]byte, 0, 64+len(name)), dnsmessage.Header{RecursionDesired: true})
	if err := b.StartQuestions(); err != nil {
		return nil, err
	}
	if err := b.Question(dnsmessage.Question{Name: wire, Type: kind, Class: dnsmessage.ClassINET}); err != nil {
		return nil, fmt.Errorf("%q: %w", name, err)
	}
	if edns {
		if err := b.StartAdditionals(); err != nil {
			return nil, err
		}
		var header dnsmessage.ResourceHeader
		if err := header.SetEDNS0(payloadSize, dnsmessage.RCodeSuccess, false); err != nil {
			return nil, err
		}
		if err := b.OPTResource(header, dnsmessage.OPTResource{}); err != nil {
			return nil, err
		}
	}
	return b.Finish()
}

// Truncated reports that the answer did not fit a datagram, so that TCP should be
// asked.
func Truncated(answer []byte) bool {
	const flagTruncated = 1 << 9
	return len(answer) >= headerSize && binary.BigEndian.Uint16(answer[2:])&flagTruncated != 0
}

// Code returns the response code of an answer, without EDNS's extension of it.
func Code(answer []byte) dnsmessage.RCode {
	if len(answer) < headerSize {
		return dnsmessage.RCodeFormatError
	}
	return dnsmessage.RCode(binary.BigEndian.Uint16(answer[2:]) & codeBits)
}

// codeNames are the mnemonics of RFC 6895 section 2.3 that fit a header.
var codeNames = [...]string{
	"NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED",
	"YXDOMAIN", "YXRRSET", "NXRRSET", "NOTAUTH", "NOTZONE", "DSOTYPENI",
}

// CodeName returns the mnemonic of a response code.
func CodeName(code dnsmessage.RCode) string {
	if int(code) < len(codeNames) {
		return codeNames[code]
	}
	return fmt.Sprintf("RCODE%d", code)
}
