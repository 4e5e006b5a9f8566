/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */

/*
 * The few members of the kernel's types that the programs here read. CO-RE
 * moves each access to where the running kernel has the member, so only names
 * and nesting matter: order, offsets and what is left out do not.
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

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

/* include/linux/pid.h, include/linux/sched.h */
struct upid {
	int nr;
};

struct pid {
	unsigned int level;
	struct upid numbers[1];
};

struct task_struct {
	int pid;
	int tgid;
	struct pid *thread_pid;
	struct task_struct *group_leader;
};

/* include/linux/fs.h, include/linux/net.h */
struct inode {
	unsigned long i_ino;
};

struct file {
	struct inode *f_inode;
};

struct proto_ops {
	int family;
};

struct socket {
	short type;
	struct sock *sk;
	struct proto_ops *ops;
};

/* include/net/net_namespace.h */
struct ns_common {
	unsigned int inum;
};

struct net {
	struct ns_common ns;
};

typedef struct {
	struct net *net;
} possible_net_t;

/* include/net/sock.h; SOCK_KEEPOPEN numbers a bit of skc_flags */
struct sock_common {
	unsigned long skc_flags;
	possible_net_t skc_net;
};

struct sock {
	struct sock_common __sk_common;
};

enum sock_flags {
	SOCK_KEEPOPEN = 3,
};

/* include/net/inet_connection_sock.h, include/linux/tcp.h */
struct inet_connection_sock {
	__u32 icsk_user_timeout; /* milliseconds */
};

struct tcp_sock {
	struct inet_connection_sock inet_conn;
	unsigned int keepalive_time;  /* jiffies; 0 = the sysctl */
	unsigned int keepalive_intvl; /* jiffies; 0 = the sysctl */
	__u8 keepalive_probes;	      /* 0 = the sysctl */
};

/* kernel/bpf/task_iter.c */
struct seq_file;

struct bpf_iter_meta {
	struct seq_file *seq;
};

struct bpf_iter__task_file {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
	__u32 fd;
	struct file *file;
};

#pragma clang attribute pop
