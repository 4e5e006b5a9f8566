//go:build ignore

/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */

/*
 * owners writes one record for every file descriptor, of every process in the
 * reader's PID namespace and those below, that refers to a socket.
 *
 * It reads the options in the same pass, although iter/tcp would find them too,
 * because iter/tcp must be run again in each network namespace. The price is
 * that a socket without a descriptor, such as one that waits in an accept
 * queue, has no options.
 */
#include "kernel.h"

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

#define AF_INET	    2
#define AF_INET6    10
#define SOCK_STREAM 1

#define MAX_PID_NS_LEVEL 32

/* What the program writes: 32 bytes, no padding, in this machine's order. */
struct record {
	__u32 pid; /* of the process, as the reader numbers it */
	__u32 fd;
	__u32 inode;
	__u32 netns; /* of a TCP socket, 0 of others */
	__u32 keepalive_time;
	__u32 keepalive_intvl;
	__u32 user_timeout;
	__u8 keepalive_probes;
	__u8 tcp;	/* the options are those of a TCP socket */
	__u8 keepalive; /* SO_KEEPALIVE */
	__u8 thread;	/* from a thread that has a file table of its own */
};

/* Types of local variables leave no trace; bpf2go finds this one by the pointer. */
const struct record *unused_record __attribute__((unused));

/*
 * process_id returns the number that the reader knows the task's process by,
 * 0 when the process is gone: task->tgid is what the initial namespace calls
 * it. The verifier follows no pointer at a variable distance, hence the copy.
 */
static __always_inline __u32 process_id(struct task_struct *task)
{
	struct pid *pid = task->group_leader->thread_pid;
	__u32 level = bpf_get_current_task_btf()->thread_pid->level;
	__u32 nr = 0;

	level &= MAX_PID_NS_LEVEL - 1;
	bpf_probe_read_kernel(&nr, sizeof(nr),
			      (void *)pid + bpf_core_field_offset(struct pid, numbers) +
				      level * bpf_core_type_size(struct upid) +
				      bpf_core_field_offset(struct upid, nr));
	return nr;
}

/*
 * tcp_of returns the socket as a TCP socket, 0 when it is none. What a pass
 * costs is the memory it touches, and socket is read anyway, so family and type
 * are asked of it: the sock of what is not TCP stays untouched. The helper does
 * not ask for the type, and would take a raw socket of protocol 6 for TCP
 * (bpf_skc_to_tcp_sock in net/core/filter.c).
 */
static __always_inline struct tcp_sock *tcp_of(struct socket *socket)
{
	int family = socket->ops->family;

	if (socket->type != SOCK_STREAM || (family != AF_INET && family != AF_INET6) || !socket->sk)
		return 0;
	return bpf_skc_to_tcp_sock(socket->sk);
}

SEC("iter/task_file")
int owners(struct bpf_iter__task_file *ctx)
{
	struct task_struct *task = ctx->task;
	struct file *file = ctx->file;
	struct record r = {};

	if (!task || !file)
		return 0;
	struct socket *socket = bpf_sock_from_file(file);
	if (!socket)
		return 0;

	r.pid = process_id(task);
	if (!r.pid)
		return 0;
	r.fd = ctx->fd;
	r.inode = file->f_inode->i_ino;
	r.thread = task->pid != task->tgid;

	struct tcp_sock *tp = tcp_of(socket);
	if (tp) {
		struct sock_common *sk = &socket->sk->__sk_common;

		r.tcp = 1;
		r.netns = sk->skc_net.net->ns.inum;
		r.keepalive = sk->skc_flags >> bpf_core_enum_value(enum sock_flags, SOCK_KEEPOPEN) & 1;
		r.keepalive_time = tp->keepalive_time;
		r.keepalive_intvl = tp->keepalive_intvl;
		r.keepalive_probes = tp->keepalive_probes;
		r.user_timeout = tp->inet_conn.icsk_user_timeout;
	}
	bpf_seq_write(ctx->meta->seq, &r, sizeof(r));
	return 0;
}

/* bpf_seq_write and bpf_probe_read_kernel are for programs that name the GPL. */
char __license[] SEC("license") = "GPL";
