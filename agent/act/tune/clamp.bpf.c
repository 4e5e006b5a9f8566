//go:build ignore

/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */

/*
 * established gives each new connection of a cgroup keepalive no slacker than
 * the limits; limited keeps its program from making it slacker afterwards, as
 * Go programs do with the first thing that they say to a connection.
 */
#include "kernel.h"

#include <bpf/bpf_helpers.h>

struct ceiling {
	__s32 idle;	/* seconds */
	__s32 interval; /* seconds */
	__s32 count;
	__s32 user_timeout; /* milliseconds; 0: not touched */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct ceiling);
} limits SEC(".maps");

static __always_inline struct ceiling *the_limits(void)
{
	__u32 first = 0;

	return bpf_map_lookup_elem(&limits, &first);
}

/*
 * lower sets an option that is above its limit. A kernel that does not tell
 * (bpf_getsockopt knows these options since Linux 6.1) is told. Zero is what
 * TCP_USER_TIMEOUT has when it has none.
 */
static __always_inline void lower(struct bpf_sock_ops *ops, int name, __s32 limit, int always)
{
	__s32 v = 0;

	if (!limit)
		return;
	if (bpf_getsockopt(ops, IPPROTO_TCP, name, &v, sizeof(v)))
		v = 0;
	if (v && v <= limit && !always)
		return;
	if (!v || v > limit)
		v = limit;
	bpf_setsockopt(ops, IPPROTO_TCP, name, &v, sizeof(v));
}

SEC("sockops")
int established(struct bpf_sock_ops *ops)
{
	struct ceiling *l = the_limits();
	__s32 on = 1;

	if (!l || (ops->op != BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB && ops->op != BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB))
		return 1;
	lower(ops, TCP_KEEPINTVL, l->interval, 0);
	lower(ops, TCP_KEEPCNT, l->count, 0);
	lower(ops, TCP_USER_TIMEOUT, l->user_timeout, 0);
	bpf_setsockopt(ops, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
	lower(ops, TCP_KEEPIDLE, l->idle, 1); /* last, and in any case: it sets the timer */
	return 1;
}

SEC("cgroup/setsockopt")
int limited(struct bpf_sockopt *ctx)
{
	struct ceiling *l = the_limits();
	__s32 *value = (void *)(long)ctx->optval;
	struct bpf_sock *sk = ctx->sk;
	__s32 limit = 0;

	if (!l || !sk || (sk->protocol != IPPROTO_TCP && sk->protocol != IPPROTO_MPTCP))
		return 1;
	if ((void *)(value + 1) > (void *)(long)ctx->optval_end)
		return 1;
	if (ctx->level == SOL_SOCKET && ctx->optname == SO_KEEPALIVE) {
		if (!*value)
			*value = 1;
		return 1;
	}
	if (ctx->level != IPPROTO_TCP)
		return 1;
	if (ctx->optname == TCP_KEEPIDLE)
		limit = l->idle;
	else if (ctx->optname == TCP_KEEPINTVL)
		limit = l->interval;
	else if (ctx->optname == TCP_KEEPCNT)
		limit = l->count;
	if (limit && *value > limit)
		*value = limit;
	return 1;
}

char __license[] SEC("license") = "GPL";
