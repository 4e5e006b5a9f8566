package sftp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// cleanup bounds what is tidied on the server after a copy has failed.
const cleanup = 2 * time.Second

// mostEntries is how many names a directory may have: a server could send them
// without end.
const mostEntries = 1_000_000

// handle is an open file or directory of the server.
type handle string

// ask makes a request and waits for its answer, of the given kind; status
// answers are errors, but for OK where that is what is asked for.
func (c *Client) ask(ctx context.Context, kind, want byte, fill func(packet) packet) (*reader, error) {
	made, err := c.begin(ctx, kind, nil, func(p packet) (packet, error) { return fill(p), nil })
	if err != nil {
		return nil, err
	}
	a, err := c.end(ctx, made)
	if err != nil {
		if want == kindHandle {
			go c.closeLate(made)
		}
		return nil, err
	}
	return a.expect(want)
}

// closeLate closes a file that was opened after nobody waited for it.
func (c *Client) closeLate(made *call) {
	a, err := c.end(context.Background(), made)
	if err != nil {
		return
	}
	if r, err := a.expect(kindHandle); err == nil {
		_ = c.close(context.Background(), handle(r.string()))
	}
}

// expect returns what an answer of this kind says.
func (a answer) expect(want byte) (*reader, error) {
	r := &reader{rest: a.body}
	if a.kind != kindStatus {
		if a.kind != want {
			return nil, fmt.Errorf("%w: an answer of kind %d, not %d", ErrProtocol, a.kind, want)
		}
		return r, nil
	}
	code := r.uint32()
	if r.short {
		return nil, fmt.Errorf("%w: a status without a code", ErrProtocol)
	}
	if code == statusOK && want == kindStatus {
		return r, nil
	}
	return nil, &StatusError{Code: code, Message: r.string()} // which early servers leave out
}

func (c *Client) open(ctx context.Context, path string, flags uint32, a attrs) (handle, error) {
	return c.handle(ctx, kindOpen, func(p packet) packet { return p.string(path).uint32(flags).attrs(a) })
}

func (c *Client) opendir(ctx context.Context, path string) (handle, error) {
	return c.handle(ctx, kindOpendir, func(p packet) packet { return p.string(path) })
}

func (c *Client) handle(ctx context.Context, kind byte, fill func(packet) packet) (handle, error) {
	r, err := c.ask(ctx, kind, kindHandle, fill)
	if err != nil {
		return "", err
	}
	h := r.string()
	if r.short || len(h) > 256 {
		return "", fmt.Errorf("%w: a handle of %d bytes", ErrProtocol, len(h))
	}
	return handle(h), nil
}

func (c *Client) close(ctx context.Context, h handle) error {
	return c.do(ctx, kindClose, func(p packet) packet { return p.string(string(h)) })
}

// closeAnyway closes when the context may have ended.
func (c *Client) closeAnyway(ctx context.Context, h handle) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanup)
	defer cancel()
	_ = c.close(ctx, h)
}

// do makes a request that is answered by a status.
func (c *Client) do(ctx context.Context, kind byte, fill func(packet) packet) error {
	_, err := c.ask(ctx, kind, kindStatus, fill)
	return err
}

// stat asks by kindStat or kindLstat for a path, by kindFstat for a handle.
func (c *Client) stat(ctx context.Context, kind byte, of string) (attrs, error) {
	r, err := c.ask(ctx, kind, kindAttrs, func(p packet) packet { return p.string(of) })
	if err != nil {
		return attrs{}, err
	}
	a := r.attrs()
	if r.short {
		return attrs{}, fmt.Errorf("%w: attributes that end early", ErrProtocol)
	}
	return a, nil
}

// setstat sets by kindSetstat those of a path, by kindFsetstat those of a handle.
func (c *Client) setstat(ctx context.Context, kind byte, of string, a attrs) error {
	return c.do(ctx, kind, func(p packet) packet { return p.string(of).attrs(a) })
}

func (c *Client) remove(ctx context.Context, path string) error {
	return c.do(ctx, kindRemove, func(p packet) packet { return p.string(path) })
}

func (c *Client) mkdir(ctx context.Context, path string, mode uint32) error {
	return c.do(ctx, kindMkdir, func(p packet) packet { return p.string(path).attrs(attrs{flags: attrPerm, mode: mode}) })
}

// rename replaces what is at the new name, at once where the server can: that
// of version 3 fails when there is something.
func (c *Client) rename(ctx context.Context, from, to string) error {
	if _, ok := c.known["posix-rename@openssh.com"]; ok {
		return c.do(ctx, kindExtended, func(p packet) packet { return p.string("posix-rename@openssh.com").string(from).string(to) })
	}
	plain := func() error {
		return c.do(ctx, kindRename, func(p packet) packet { return p.string(from).string(to) })
	}
	err := plain()
	if refused := (*StatusError)(nil); !errors.As(err, &refused) {
		return err
	}
	if c.remove(ctx, to) != nil {
		return err
	}
	return plain()
}

func (c *Client) readlink(ctx context.Context, path string) (string, error) {
	r, err := c.ask(ctx, kindReadlink, kindName, func(p packet) packet { return p.string(path) })
	if err != nil {
		return "", err
	}
	found := r.entries()
	if r.short || len(found) != 1 {
		return "", fmt.Errorf("%w: a symbolic link with %d targets", ErrProtocol, len(found))
	}
	return found[0].name, nil
}

// symlink has its arguments as OpenSSH takes them, which is not as the draft has
// it (section 4.1 of OpenSSH's PROTOCOL).
func (c *Client) symlink(ctx context.Context, target, path string) error {
	return c.do(ctx, kindSymlink, func(p packet) packet { return p.string(target).string(path) })
}

// sync has what was written to a file put on its disk, if the server can.
func (c *Client) sync(ctx context.Context, h handle) error {
	if _, ok := c.known["fsync@openssh.com"]; !ok {
		return nil
	}
	return c.do(ctx, kindExtended, func(p packet) packet { return p.string("fsync@openssh.com").string(string(h)) })
}

// full reports whether the file system of a path has no room: version 3 has no
// status for that.
func (c *Client) full(ctx context.Context, path string) bool {
	if _, ok := c.known["statvfs@openssh.com"]; !ok {
		return false
	}
	r, err := c.ask(ctx, kindExtended, kindExtendedReply, func(p packet) packet { return p.string("statvfs@openssh.com").string(path) })
	if err != nil {
		return false
	}
	block, fragment := r.uint64(), r.uint64()
	r.take(16) // all blocks, and those that are free for root
	room := r.uint64()
	return !r.short && block > 0 && room <= uint64(c.chunk)/max(fragment, 1)
}

// learnLimits asks how much the server takes in one request (section 4.8 of
// OpenSSH's PROTOCOL).
func (c *Client) learnLimits(ctx context.Context) error {
	if _, ok := c.known["limits@openssh.com"]; !ok {
		return nil
	}
	r, err := c.ask(ctx, kindExtended, kindExtendedReply, func(p packet) packet { return p.string("limits@openssh.com") })
	if refused := (*StatusError)(nil); errors.As(err, &refused) {
		return nil
	}
	if err != nil {
		return err
	}
	packets, reads, writes := r.uint64(), r.uint64(), r.uint64()
	if most := min(packets-min(packets, 1024), reads, writes, largeChunk); !r.short && most > safeChunk {
		c.chunk = int(most)
	}
	return nil
}

// list returns what is in a directory, of which every name is a plain one.
func (c *Client) list(ctx context.Context, path string) (all []entry, err error) {
	h, err := c.opendir(ctx, path)
	if err != nil {
		return nil, err
	}
	defer c.closeAnyway(ctx, h)
	for {
		r, err := c.ask(ctx, kindReaddir, kindName, func(p packet) packet { return p.string(string(h)) })
		if refused := (*StatusError)(nil); errors.As(err, &refused) && refused.Code == statusEOF {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		found := r.entries()
		if r.short || len(found) == 0 {
			return nil, fmt.Errorf("%w: a directory that ends early", ErrProtocol)
		}
		for _, e := range found {
			switch {
			case e.name == "." || e.name == "..":
			case !plainName(e.name):
				return nil, fmt.Errorf("%.200q: %w", e.name, ErrName)
			default:
				all = append(all, e)
			}
		}
		if len(all) > mostEntries {
			return nil, fmt.Errorf("more than %d names in one directory", mostEntries)
		}
	}
}

// plainName reports whether a name can be nothing but one in its directory, on
// every system.
func plainName(name string) bool {
	return name != "" && name != "." && name != ".." && !strings.ContainsAny(name, "/\x00") && localName(name)
}

// readAt fills p from a file, or returns io.EOF.
func (c *Client) readAt(ctx context.Context, h handle, p []byte, at int64) (n int, err error) {
	for n < len(p) {
		made, err := c.beginRead(ctx, h, p[n:], at+int64(n))
		if err != nil {
			return n, err
		}
		got, err := c.endRead(ctx, made)
		if n += got; err != nil {
			return n, err
		}
	}
	return n, nil
}

// beginRead asks for at most as much as fits into p, which belongs to the call
// until it is answered.
func (c *Client) beginRead(ctx context.Context, h handle, p []byte, at int64) (*call, error) {
	p = p[:min(len(p), c.chunk)]
	return c.begin(ctx, kindRead, p, func(out packet) (packet, error) {
		return out.string(string(h)).uint64(uint64(at)).uint32(uint32(len(p))), nil
	})
}

// endRead returns how much came, which may be less, or io.EOF.
func (c *Client) endRead(ctx context.Context, made *call) (int, error) {
	a, err := c.end(ctx, made)
	if err != nil || a.n > 0 {
		return a.n, err
	}
	_, err = a.expect(kindData)
	if refused := (*StatusError)(nil); errors.As(err, &refused) && refused.Code == statusEOF {
		return 0, io.EOF
	}
	if err == nil {
		err = fmt.Errorf("%w: data without any", ErrProtocol)
	}
	return 0, err
}
