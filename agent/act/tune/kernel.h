/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */

/*
 * The few types of the kernel that the programs here name. CO-RE moves each
 * access to where the running kernel has the member; what belongs to its user
 * interface (bpf_sock_ops, bpf_sockopt, bpf_sock) is where it always is.
 */
#pragma once

typedef signed int __s32;
typedef signed long long __s64;
typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef unsigned long long __u64;
typedef __u16 __be16;
typedef __u32 __be32;
typedef __u32 __wsum;

/* include/uapi/linux/bpf.h */
enum {
	BPF_MAP_TYPE_HASH = 1,
	BPF_MAP_TYPE_ARRAY = 2,
};

enum {
	BPF_F_NO_PREALLOC = 1,
};

enum {
	BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB = 4,
	BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB = 5,
};

struct bpf_sock_ops {
	__u32 op;
};

struct bpf_sock {
	__u32 bound_dev_if;
	__u32 family;
	__u32 type;
	__u32 protocol;
};

struct bpf_sockopt {
	struct bpf_sock *sk;
	__u64 optval; /* a pointer, as optval_end is */
	__u64 optval_end;
	__s32 level;
	__s32 optname;
	__s32 optlen;
	__s32 retval;
};

/* include/uapi/asm-generic/socket.h, include/uapi/linux/in.h and tcp.h */
#define SOL_SOCKET	 1
#define SO_KEEPALIVE	 9
#define IPPROTO_TCP	 6
#define IPPROTO_MPTCP	 262
#define TCP_KEEPIDLE	 4
#define TCP_KEEPINTVL	 5
#define TCP_KEEPCNT	 6
#define TCP_USER_TIMEOUT 18

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

/* include/net/sock.h, include/net/tcp_states.h */
struct sock_common {
	volatile unsigned char skc_state;
};

/* include/linux/tcp.h; not there without CONFIG_MPTCP */
struct tcp_sock {
	_Bool is_mptcp;
};

enum {
	TCP_ESTABLISHED = 1,
	TCP_CLOSE_WAIT = 8,
};

/* kernel/bpf/bpf_iter.c, net/ipv4/tcp_ipv4.c */
struct seq_file;

struct bpf_iter_meta {
	struct seq_file *seq;
};

struct bpf_iter__tcp {
	struct bpf_iter_meta *meta;
	struct sock_common *sk_common;
};

#pragma clang attribute pop
