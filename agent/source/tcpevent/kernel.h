/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */

/* What the programs here know of the kernel. */
#pragma once

typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef unsigned long long __u64;
typedef signed int __s32;
typedef signed long long __s64;
typedef __u16 __be16;
typedef __u32 __be32;
typedef __u32 __wsum;

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

/*
 * The few members of the kernel's types that are read here. CO-RE moves each
 * access to where the running kernel has the member.
 */
#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

/* include/net/net_namespace.h */
struct ns_common {
	unsigned int inum;
};

struct netns_ipv4 {
	int sysctl_tcp_keepalive_time; /* jiffies */
};

struct net {
	struct ns_common ns;
	struct netns_ipv4 ipv4;
};

typedef struct {
	struct net *net;
} possible_net_t;

/* include/uapi/linux/in6.h */
struct in6_addr {
	union {
		__be32 u6_addr32[4];
	} in6_u;
};

typedef struct {
	__s64 counter;
} atomic64_t;

/* include/net/sock.h */
struct sock_common {
	unsigned long skc_flags;
	int skc_bound_dev_if;
	__be32 skc_daddr;
	__be32 skc_rcv_saddr;
	__be16 skc_dport;
	__u16 skc_num;
	unsigned short skc_family;
	volatile unsigned char skc_state;
	possible_net_t skc_net;
	struct in6_addr skc_v6_daddr; /* CONFIG_IPV6 */
	struct in6_addr skc_v6_rcv_saddr;
	atomic64_t skc_cookie;
};

enum sock_flags {
	SOCK_KEEPOPEN,
};

/* include/linux/timer.h */
struct timer_list {
	void *function;
};

struct sock {
	struct sock_common __sk_common;
	struct timer_list sk_timer;
};

/* include/net/inet_connection_sock.h, include/linux/tcp.h; times are jiffies */
struct inet_connection_sock {
	struct timer_list icsk_keepalive_timer; /* of kernels since 2025 */
	__u32 icsk_user_timeout;		/* milliseconds */
	__u8 icsk_retransmits;
	__u8 icsk_probes_out;
	struct {
		__u32 lrcvtime; /* data came in */
	} icsk_ack;
};

struct tcp_sock {
	struct inet_connection_sock inet_conn;
	__u32 packets_out;
	__u32 write_seq;
	__u32 snd_nxt;
	__u32 rcv_tstamp; /* an acknowledgement came in */
	unsigned int keepalive_time;
};

#pragma clang attribute pop
