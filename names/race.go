package names

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// errConfirmed is behind a no that the operating system itself has said.
var errConfirmed = errors.New("the operating system says so")

// contender is a way in the race for one answer.
type contender struct {
	way    Way // nil for the nameservers
	name   string
	health *health
	last   bool // asked when the others before it have failed: it is a process for each lookup
	joins  bool // asked together with the one before it
	hasty  bool // its no may be a failure: nscd says the same of both

	state state
	began time.Time
}

type state int

const (
	waiting state = iota
	running
	over
)

func (c *contender) system() bool { return c.way != nil }

// finish is how a contender did.
type finish struct {
	*contender
	found found
	err   error
}

// race is the search for one answer. The rules, in this order:
//
//   - /etc/hosts has the first word where nsswitch.conf gives it to files.
//   - A yes or a no of a way that speaks for the operating system ends it.
//   - A yes of the nameservers ends it where the system would have asked them and
//     nobody before them; else they are asked only when the system's ways have
//     failed, or have not answered for half of the time.
//   - A no of the nameservers counts only when none of the system's ways is left
//     that could say more.
//
// Who fails is followed by the next at once; who is slow gets company, and who did
// not answer in a lookup before is asked after the others. So is a way of the system
// that has much to do, where nameservers are as good.
type race struct {
	question
	plan    plan
	field   []*contender
	results chan finish // has room for all
	began   time.Time
	half    time.Duration // after which nameservers are asked instead of a system that does not answer
	no      error         // of the nameservers
	errs    []error
}

func (r *Resolver) race(ctx context.Context, c *config, q question) (Answer, error) {
	bare := strings.ToLower(strings.TrimSuffix(q.host, "."))
	x := &race{question: q, plan: r.planFor(c, bare), began: time.Now(), half: r.timeout() / 2}
	if x.plan.filesFirst {
		if answer, ok := x.fromHosts(c); ok {
			return answer, nil
		}
	}
	x.enter(r, c)
	x.results = make(chan finish, len(x.field))
	answer, err := x.run(ctx, func(ctx context.Context, one *contender) finish { return r.ask(ctx, c, x, one) })
	if err != nil && isLocalhost(bare) && !isNotFound(err) {
		return x.loopback(), nil
	}
	if err != nil && x.plan.filesLast {
		if answer, ok := x.fromHosts(c); ok {
			return answer, nil
		}
	}
	return answer, err
}

// fromHosts looks into etc/hosts.
func (x *race) fromHosts(c *config) (Answer, bool) {
	addrs := ofNetwork(x.network, c.hosts.Addrs(x.host))
	if len(addrs) == 0 {
		return Answer{}, false
	}
	sortAddrs(addrs)
	now := time.Now()
	return Answer{Addrs: addrs, Way: "hosts", Why: "nsswitch.conf asks files, and etc/hosts has the name", At: now, Took: now.Sub(x.began), Until: now}, true
}

// loopback is what localhost is when nobody says: RFC 6761 section 6.3.
func (x *race) loopback() Answer {
	now := time.Now()
	addrs := ofNetwork(x.network, []netip.Addr{netip.IPv6Loopback(), netip.AddrFrom4([4]byte{127, 0, 0, 1})})
	return Answer{Addrs: addrs, Way: "localhost", Why: "no way of the system could be asked, and localhost names are loopback", At: now, Took: now.Sub(x.began), Until: now}
}

// enter puts the contenders in order.
func (x *race) enter(r *Resolver, c *config) {
	ways := r.system(c, x.plan)
	for i, way := range ways {
		r.probeWay(way, x.network, x.host)
		_, getent := way.(getentWay)
		_, varlink := way.(varlinkWay)
		_, nscd := way.(nscdWay)
		x.field = append(x.field, &contender{
			way: way, name: way.Name(), health: r.healthOf(way.Name()),
			last: getent, joins: varlink && i > 0 && asksLibrary(ways[i-1]), hasty: nscd,
		})
	}
	nameservers := &contender{name: "dns", health: r.healthOf("dns")}
	switch x.plan.dns {
	case equal: // as good as the system's ways, and cheaper than a process for each lookup
		at := slices.IndexFunc(x.field, func(one *contender) bool { _, getent := one.way.(getentWay); return getent })
		if at < 0 {
			at = len(x.field)
		}
		x.field = slices.Insert(x.field, at, nameservers)
	case instead:
		x.field = append(x.field, nameservers)
	}
	slices.SortStableFunc(x.field, func(a, b *contender) int { return x.place(a) - x.place(b) })
}

// asksLibrary reports whether a way asks the C library.
func asksLibrary(way Way) bool {
	_, nscd := way.(nscdWay)
	return !nscd
}

// place moves those back that did not answer in a lookup before, or have much to do
// that others can do as well, and nameservers that are asked instead of the system to
// the end.
func (x *race) place(one *contender) int {
	switch {
	case !one.system() && x.plan.dns == instead:
		return 2
	case one.system() && (one.health.dead() || x.plan.dns == equal && one.health.crowded()):
		return 1
	default:
		return 0
	}
}

// run starts the contenders and waits for the first answer that counts.
func (x *race) run(ctx context.Context, ask func(context.Context, *contender) finish) (Answer, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer x.settle(ctx)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for slices.ContainsFunc(x.field, func(one *contender) bool { return x.counts(one) || x.may(one) }) {
		select {
		case <-timer.C:
			one, wait := x.next()
			if one != nil {
				one.state, one.began = running, time.Now()
				go func() { x.results <- ask(ctx, one) }()
			}
			if one != nil || wait > 0 {
				timer.Reset(wait)
			}
		case f := <-x.results:
			f.state = over
			if answer, err, ended := x.judge(f); ended {
				return answer, err
			}
			timer.Reset(0)
		case <-ctx.Done():
			return Answer{}, x.failure(context.Cause(ctx))
		}
	}
	return Answer{}, x.failure(nil)
}

// counts reports whether one runs that is worth waiting for.
func (x *race) counts(one *contender) bool { return one.state == running && !x.mute(one) }

// mute reports that one cannot be asked whether the no of the nameservers is true:
// it did not answer when it was asked last, and it would ask nobody else.
func (x *race) mute(one *contender) bool {
	return x.no != nil && x.plan.dns == equal && one.health.dead()
}

// may reports whether one may start now.
func (x *race) may(one *contender) bool {
	switch {
	case one.state != waiting || x.mute(one):
		return false
	case !one.system() && x.plan.dns == instead:
		return x.failed(func(other *contender) bool { return other.system() }) || time.Since(x.began) >= x.half
	case one.last:
		return x.failed(func(other *contender) bool {
			return other != one && (other.system() || x.plan.dns == equal)
		}) || time.Since(x.began) >= x.half
	default:
		return true
	}
}

// failed reports whether none of these contenders can still win.
func (x *race) failed(of func(*contender) bool) bool {
	return !slices.ContainsFunc(x.field, func(one *contender) bool { return of(one) && one.state != over })
}

// next returns who starts now, nil when nobody may, and how long to wait before
// the one after that.
func (x *race) next() (*contender, time.Duration) {
	for i, one := range x.field {
		if !x.may(one) {
			continue
		}
		if i+1 < len(x.field) && x.field[i+1].joins {
			return one, 0
		}
		return one, one.health.patience()
	}
	const tick = time.Millisecond
	if left := x.half - time.Since(x.began); left > -tick {
		return nil, max(left, tick) // then some may who may not yet
	}
	return nil, 0
}

// judge decides whether what one found ends the race.
func (x *race) judge(f finish) (answer Answer, err error, ended bool) {
	switch {
	case f.err == nil:
		return x.answer(f), nil, true
	case !isNotFound(f.err), f.hasty && x.plan.dns == equal: // the nameservers know better
		x.errs = append(x.errs, &failure{f.name, f.err})
	case f.system():
		return Answer{}, &net.DNSError{Err: "no such host", Name: x.host, Server: f.name, UnwrapErr: errors.Join(errConfirmed, f.err), IsNotFound: true}, true
	default:
		x.no = f.err
	}
	return Answer{}, nil, false
}

func (x *race) answer(f finish) Answer {
	now := time.Now()
	answer := Answer{Addrs: f.found.addrs, Way: f.name, At: now, Took: now.Sub(x.began), Until: now.Add(unknownLife), Why: "it speaks for the operating system"}
	if f.system() {
		return answer
	}
	answer.Way, answer.Canonical = f.found.by, f.found.canonical
	life := min(f.found.ttl, longestLife)
	if f.found.partial {
		life = min(life, unknownLife)
	}
	answer.Until = now.Add(life)
	answer.Why = "nsswitch.conf asks the nameservers, and nobody before them who could know the name"
	if x.plan.dns == instead {
		answer.Why = "the ways of the operating system failed"
	}
	for _, one := range x.field {
		if one.system() && one.state == running {
			answer.Why += fmt.Sprintf("; %s had not answered for %d ms", one.name, time.Since(one.began).Milliseconds())
		}
	}
	for _, err := range x.errs {
		answer.Why += "; " + err.Error()
	}
	return answer
}

// failure is the error of a race that nobody won; cause is why it had to end, nil
// when it was over.
func (x *race) failure(cause error) error {
	if x.no != nil && (cause == nil || x.plan.dns == equal) {
		return &net.DNSError{Err: "no such host", Name: x.host, UnwrapErr: x.no, IsNotFound: true}
	}
	errs := x.errs
	for _, one := range x.field {
		if one.state == running && cause != nil {
			errs = append(errs, fmt.Errorf("%s: no answer for %d ms", one.name, time.Since(one.began).Milliseconds()))
		}
	}
	if x.no != nil {
		errs = append(errs, fmt.Errorf("the nameservers do not know it, which is not the last word: %w", x.no))
	}
	if len(errs) == 0 {
		errs = append(errs, errors.New("no way to look it up: nsswitch.conf asks sources that only the system knows, and it cannot be asked"))
	}
	var texts []string
	timeout := cause != nil
	for _, err := range errs {
		var one *net.DNSError
		timeout = timeout || errors.As(err, &one) && one.IsTimeout // the bound came while it reported
		texts = append(texts, err.Error())
	}
	return &net.DNSError{
		Err: strings.Join(texts, "; "), Name: x.host, UnwrapErr: errors.Join(append(errs, cause)...),
		IsTimeout: timeout, IsTemporary: true,
	}
}

// settle tells the ways that were not heard of, unless those who asked left.
func (x *race) settle(ctx context.Context) {
	if errors.Is(context.Cause(ctx), errLeft) {
		return
	}
	for _, one := range x.field {
		if one.state == running {
			one.health.miss(one.began)
		}
	}
}
