//go:build ignore

/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */

/*
 * tcpevent writes a record when the retransmission timer of a TCP socket has
 * expired, and when a keepalive probe is due: one for each peer address and kind
 * in 100 ms at most, whatever a path loses.
 *
 * What stays on the machine, the peers of loopback and own addresses, is left
 * out.
 */
#include "kernel.h"

#define AF_INET	 2
#define AF_INET6 10

/* enum bpf_map_type of include/uapi/linux/bpf.h */
#define BPF_MAP_TYPE_LRU_HASH 9
#define BPF_MAP_TYPE_RINGBUF  27

#define BPF_ANY 0

/* include/uapi/linux/bpf.h */
#define BPF_RB_NO_WAKEUP    1
#define BPF_RB_FORCE_WAKEUP 2

/* include/net/tcp_states.h */
#define TCP_ESTABLISHED 1
#define TCP_CLOSE_WAIT	8

enum kind {
	RETRANSMIT = 1,
	PROBE = 2,
};

/* What the program writes: 64 bytes, no padding, in this machine's order. */
struct event {
	__u64 cookie; /* of the socket; 0 when nobody has asked for it yet */
	__u64 at;     /* CLOCK_MONOTONIC */
	__u32 netns;
	__u32 device; /* that the socket is bound to; 0 for any */
	__u8 kind;
	__u8 family;
	__u8 state;
	__u8 count; /* retransmissions of the same data; probes that got no answer */
	__u16 local_port;
	__be16 remote_port;
	__be32 local[4];
	__be32 remote[4];
};

const struct event *unused_event __attribute__((unused));

/* Whom a record was written about. */
struct subject {
	__u32 netns;
	__u32 kind; /* of event; more for a probe after one without an answer, and for data sent again more than once */
	__be32 remote[4];
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct subject);
	__type(value, __u64); /* when, by CLOCK_MONOTONIC */
} written SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 64 << 10); /* a power of two of pages, of up to 64 KiB on arm64 */
} events SEC(".maps");

__u64 lost; /* records that found no room */

static const __u64 once_in = 100 * 1000 * 1000; /* nanoseconds */

/* When a record woke the reader last, and how often those of first probes may: who is probed most often lives. */
__u64 woken;

static const __u64 wakes = 500 * 1000 * 1000; /* nanoseconds */

static __always_inline int addresses(struct event *e, struct sock_common *c)
{
	e->family = BPF_CORE_READ(c, skc_family);
	if (e->family == AF_INET) {
		e->local[0] = BPF_CORE_READ(c, skc_rcv_saddr);
		e->remote[0] = BPF_CORE_READ(c, skc_daddr);
		return (e->remote[0] & __builtin_bswap32(0xff000000)) != __builtin_bswap32(0x7f000000) &&
		       e->local[0] != e->remote[0];
	}
	if (e->family != AF_INET6 || !bpf_core_field_exists(c->skc_v6_daddr))
		return 0;
	bpf_core_read(e->local, sizeof(e->local), &c->skc_v6_rcv_saddr);
	bpf_core_read(e->remote, sizeof(e->remote), &c->skc_v6_daddr);
	if (e->remote[0] == 0 && e->remote[1] == 0 && e->remote[2] == __builtin_bswap32(0xffff) &&
	    (e->remote[3] & __builtin_bswap32(0xff000000)) == __builtin_bswap32(0x7f000000))
		return 0;
	/* ::1 is its own local address. */
	return e->local[0] != e->remote[0] || e->local[1] != e->remote[1] || e->local[2] != e->remote[2] ||
	       e->local[3] != e->remote[3];
}

/* wakeup returns the flags of a record that is written now. The reader looks by itself for those that do not wake it. */
static __always_inline __u64 wakeup(struct event *e)
{
	if (e->kind == PROBE && !e->count && e->at - woken < wakes)
		return BPF_RB_NO_WAKEUP;
	woken = e->at;
	return BPF_RB_FORCE_WAKEUP; /* also where there are some that did not */
}

/* fresh notes that there is a record about a subject now, unless there has been one just before. */
static __always_inline int fresh(struct event *e)
{
	struct subject s = {.netns = e->netns, .kind = e->kind};
	int again = e->kind == PROBE ? e->count > 0 : e->count > 1;

	if (again)
		s.kind |= 1 << 8; /* not to be hidden by those of the living */
	for (int i = 0; i < 4; i++)
		s.remote[i] = e->remote[i];
	__u64 *before = bpf_map_lookup_elem(&written, &s);
	if (before && e->at - *before < once_in)
		return 0;
	bpf_map_update_elem(&written, &s, &e->at, BPF_ANY);
	return 1;
}

/* tell reports whether it wrote a record. e has kind and count; sk may be any address. */
static __always_inline int tell(struct event *e, struct sock *sk)
{
	struct sock_common *c = &sk->__sk_common;

	if (!addresses(e, c))
		return 0;
	e->netns = BPF_CORE_READ(c, skc_net.net, ns.inum);
	e->at = bpf_ktime_get_ns();
	if (!fresh(e))
		return 0;
	e->cookie = BPF_CORE_READ(c, skc_cookie.counter);
	e->device = BPF_CORE_READ(c, skc_bound_dev_if);
	e->state = BPF_CORE_READ(c, skc_state);
	e->local_port = BPF_CORE_READ(c, skc_num);
	e->remote_port = BPF_CORE_READ(c, skc_dport);
	if (bpf_ringbuf_output(&events, e, sizeof(*e), wakeup(e)))
		__sync_fetch_and_add(&lost, 1);
	return 1;
}

/*
 * retransmit(const struct sock *sk, const struct sk_buff *skb): most of what a
 * living path makes a socket send again is sent on the word of the peer, or to
 * probe for a loss. Those touch one byte here and end. The timer has expired
 * when icsk_retransmits counts (tcp_retransmit_timer in net/ipv4/tcp_timer.c),
 * and any answer makes that 0 again.
 */
SEC("tp_btf/tcp_retransmit_skb")
int retransmit(__u64 *ctx)
{
	struct sock *sk = (void *)ctx[0];
	struct event e = {.kind = RETRANSMIT};
	struct tcp_sock *tp = bpf_skc_to_tcp_sock(sk);

	if (!tp)
		return 0;
	e.count = tp->inet_conn.icsk_retransmits;
	if (e.count)
		tell(&e, sk);
	return 0;
}

/* keepalive is the address of tcp_keepalive_timer in net/ipv4/tcp_timer.c, once canary found it. */
__u64 keepalive;

/* The TCP_USER_TIMEOUT by which canary knows the socket that was made for it. */
__u32 canary_timeout;

/* Where a socket has its keepalive timer. Where it has two, sk_timer is the one of retransmissions. */
static __always_inline __u64 timer_offset(void)
{
	if (bpf_core_field_exists(struct inet_connection_sock, icsk_keepalive_timer))
		return bpf_core_field_offset(struct inet_connection_sock, icsk_keepalive_timer);
	return bpf_core_field_offset(struct sock, sk_timer);
}

/*
 * canary(struct sock *sk) reads what tcp_init_xmit_timers set for every TCP
 * socket, from one that goes away.
 */
SEC("tp_btf/tcp_destroy_sock")
int canary(__u64 *ctx)
{
	struct inet_connection_sock *icsk = (void *)ctx[0];

	if (canary_timeout && BPF_CORE_READ(icsk, icsk_user_timeout) == canary_timeout) {
		struct timer_list *timer = (void *)icsk + timer_offset();

		keepalive = (__u64)BPF_CORE_READ(timer, function);
	}
	return 0;
}

/*
 * For each of the two kinds of probe, when all records so far would have been
 * written at 200 a second; up to a second ahead, for timers that expire
 * together. Two processors may both take the last that is left.
 */
__u64 spent[2];

static const __u64 each = 5 * 1000 * 1000, burst = 1000 * 1000 * 1000; /* nanoseconds */

/*
 * due reports whether tcp_keepalive_timer will send a probe: it does, or gives
 * up a connection that has had all its probes, when nothing is on its way and
 * nothing has come in for keepalive_time_when. While a system call holds the
 * socket it tries again in 50 ms.
 */
static __always_inline int due(struct tcp_sock *tp)
{
	struct sock_common *c = (void *)tp;
	unsigned char state = BPF_CORE_READ(c, skc_state);

	if (state != TCP_ESTABLISHED && state != TCP_CLOSE_WAIT)
		return 0;
	if (!(BPF_CORE_READ(c, skc_flags) >> bpf_core_enum_value(enum sock_flags, SOCK_KEEPOPEN) & 1))
		return 0;
	if (BPF_CORE_READ(tp, packets_out) || BPF_CORE_READ(tp, write_seq) != BPF_CORE_READ(tp, snd_nxt))
		return 0;

	__u32 now = bpf_jiffies64(), time = BPF_CORE_READ(tp, keepalive_time);
	if (!time)
		time = BPF_CORE_READ(c, skc_net.net, ipv4.sysctl_tcp_keepalive_time);
	return now - BPF_CORE_READ(tp, inet_conn.icsk_ack.lrcvtime) >= time &&
	       now - BPF_CORE_READ(tp, rcv_tstamp) >= time;
}

/*
 * probe(struct timer_list *timer, unsigned long baseclk): keepalive probes have
 * no tracepoint of their own, but their timer has the one of all timers. The
 * others end at the first line.
 */
SEC("tp_btf/timer_expire_entry")
int probe(__u64 *ctx)
{
	struct timer_list *timer = (void *)ctx[0];
	if ((__u64)timer->function != keepalive)
		return 0;

	/* The verifier follows no pointer to what is around: all is copied from here. */
	struct tcp_sock *tp = (void *)((__u64)timer - timer_offset());
	struct event e = {.kind = PROBE, .count = BPF_CORE_READ(tp, inet_conn.icsk_probes_out)};
	__u64 now = bpf_ktime_get_ns(), *until = &spent[e.count > 0];

	if (*until > now + burst || !due(tp) || !tell(&e, (void *)tp))
		return 0;
	*until = (*until > now ? *until : now) + each;
	return 0;
}

/* The ring buffer and bpf_skc_to_tcp_sock are for programs that name the GPL. */
char __license[] SEC("license") = "GPL";
