package sftp

import (
	"bytes"
	"context"
	"errors"
	"io"
)

const (
	// largeChunk is what is asked for at once of servers that take so much, as
	// OpenSSH's does: a multiple of what SSH sends as one packet.
	largeChunk = 224 << 10
	// inFlight is how many bytes of a file are under way at a time: what a
	// channel's window has room for (2 MiB, in OpenSSH and x/crypto), and as much
	// again that waits.
	inFlight = 4 << 20
	// tail is how much of the end is compared before a copy is continued. All that
	// can have been under way when it was interrupted is in it.
	tail = inFlight
	// samples is how many chunks are compared before that.
	samples = 16
)

func (c *Client) depth() int { return inFlight / c.chunk }

// flown is a request for a part of a file, under way.
type flown struct {
	call *call
	at   int64
	buf  []byte
	size int
}

// upload writes what it reads from there on, until the end. It returns up to
// where all was taken.
func (c *Client) upload(ctx context.Context, from io.Reader, h handle, at int64, moved func(n int)) (done int64, err error) {
	var flying []flown
	for done = at; ; {
		for from != nil && len(flying) < c.depth() {
			made, n, err := c.beginWrite(ctx, from, h, at)
			if errors.Is(err, io.EOF) {
				from = nil
				break
			}
			if err != nil {
				return done, err
			}
			flying = append(flying, flown{call: made, at: at, size: n})
			at += int64(n)
		}
		if len(flying) == 0 {
			return done, nil
		}
		first := flying[0]
		flying = flying[1:]
		a, err := c.end(ctx, first.call)
		if err == nil {
			_, err = a.expect(kindStatus)
		}
		if err != nil {
			return done, err
		}
		done += int64(first.size)
		moved(first.size)
	}
}

// beginWrite reads a chunk straight into a packet, or returns io.EOF.
func (c *Client) beginWrite(ctx context.Context, from io.Reader, h handle, at int64) (made *call, n int, err error) {
	made, err = c.begin(ctx, kindWrite, nil, func(p packet) (packet, error) {
		p = p.string(string(h)).uint64(uint64(at))
		data := p[len(p)+4 : c.chunk] // so that no packet of SSH has only the rest of one of these
		if n, err = io.ReadFull(from, data); err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, err
		}
		p = p.uint32(uint32(n))
		return p[:len(p)+n], nil
	})
	return made, n, err
}

// download writes what comes from there on, until the end, which is where size
// says, or later. Of a file that says to be empty it is where no more comes.
func (c *Client) download(ctx context.Context, h handle, to io.Writer, at, size int64, moved func(n int)) error {
	var flying []flown
	var spare [][]byte
	asking := true
	for next := at; ; asking = len(flying) <= c.depth()/2 { // many at a time: each time wakes others
		for len(flying) == 0 || asking && len(flying) < c.depth() && next < size {
			var buf []byte
			if n := len(spare); n > 0 {
				buf, spare = spare[n-1], spare[:n-1]
			} else {
				buf = make([]byte, c.chunk)
			}
			made, err := c.beginRead(ctx, h, buf, next)
			if err != nil {
				return err
			}
			flying = append(flying, flown{call: made, at: next, buf: buf})
			next += int64(len(buf))
		}
		first := flying[0]
		flying = flying[1:]
		n, err := c.endRead(ctx, first.call)
		end := first.at + int64(n)
		if err == nil && n < len(first.buf) && (size == 0 || end < size) {
			var more int
			more, err = c.readAt(ctx, h, first.buf[n:], end)
			n, end = n+more, end+int64(more)
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if _, failed := to.Write(first.buf[:n]); failed != nil {
			return failed
		}
		moved(n)
		switch {
		case err != nil && end < size:
			return ErrChanged
		case err != nil, n < len(first.buf):
			return nil
		}
		spare = append(spare, first.buf)
	}
}

// same compares the first n bytes of a file here and one there: the last of
// them, and samples of the others.
func (c *Client) same(ctx context.Context, h handle, here io.ReaderAt, n int64) (bool, error) {
	var places []int64
	chunk := int64(c.chunk)
	from := max(n-tail, 0)
	for i := range int64(samples) {
		if at := from / samples * i; from > chunk && (len(places) == 0 || at >= places[len(places)-1]+chunk) {
			places = append(places, at)
		}
	}
	if from <= chunk {
		from = 0
	}
	for at := from; at < n; at += chunk {
		places = append(places, at)
	}
	var flying []flown
	mine := make([]byte, chunk)
	for len(places) > 0 || len(flying) > 0 {
		for len(places) > 0 && len(flying) < c.depth() {
			buf := make([]byte, min(chunk, n-places[0]))
			made, err := c.beginRead(ctx, h, buf, places[0])
			if err != nil {
				return false, err
			}
			flying = append(flying, flown{call: made, at: places[0], buf: buf})
			places = places[1:]
		}
		first := flying[0]
		flying = flying[1:]
		got, err := c.endRead(ctx, first.call)
		if err == nil && got < len(first.buf) {
			_, err = c.readAt(ctx, h, first.buf[got:], first.at+int64(got))
		}
		if errors.Is(err, io.EOF) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		if _, err := here.ReadAt(mine[:len(first.buf)], first.at); err != nil && !errors.Is(err, io.EOF) {
			return false, err
		}
		if !bytes.Equal(mine[:len(first.buf)], first.buf) {
			return false, nil
		}
	}
	return true, nil
}
