package dnsclient

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"io"
	"math/big"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/lifeline-go/lifeline/internal/leakcheck"
	"github.com/lifeline-go/lifeline/internal/need"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

// long is more than any answer takes, short is what is waited for one that does
// not come.
const (
	long  = 20 * time.Second
	short = 100 * time.Millisecond
)

func query(t testing.TB, name string, kind dnsmessage.Type, edns bool) []byte {
	t.Helper()
	q, err := NewQuery(name, kind, edns)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

// reply turns a question into an answer that has nothing but the question.
func reply(q []byte) []byte {
	end := headerSize
	for q[end] != 0 {
		end += 1 + int(q[end])
	}
	a := bytes.Clone(q[:end+5])
	binary.BigEndian.PutUint16(a[2:], flagResponse)
	copy(a[6:], make([]byte, 6)) // no records
	return a
}

func changed(message []byte, at int, to byte) []byte {
	other := bytes.Clone(message)
	other[at] = to
	return other
}

// udp answers each datagram with those that answer returns.
func udp(t *testing.T, answer func(q []byte) [][]byte) netip.AddrPort {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	t.Cleanup(func() { pc.Close(); wg.Wait() })
	wg.Go(func() {
		buf := make([]byte, datagramMax)
		for {
			n, from, err := pc.ReadFrom(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				continue
			}
			for _, a := range answer(bytes.Clone(buf[:n])) {
				_, _ = pc.WriteTo(a, from)
			}
		}
	})
	return netip.MustParseAddrPort(pc.LocalAddr().String())
}

// stream answers each connection's first message with the bytes that answer
// returns, and closes it.
func stream(t *testing.T, config *tls.Config, answer func(q []byte) []byte) netip.AddrPort {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := netip.MustParseAddrPort(ln.Addr().String())
	if config != nil {
		ln = tls.NewListener(ln, config)
	}
	var wg sync.WaitGroup
	t.Cleanup(func() { ln.Close(); wg.Wait() })
	wg.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer conn.Close()
				_ = conn.SetDeadline(time.Now().Add(long))
				var length [2]byte
				if _, err := io.ReadFull(conn, length[:]); err != nil {
					return
				}
				q := make([]byte, binary.BigEndian.Uint16(length[:]))
				if _, err := io.ReadFull(conn, q); err != nil {
					return
				}
				if a := answer(q); a != nil {
					_, _ = conn.Write(a)
				} else {
					_, _ = conn.Read(length[:]) // until the other end goes
				}
			})
		}
	})
	return addr
}

func framed(message []byte) []byte {
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(message))), message...)
}

// What comes over UDP and is no answer is passed over, as long as it is not too
// much.
func TestUDP(t *testing.T) {
	t.Parallel()
	var q = query(t, "Db.Corp.", dnsmessage.TypeA, true)
	for _, c := range []struct {
		what   string
		answer func(q []byte) [][]byte
		ok     bool
		err    error
	}{
		{"an answer", func(q []byte) [][]byte { return [][]byte{reply(q)} }, true, nil},
		{"in lower case", func(q []byte) [][]byte { return [][]byte{bytes.Replace(reply(q), []byte("Corp"), []byte("corp"), 1)} }, true, nil},
		{"another id", func(q []byte) [][]byte { return [][]byte{changed(reply(q), 0, ^q[0])} }, false, nil},
		{"another id, then an answer", func(q []byte) [][]byte { return [][]byte{changed(reply(q), 1, ^q[1]), reply(q)} }, true, nil},
		{"another name", func(q []byte) [][]byte { return [][]byte{bytes.Replace(reply(q), []byte("Corp"), []byte("Evil"), 1)} }, false, nil},
		{"another type", func(q []byte) [][]byte { return [][]byte{changed(reply(q), len(reply(q))-3, 28)} }, false, nil},
		{"another class", func(q []byte) [][]byte { return [][]byte{changed(reply(q), len(reply(q))-1, 3)} }, false, nil},
		{"a longer name", func(q []byte) [][]byte {
			return [][]byte{bytes.Replace(reply(q), []byte("\x02Db\x04Corp"), []byte("\x02Db\x05Corpx"), 1)}
		}, false, nil},
		{"a name that points at itself", func(q []byte) [][]byte {
			return [][]byte{append(reply(q)[:headerSize:headerSize], 0xc0, headerSize, 0, 1, 0, 1)}
		}, false, nil},
		{"a name without end", func(q []byte) [][]byte {
			return [][]byte{append(reply(q)[:headerSize:headerSize], bytes.Repeat([]byte("\x3f"+strings.Repeat("a", 63)), 900)...)}
		}, false, nil},
		{"no question, and no error", func(q []byte) [][]byte { return [][]byte{changed(reply(q), 5, 0)[:headerSize]} }, false, nil},
		{"no question, and no such name", func(q []byte) [][]byte { return [][]byte{changed(changed(reply(q), 5, 0), 3, 3)[:headerSize]} }, false, nil},
		{"no question, and an error", func(q []byte) [][]byte { return [][]byte{changed(changed(reply(q), 5, 0), 3, 1)[:headerSize]} }, true, nil},
		{"two questions", func(q []byte) [][]byte { return [][]byte{changed(reply(q), 5, 2)} }, false, nil},
		{"the question itself", func(q []byte) [][]byte { return [][]byte{q} }, false, nil},
		{"a notification", func(q []byte) [][]byte { return [][]byte{changed(reply(q), 2, 0xa0)} }, false, nil},
		{"scraps", func(q []byte) [][]byte { return [][]byte{{}, q[:1], q[:11], reply(q)[:13]} }, false, nil},
		{"a datagram as large as they come", func(q []byte) [][]byte { return [][]byte{append(reply(q), make([]byte, 60000)...)} }, true, nil},
		{"a flood", func(q []byte) [][]byte {
			var guesses [][]byte
			for range strays + 2 {
				guesses = append(guesses, changed(reply(q), 0, ^q[0]))
			}
			return append(guesses, reply(q))
		}, false, ErrFlooded},
	} {
		t.Run(c.what, func(t *testing.T) {
			t.Parallel()
			within := short
			if c.ok || c.err != nil {
				within = long
			}
			ctx, cancel := context.WithTimeout(t.Context(), within)
			defer cancel()
			got, err := Exchange(ctx, UDP, udp(t, c.answer), q)
			switch {
			case c.ok && (err != nil || !bytes.Equal(got[:2], q[:2]) || Code(got) > 5):
				t.Errorf("%x, %v", got, err)
			case !c.ok && c.err != nil && !errors.Is(err, c.err):
				t.Errorf("%x, %v", got, err)
			case !c.ok && c.err == nil && !errors.Is(err, os.ErrDeadlineExceeded):
				t.Errorf("%x, %v", got, err)
			}
		})
	}
}

// Ids and ports differ from one question to the next.
func TestNobodyCanGuess(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	ids := make(map[uint16]bool)
	addr := udp(t, func(q []byte) [][]byte {
		mu.Lock()
		defer mu.Unlock()
		ids[binary.BigEndian.Uint16(q)] = true
		return [][]byte{reply(q)}
	})
	q := query(t, "db.corp.", dnsmessage.TypeA, false)
	const many = 100
	for range many {
		if _, err := Exchange(t.Context(), UDP, addr, q); err != nil {
			t.Fatal(err)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if len(ids) < many*9/10 {
		t.Errorf("%d ids in %d questions", len(ids), many)
	}
}

func TestStreams(t *testing.T) {
	t.Parallel()
	config := &tls.Config{Certificates: []tls.Certificate{certificate(t)}}
	q := query(t, "db.corp.", dnsmessage.TypeAAAA, true)
	big := func(q []byte) []byte { return framed(append(reply(q), make([]byte, 65535-len(reply(q)))...)) }
	for _, c := range []struct {
		what   string
		answer func(q []byte) []byte
		ok     bool
		err    error
	}{
		{"an answer", func(q []byte) []byte { return framed(reply(q)) }, true, nil},
		{"as large as they come", big, true, nil},
		{"silence", func([]byte) []byte { return nil }, false, os.ErrDeadlineExceeded},
		{"closed", func([]byte) []byte { return []byte{} }, false, io.ErrUnexpectedEOF},
		{"half a length", func([]byte) []byte { return []byte{1} }, false, io.ErrUnexpectedEOF},
		{"half an answer", func(q []byte) []byte { return framed(reply(q))[:20] }, false, io.ErrUnexpectedEOF},
		{"nothing", func([]byte) []byte { return []byte{0, 0} }, false, ErrBadAnswer},
		{"another id", func(q []byte) []byte { return framed(changed(reply(q), 0, ^q[0])) }, false, ErrBadAnswer},
	} {
		for layer, of := range map[string]*tls.Config{"tcp": nil, "tls": config} {
			t.Run(c.what+" over "+layer, func(t *testing.T) {
				t.Parallel()
				within := long
				if errors.Is(c.err, os.ErrDeadlineExceeded) {
					within = 5 * short // shaking hands takes some
				}
				ctx, cancel := context.WithTimeout(t.Context(), within)
				defer cancel()
				conn, err := Dial(ctx, TCP, stream(t, of, c.answer))
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				if of != nil {
					conn.Wrap(func(c net.Conn) net.Conn { return tls.Client(c, &tls.Config{InsecureSkipVerify: true}) })
				}
				got, err := conn.Exchange(ctx, q)
				if (err == nil) != c.ok || !errors.Is(err, c.err) || c.ok && !bytes.Equal(got[:2], q[:2]) {
					t.Errorf("%d bytes, %v", len(got), err)
				}
			})
		}
	}
}

func certificate(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func TestRefused(t *testing.T) {
	t.Parallel()
	addr := netip.MustParseAddrPort(need.Address(t))
	q := query(t, "db.corp.", dnsmessage.TypeA, false)
	for _, transport := range []Transport{UDP, TCP} {
		if _, err := Exchange(t.Context(), transport, addr, q); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("%v: %v", transport, err)
		}
	}
}

func TestCancelled(t *testing.T) {
	t.Parallel()
	left := errors.New("the user left")
	silent := udp(t, func([]byte) [][]byte { return nil })
	mute := stream(t, nil, func([]byte) []byte { return nil })
	q := query(t, "db.corp.", dnsmessage.TypeA, false)
	for transport, addr := range map[Transport]netip.AddrPort{UDP: silent, TCP: mute} {
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(20*time.Millisecond, func() { cancel(left) })
		if _, err := Exchange(ctx, transport, addr, q); !errors.Is(err, left) {
			t.Errorf("%v: %v", transport, err)
		}
		if _, err := Exchange(ctx, transport, addr, q); err == nil {
			t.Errorf("%v: cancelled before, and answered", transport)
		}
	}
}

func TestBadQuestion(t *testing.T) {
	t.Parallel()
	good := query(t, "db.corp.", dnsmessage.TypeA, false)
	addr := udp(t, func(q []byte) [][]byte { t.Error("was sent"); return nil })
	for _, bad := range [][]byte{nil, good[:11], good[:len(good)-1], reply(good), changed(good, 5, 2), changed(good, 5, 0)} {
		if _, err := Exchange(t.Context(), UDP, addr, bad); !errors.Is(err, ErrBadQuestion) {
			t.Errorf("%x: %v", bad, err)
		}
	}
	for _, name := range []string{"", "db", strings.Repeat("a", 64) + ".", strings.Repeat("a.", 200), "a..b."} {
		if q, err := NewQuery(name, dnsmessage.TypeA, true); err == nil {
			t.Errorf("%q: %x", name, q)
		}
	}
}

func TestCodes(t *testing.T) {
	t.Parallel()
	for code, want := range map[dnsmessage.RCode]string{0: "NOERROR", 3: "NXDOMAIN", 5: "REFUSED", 11: "DSOTYPENI", 15: "RCODE15"} {
		if got := CodeName(code); got != want {
			t.Errorf("%d: %s", code, got)
		}
	}
	if Code(nil) != dnsmessage.RCodeFormatError || Truncated(nil) {
		t.Error("of nothing")
	}
}

// What is taken for an answer has the id and the question, however it is made.
func FuzzAnswers(f *testing.F) {
	q, err := NewQuery("db.corp.", dnsmessage.TypeA, false)
	if err != nil {
		f.Fatal(err)
	}
	id := binary.BigEndian.Uint16(q)
	f.Add(reply(q))
	f.Add(changed(reply(q), 12, 0xc0))
	f.Add(changed(reply(q), 5, 0)[:headerSize])
	asked, err := parseQuestion(q)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if !answers(data, id, asked) {
			return
		}
		if data[2]&0x80 == 0 || binary.BigEndian.Uint16(data) != id {
			t.Errorf("%x", data)
		}
		if data[5] == 1 && !bytes.EqualFold(data[headerSize:asked.end], q[headerSize:asked.end]) {
			t.Errorf("%x answers %x", data, q)
		}
	})
}
