//go:build ignore

/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */

/*
 * options reads the keepalive of chosen TCP sockets of one network namespace,
 * and changes it where it still is what it was expected to be.
 *
 * The kernel holds the lock of the socket meanwhile (bpf_iter_tcp_seq_show in
 * net/ipv4/tcp_ipv4.c), so no program comes between the look and the change.
 */
#include "kernel.h"

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

/* The options, in the order in which they are kept. */
#define KEEPALIVE    0
#define IDLE	     1 /* seconds */
#define INTERVAL     2 /* seconds */
#define COUNT	     3
#define USER_TIMEOUT 4 /* milliseconds */
#define OPTIONS	     5

/* What is wanted of a socket. All options must have one of the values that they may have; else nothing is done. */
struct wish {
	__s32 from[OPTIONS]; /* they may have this */
	__s32 also[OPTIONS]; /* or this */
	__s32 to[OPTIONS];   /* or this already, and get this */
	__u32 set;	     /* ONLY_READ, SET, or WAS_SET */
};

/*
 * A socket whose answer does not fit into what is left of the reader's buffer is
 * shown once more (bpf_seq_read in kernel/bpf/bpf_iter.c), by when it is as
 * wanted: WAS_SET tells that it was this pass that made it so.
 */
#define ONLY_READ 0
#define SET	  1
#define WAS_SET	  2

#define OUTCOME_READ	  0
#define OUTCOME_SET	  1
#define OUTCOME_SAME	  2 /* they were all as wanted */
#define OUTCOME_CHANGED	  3 /* one has another value than it may have */
#define OUTCOME_STATE	  4 /* it is no longer a connection of a program */
#define OUTCOME_MULTIPATH 5 /* it is a subflow of a Multipath TCP connection */
#define OUTCOME_FAILED	  6

struct answer {
	__u64 cookie;
	__s32 was[OPTIONS];
	__u32 outcome;
	__s32 error; /* of OUTCOME_FAILED */
	__u32 padding;
};

const struct answer *unused_answer __attribute__((unused));

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1 << 22);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u64);	/* the cookie */
	__type(value, struct wish);
} wishes SEC(".maps");

static __always_inline int read_options(void *sk, __s32 *v)
{
	int err;

	err = bpf_getsockopt(sk, SOL_SOCKET, SO_KEEPALIVE, &v[KEEPALIVE], sizeof(*v));
	if (!err)
		err = bpf_getsockopt(sk, IPPROTO_TCP, TCP_KEEPIDLE, &v[IDLE], sizeof(*v));
	if (!err)
		err = bpf_getsockopt(sk, IPPROTO_TCP, TCP_KEEPINTVL, &v[INTERVAL], sizeof(*v));
	if (!err)
		err = bpf_getsockopt(sk, IPPROTO_TCP, TCP_KEEPCNT, &v[COUNT], sizeof(*v));
	if (!err)
		err = bpf_getsockopt(sk, IPPROTO_TCP, TCP_USER_TIMEOUT, &v[USER_TIMEOUT], sizeof(*v));
	return err;
}

/*
 * The idle time comes last: setting it sets the timer anew, by the options as
 * they are then (tcp_sock_set_keepidle_locked in net/ipv4/tcp.c).
 */
static __always_inline int set_options(void *sk, const __s32 *was, const struct wish *w)
{
	__s32 v;
	int err = 0;

	if (was[INTERVAL] != w->to[INTERVAL]) {
		v = w->to[INTERVAL];
		err = bpf_setsockopt(sk, IPPROTO_TCP, TCP_KEEPINTVL, &v, sizeof(v));
	}
	if (!err && was[COUNT] != w->to[COUNT]) {
		v = w->to[COUNT];
		err = bpf_setsockopt(sk, IPPROTO_TCP, TCP_KEEPCNT, &v, sizeof(v));
	}
	if (!err && was[USER_TIMEOUT] != w->to[USER_TIMEOUT]) {
		v = w->to[USER_TIMEOUT];
		err = bpf_setsockopt(sk, IPPROTO_TCP, TCP_USER_TIMEOUT, &v, sizeof(v));
	}
	if (!err && was[KEEPALIVE] != w->to[KEEPALIVE]) {
		v = w->to[KEEPALIVE];
		err = bpf_setsockopt(sk, SOL_SOCKET, SO_KEEPALIVE, &v, sizeof(v));
	}
	if (!err) {
		v = w->to[IDLE];
		err = bpf_setsockopt(sk, IPPROTO_TCP, TCP_KEEPIDLE, &v, sizeof(v));
	}
	return err;
}

/* judge says what to do with a socket whose options are as they were expected, or not. */
static __always_inline __u32 judge(const __s32 *was, const struct wish *w)
{
	__u32 outcome = w->set == WAS_SET ? OUTCOME_SET : OUTCOME_SAME;

	if (w->set == ONLY_READ)
		return OUTCOME_READ;
#pragma unroll
	for (int i = 0; i < OPTIONS; i++) {
		if (was[i] == w->to[i])
			continue;
		if (was[i] != w->from[i] && was[i] != w->also[i])
			return OUTCOME_CHANGED;
		outcome = OUTCOME_SET;
	}
	return outcome;
}

SEC("iter/tcp")
int options(struct bpf_iter__tcp *ctx)
{
	struct sock_common *common = ctx->sk_common;
	struct answer a = {};

	if (!common)
		return 0;
	__u8 state = common->skc_state;
	struct tcp_sock *sk = bpf_skc_to_tcp_sock(common);
	if (!sk) /* what waits for the end of TIME_WAIT, or of a handshake */
		return 0;
	a.cookie = bpf_get_socket_cookie(sk);
	struct wish *w = bpf_map_lookup_elem(&wishes, &a.cookie);
	if (!w)
		return 0;

	/* The keepalive timer of a socket that was closed already is its FIN_WAIT2 timer. */
	if (state != TCP_ESTABLISHED && state != TCP_CLOSE_WAIT) {
		a.outcome = OUTCOME_STATE;
	} else if (bpf_core_field_exists(sk->is_mptcp) && sk->is_mptcp) {
		a.outcome = OUTCOME_MULTIPATH;
	} else {
		a.error = read_options(sk, a.was);
		a.outcome = a.error ? OUTCOME_FAILED : judge(a.was, w);
		if (a.outcome == OUTCOME_SET && w->set == SET) {
			a.error = set_options(sk, a.was, w);
			if (a.error)
				a.outcome = OUTCOME_FAILED;
			else
				w->set = WAS_SET;
		}
	}
	bpf_seq_write(ctx->meta->seq, &a, sizeof(a));
	return 0;
}

/* Iterators and bpf_seq_write are for programs that name the GPL. */
char __license[] SEC("license") = "GPL";
