//go:build ignore

/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */

/*
 * tcpevent writes a record when the retransmission timer of a TCP socket has
 * expired, and when a peer has reset a connection: one for each peer address
 * and kind in 100 ms at most, whatever a path loses.
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

enum kind {
	RETRANSMIT = 1,
	RESET = 2,
};

/* What the program writes: 56 bytes, no padding, in this machine's order. */
struct event {
	__u64 cookie; /* of the socket; 0 when nobody has asked for it yet */
	__u32 netns;
	__u8 kind;
	__u8 family;
	__u8 state;
	__u8 retransmits; /* of the same data */
	__be32 local[4];
	__be32 remote[4];
	__u16 local_port;
	__be16 remote_port;
	__u32 unused;
};

const struct event *unused_event __attribute__((unused));

/* Whom a record was written about. */
struct subject {
	__u32 netns;
	__u32 kind;
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

static __always_inline int addresses(struct event *e, struct sock *sk)
{
	struct sock_common *c = &sk->__sk_common;

	e->family = c->skc_family;
	if (e->family == AF_INET) {
		e->local[0] = c->skc_rcv_saddr;
		e->remote[0] = c->skc_daddr;
		return (e->remote[0] & __builtin_bswap32(0xff000000)) != __builtin_bswap32(0x7f000000) &&
		       e->local[0] != e->remote[0];
	}
	if (e->family != AF_INET6 || !bpf_core_field_exists(c->skc_v6_daddr))
		return 0;
	for (int i = 0; i < 4; i++) {
		e->local[i] = c->skc_v6_rcv_saddr.in6_u.u6_addr32[i];
		e->remote[i] = c->skc_v6_daddr.in6_u.u6_addr32[i];
	}
	if (e->remote[0] == 0 && e->remote[1] == 0 && e->remote[2] == __builtin_bswap32(0xffff) &&
	    (e->remote[3] & __builtin_bswap32(0xff000000)) == __builtin_bswap32(0x7f000000))
		return 0;
	/* ::1 is its own local address. */
	return e->local[0] != e->remote[0] || e->local[1] != e->remote[1] || e->local[2] != e->remote[2] ||
	       e->local[3] != e->remote[3];
}

/* fresh notes that there is a record about a subject now, unless there has been one just before. */
static __always_inline int fresh(struct event *e)
{
	struct subject s = {.netns = e->netns, .kind = e->kind};
	__u64 now = bpf_ktime_get_ns();

	for (int i = 0; i < 4; i++)
		s.remote[i] = e->remote[i];
	__u64 *before = bpf_map_lookup_elem(&written, &s);
	if (before && now - *before < once_in)
		return 0;
	bpf_map_update_elem(&written, &s, &now, BPF_ANY);
	return 1;
}

static __always_inline int tell(struct event *e, struct sock *sk)
{
	struct sock_common *c = &sk->__sk_common;

	if (!addresses(e, sk))
		return 0;
	e->netns = c->skc_net.net->ns.inum;
	if (!fresh(e))
		return 0;
	e->cookie = c->skc_cookie.counter;
	e->state = c->skc_state;
	e->local_port = c->skc_num;
	e->remote_port = c->skc_dport;
	if (bpf_ringbuf_output(&events, e, sizeof(*e), 0))
		__sync_fetch_and_add(&lost, 1);
	return 0;
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
	e.retransmits = tp->inet_conn.icsk_retransmits;
	if (!e.retransmits)
		return 0;
	return tell(&e, sk);
}

/* reset(struct sock *sk) */
SEC("tp_btf/tcp_receive_reset")
int reset(__u64 *ctx)
{
	struct event e = {.kind = RESET};

	return tell(&e, (void *)ctx[0]);
}

/* The ring buffer and bpf_skc_to_tcp_sock are for programs that name the GPL. */
char __license[] SEC("license") = "GPL";
