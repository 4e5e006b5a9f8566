//go:build ignore

/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */

/*
 * opener keeps, with each socket that is opened while it is loaded, who opened
 * it: the process, when, and the stack of its code. What it keeps is local
 * storage of the socket, so the kernel forgets it with the socket; nothing is
 * done when a descriptor is closed, copied or passed on.
 *
 * A socket that connects is seen in the cgroup hooks of connect(2). One that was
 * accepted is seen in those of getsockname(2), which Go's package net calls right
 * after accept4(2). Where the kernel has no such hooks for unix sockets (before
 * 6.7), the tracepoints of the system calls see both, and records are kept by
 * inode.
 */
#include "kernel.h"

#define AF_UNIX	 1
#define AF_INET	 2
#define AF_INET6 10

#define DEPTH	  48 /* calls of a stack that are kept */
#define ANCESTORS 3  /* goroutines: who started the one that opened, and so on */

enum how {
	CONNECTED = 1,
	NAMED = 2, /* by getsockname: accepted, or an old one */
	ACCEPTED = 3,
};

/* What is kept with a socket. Times are of CLOCK_MONOTONIC. */
struct birth {
	__u64 born;
	__u64 used; /* when it last sent or received */
	__u64 uses;
	__u64 cookie; /* 0: not known */
	__u64 opened; /* stacks, by their key */
	__u64 asked[ANCESTORS];
	__u64 last;	 /* that used it last; of the 1st, 2nd, 4th, 8th use and so on */
	__u64 transport; /* address of the http.Transport that it was opened for */
	__u32 pid;
	__u32 exec; /* tells the programs apart that a process ran in turn */
	__u32 how;
	__u32 inode; /* only where records are kept by inode */
};

/* A socket with what is kept: 152 bytes, then its path, rounded up to 8 bytes. */
struct row {
	struct birth birth;
	__u32 inode;
	__u32 peer;  /* inode of the other end of a unix socket */
	__u32 netns;
	__u16 local_port;
	__be16 remote_port;
	__be32 local[4];
	__be32 remote[4];
	__u8 family;
	__u8 state;
	__u8 type;
	__u8 path; /* bytes of it, of a unix socket: its own, or that of the other end */
	__u8 own;  /* the path is its own: it was accepted */
	__u8 pad[3];
};

const struct row *unused_row __attribute__((unused));

/* A stack of a process, innermost call first: the first is where it was, the others return addresses. */
struct stack {
	__u64 opened; /* how many sockets */
	__u32 pid;
	__u16 calls;
	__u8 logical; /* as the Go runtime keeps them: one for each inlined call too */
	__u8 busy;
	__u64 at[DEPTH];
};

/* Where the fields of runtime.g are in the program of a process; 0: there is none. */
struct layout {
	__u32 goid, parent, creator, ancestors;
};

struct goroutine {
	__u32 pid, pad;
	__u64 id;
	__u64 creator; /* where its go statement returns to */
};

struct start {
	__u64 stack;
	__u64 parent;	/* of the goroutine that ran the go statement */
	__u64 creator;
};

struct pointer {
	__u64 address;
	__u32 pid, pad;
};

struct request {
	__u64 stack;
	__u64 transport;
};

struct dial {
	__u64 id; /* of the goroutine, which is not always the one at this address */
	__u64 wanted;
};

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct birth);
} births SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, __u64);
	__type(value, struct stack);
} stacks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct stack);
} scratch SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, struct layout);
} layouts SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct goroutine);
	__type(value, struct start);
} starts SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct pointer); /* of a net/http.wantConn */
	__type(value, struct request);
} requests SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct pointer); /* of a runtime.g */
	__type(value, struct dial);
} dials SEC(".maps");

/* Descriptors between the beginning of connect(2) and its end, by thread. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, __u64);
	__type(value, __u32);
} connecting SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 262144);
	__type(key, __u32); /* inode */
	__type(value, struct birth);
} inodes SEC(".maps");

__u64 left;	   /* for how many sockets there is room still: the reader says so after each pass */
__u64 dropped;	   /* sockets that found none */
__u64 clashes;	   /* stacks that were not kept, as another was being walked */
__u64 go_statements; /* that were seen */
__u32 level;	   /* of the reader's PID namespace */
__u32 canary;	     /* the descriptor by which connect_begins knows the reader's own call */
__u32 stack_size;  /* of the kernel's, for kernels that do not say where the registers are */

/* process_id returns the number by which the reader knows the current process, 0 when it does not. */
static __always_inline __u32 process_id(struct task_struct *task)
{
	if (!level)
		return bpf_get_current_pid_tgid() >> 32;

	struct pid *pid = BPF_CORE_READ(task, group_leader, thread_pid);
	__u32 nr = 0, at = level & 31;

	if (BPF_CORE_READ(pid, level) < at)
		return 0; /* the reader's namespace does not have it */
	bpf_probe_read_kernel(&nr, sizeof(nr),
			      (void *)pid + bpf_core_field_offset(struct pid, numbers) + at * bpf_core_type_size(struct upid) +
				      bpf_core_field_offset(struct upid, nr));
	return nr;
}

/* What is of use of the registers of a program. */
struct registers {
	__u64 pc, sp, fp, g;
};

static __always_inline struct registers registers_of(void *from)
{
	struct registers r = {};
	struct pt_regs___x86 *x86 = from;
	struct pt_regs___arm64 *arm64 = from;

	if (bpf_core_field_exists(x86->bp)) {
		r.pc = BPF_CORE_READ(x86, ip);
		r.sp = BPF_CORE_READ(x86, sp);
		r.fp = BPF_CORE_READ(x86, bp);
		r.g = BPF_CORE_READ(x86, r14);
	} else if (bpf_core_field_exists(arm64->user_regs.pc)) {
		r.pc = BPF_CORE_READ(arm64, user_regs.pc);
		r.sp = BPF_CORE_READ(arm64, user_regs.sp);
		r.fp = BPF_CORE_READ(arm64, user_regs.regs[29]);
		r.g = BPF_CORE_READ(arm64, user_regs.regs[28]);
	}
	return r;
}

/*
 * user_registers returns those with which the current thread entered the
 * kernel. Before Linux 5.15 no helper says where they are: at the top of the
 * kernel's stack (task_pt_regs of arch/x86 and arch/arm64), with nothing above
 * them in kernels of that time.
 */
static __always_inline struct registers user_registers(void)
{
	if (bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_task_pt_regs))
		return registers_of((void *)bpf_task_pt_regs(bpf_get_current_task_btf()));
	struct task_struct *task = (void *)bpf_get_current_task();
	return registers_of(BPF_CORE_READ(task, stack) + stack_size - bpf_core_type_size(struct pt_regs));
}

/* begin takes the place to walk a stack in, 0 when another walk is under way on this processor. */
static __always_inline struct stack *begin(__u32 pid)
{
	__u32 first = 0;
	struct stack *s = bpf_map_lookup_elem(&scratch, &first);

	if (!s || s->busy) {
		__sync_fetch_and_add(&clashes, 1);
		return 0;
	}
	s->busy = 1;
	s->pid = pid;
	s->logical = 0;
	s->opened = 0;
	s->calls = 0;
	return s;
}

/* walk follows the frame pointers of a program that was at pc. */
static __always_inline void walk(struct stack *s, __u64 pc, __u64 fp)
{
	__u64 frame[2];
	__u32 n = 1;

	s->at[0] = pc;
	for (int i = 1; i < DEPTH; i++) {
		if (!fp || fp & 7 || bpf_probe_read_user(frame, sizeof(frame), (void *)fp) || !frame[1])
			break;
		s->at[i] = frame[1];
		n++;
		if (frame[0] <= fp)
			break;
		fp = frame[0];
	}
	s->calls = n;
}

/* end keeps the stack and returns its key, 0 for none. */
static __always_inline __u64 end(struct stack *s, int opened)
{
	__u64 key = 14695981039346656037ULL ^ s->pid;

	for (int i = 0; i < DEPTH; i++) {
		if (i >= s->calls)
			break;
		key = (key ^ s->at[i]) * 1099511628211ULL;
		key ^= key >> 29;
	}
	if (!key || !s->calls) {
		s->busy = 0;
		return 0;
	}
	struct stack *kept = bpf_map_lookup_elem(&stacks, &key);
	if (kept) {
		if (opened)
			__sync_fetch_and_add(&kept->opened, 1);
		s->busy = 0;
		return key;
	}
	s->opened = opened;
	s->busy = 0; /* what is kept is never busy; a walk that interrupts now is seen by its own key */
	bpf_map_update_elem(&stacks, &key, s, BPF_ANY);
	return key;
}

/*
 * goroutine reports whether r.g is a goroutine of the program with this layout,
 * running on its own stack, and reads its identity: the register has something
 * else in code that is not Go's.
 */
static __always_inline int goroutine(struct registers *r, struct layout *at, __u32 pid, struct goroutine *g, __u64 *parent)
{
	__u64 bounds[2];

	if (bpf_probe_read_user(bounds, sizeof(bounds), (void *)r->g) || r->sp < bounds[0] || r->sp > bounds[1])
		return 0;
	g->pid = pid;
	bpf_probe_read_user(&g->id, 8, (void *)(r->g + at->goid));
	bpf_probe_read_user(&g->creator, 8, (void *)(r->g + at->creator));
	*parent = 0;
	if (at->parent)
		bpf_probe_read_user(parent, 8, (void *)(r->g + at->parent));
	return 1;
}

/* runtime.ancestorInfo, runtime/runtime2.go */
struct ancestor {
	__u64 pcs, count, capacity, goid, gopc;
};

/* ancestors takes over what the Go runtime keeps with GODEBUG=tracebackancestors=N. */
static __always_inline int ancestors(struct birth *b, struct registers *r, struct layout *at)
{
	__u64 slice = 0, head[2];
	int found = 0;

	bpf_probe_read_user(&slice, 8, (void *)(r->g + at->ancestors));
	if (!slice || bpf_probe_read_user(head, sizeof(head), (void *)slice))
		return 0;
	for (int i = 0; i < ANCESTORS; i++) {
		struct ancestor a;

		if (i >= head[1] || bpf_probe_read_user(&a, sizeof(a), (void *)(head[0] + i * sizeof(a))))
			break;
		__u32 n = a.count > DEPTH ? DEPTH : a.count;
		struct stack *s = begin(b->pid);
		if (!s)
			break;
		s->logical = 1;
		if (n && !bpf_probe_read_user(s->at, n * 8, (void *)a.pcs))
			s->calls = n;
		b->asked[i] = end(s, 0);
		found = 1;
	}
	return found;
}

/* asked finds out who asked for a socket that a goroutine opens for another. */
static __always_inline void asked(struct birth *b, struct registers *r)
{
	struct layout *at = bpf_map_lookup_elem(&layouts, &b->pid);
	struct goroutine g = {};
	__u64 parent;

	if (!at || !at->goid || !goroutine(r, at, b->pid, &g, &parent))
		return;
	struct pointer p = {.address = r->g, .pid = b->pid};
	struct dial *d = bpf_map_lookup_elem(&dials, &p);
	if (d && d->id == g.id) {
		p.address = d->wanted;
		struct request *wanted = bpf_map_lookup_elem(&requests, &p);
		if (wanted) {
			b->asked[0] = wanted->stack;
			b->transport = wanted->transport;
		}
	}
	if (at->ancestors && ancestors(b, r, at))
		return;
	g.id = parent;
	for (int i = 0; i < ANCESTORS; i++) {
		struct start *s = bpf_map_lookup_elem(&starts, &g);
		if (!s)
			break;
		if (i || !b->asked[0])
			b->asked[i] = s->stack;
		g.id = s->parent;
		g.creator = s->creator;
	}
}

/* describe fills in who opens a socket now. It returns 0 for whom the reader cannot know, or for whom there is no room. */
static __always_inline int describe(struct birth *b, __u32 how)
{
	struct task_struct *task = (void *)bpf_get_current_task();

	b->pid = process_id(task);
	if (!b->pid)
		return 0;
	if ((__s64)left <= 0) {
		__sync_fetch_and_add(&dropped, 1);
		return 0;
	}
	__sync_fetch_and_add(&left, -1);
	struct registers r = user_registers();
	b->born = b->used = bpf_ktime_get_ns();
	b->how = how;
	b->exec = BPF_CORE_READ(task, self_exec_id);
	struct stack *s = begin(b->pid);
	if (s) {
		walk(s, r.pc, r.fp);
		b->opened = end(s, 1);
	}
	asked(b, &r);
	return 1;
}

/* struct bpf_sock_addr of include/uapi/linux/bpf.h, as far as it is used */
struct address {
	__u32 before[16];
	struct bpf_sock *sk;
};

static __always_inline int see(struct address *ctx, __u32 how)
{
	struct birth b = {};

	if (!ctx->sk || bpf_sk_storage_get(&births, ctx->sk, 0, 0))
		return 1;
	if (describe(&b, how)) {
		b.cookie = bpf_get_socket_cookie(ctx);
		bpf_sk_storage_get(&births, ctx->sk, &b, BPF_SK_STORAGE_GET_F_CREATE);
	}
	return 1; /* it may go on */
}

SEC("cgroup/connect4")
int connect4(struct address *ctx) { return see(ctx, CONNECTED); }

SEC("cgroup/connect6")
int connect6(struct address *ctx) { return see(ctx, CONNECTED); }

SEC("cgroup/connect_unix")
int connect_unix(struct address *ctx) { return see(ctx, CONNECTED); }

SEC("cgroup/getsockname4")
int named4(struct address *ctx) { return see(ctx, NAMED); }

SEC("cgroup/getsockname6")
int named6(struct address *ctx) { return see(ctx, NAMED); }

SEC("cgroup/getsockname_unix")
int named_unix(struct address *ctx) { return see(ctx, NAMED); }

/* use notes that a socket sends or receives, and by which code at times that become rarer. */
static __always_inline int use(struct sock *sk)
{
	struct birth *b = bpf_sk_storage_get(&births, sk, 0, 0);

	if (!b)
		return 0;
	b->used = bpf_ktime_get_ns();
	b->uses++;
	if (b->uses & (b->uses - 1))
		return 0;
	struct stack *s = begin(b->pid);
	if (s) {
		struct registers r = user_registers();

		walk(s, r.pc, r.fp);
		b->last = end(s, 0);
	}
	return 0;
}

/* sent(struct sock *sk, int ret, int flags) */
SEC("tp_btf/sock_send_length")
int sent(__u64 *ctx) { return use((void *)ctx[0]); }

/* received(struct sock *sk, int ret, int flags) */
SEC("tp_btf/sock_recv_length")
int received(__u64 *ctx) { return (int)ctx[1] > 0 ? use((void *)ctx[0]) : 0; }

static __always_inline __u32 inode_of(struct sock *sk)
{
	return sk ? BPF_CORE_READ(sk, sk_socket, file, f_inode, i_ino) : 0;
}

static __always_inline void ends(struct row *r, struct sock *sk)
{
	struct sock_common *c = &sk->__sk_common;

	r->local_port = BPF_CORE_READ(c, skc_num);
	r->remote_port = BPF_CORE_READ(c, skc_dport);
	if (r->family == AF_INET) {
		r->local[0] = BPF_CORE_READ(c, skc_rcv_saddr);
		r->remote[0] = BPF_CORE_READ(c, skc_daddr);
	} else if (bpf_core_field_exists(c->skc_v6_daddr)) {
		bpf_core_read(r->local, sizeof(r->local), &c->skc_v6_rcv_saddr);
		bpf_core_read(r->remote, sizeof(r->remote), &c->skc_v6_daddr);
	}
}

/* path reads the name that one end of a unix connection has. */
static __always_inline void path(struct row *r, struct sock *sk, char *name)
{
	struct unix_sock *u = (void *)sk, *peer = (void *)BPF_CORE_READ(u, peer);
	struct unix_address *a = BPF_CORE_READ(u, addr);

	r->peer = inode_of((void *)peer);
	r->own = a && BPF_CORE_READ(a, len) > 2;
	if (!r->own)
		a = peer ? BPF_CORE_READ(peer, addr) : 0;
	if (!a)
		return;
	int len = BPF_CORE_READ(a, len) - 2;
	if (len <= 0 || len > 108)
		return;
	bpf_probe_read_kernel(name, 108, &a->name[0].sun_path);
	r->path = len;
}

/*
 * dump writes a row for every file descriptor of a socket that has a record: the
 * iterator over local storage itself (iter/bpf_sk_storage_map) begins its few lists
 * anew for each 32 KiB, which takes seconds for 100,000 sockets.
 */
SEC("iter/task_file")
int dump(struct bpf_iter__task_file *ctx)
{
	struct task_struct *reader = (void *)bpf_get_current_task();
	struct file *file = ctx->file;
	char name[112] = {};
	struct row r = {};

	level = BPF_CORE_READ(reader, thread_pid, level);
	if (!file)
		return 0;
	struct socket *socket = bpf_sock_from_file(file);
	if (!socket || !socket->sk)
		return 0;
	struct sock *sk = socket->sk;
	struct birth *b = bpf_sk_storage_get(&births, sk, 0, 0);
	if (!b)
		return 0;
	r.birth = *b;
	r.inode = BPF_CORE_READ(file, f_inode, i_ino);
	r.netns = BPF_CORE_READ(sk, __sk_common.skc_net.net, ns.inum);
	r.family = BPF_CORE_READ(sk, __sk_common.skc_family);
	r.state = BPF_CORE_READ(sk, __sk_common.skc_state);
	r.type = BPF_CORE_READ(sk, sk_type);
	if (r.family == AF_UNIX)
		path(&r, sk, name);
	else
		ends(&r, sk);
	bpf_seq_write(ctx->meta->seq, &r, sizeof(r));
	if (r.path)
		bpf_seq_write(ctx->meta->seq, name, (r.path + 7) & 0x78);
	return 0;
}

/* found notes the socket that a descriptor of the current thread refers to. */
static __always_inline int found(__u32 fd, __u32 how)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct fdtable *table = BPF_CORE_READ(task, files, fdt);
	struct file *file = 0, **files = BPF_CORE_READ(table, fd);
	struct birth b = {};

	if (fd >= BPF_CORE_READ(table, max_fds) || bpf_probe_read_kernel(&file, sizeof(file), files + fd) || !file)
		return 0;
	b.inode = BPF_CORE_READ(file, f_inode, i_ino);
	if (b.inode && describe(&b, how))
		bpf_map_update_elem(&inodes, &b.inode, &b, BPF_ANY);
	return 0;
}

SEC("tracepoint/syscalls/sys_enter_connect")
int connect_begins(struct trace_event_raw_sys_enter *ctx)
{
	__u64 thread = bpf_get_current_pid_tgid();
	__u32 fd = ctx->args[0];
	struct task_struct *task = (void *)bpf_get_current_task();

	if (canary && fd == canary) {
		level = BPF_CORE_READ(task, thread_pid, level);
		canary = 0;
		return 0;
	}
	bpf_map_update_elem(&connecting, &thread, &fd, BPF_ANY);
	return 0;
}

SEC("tracepoint/syscalls/sys_exit_connect")
int connect_ends(struct trace_event_raw_sys_exit *ctx)
{
	__u64 thread = bpf_get_current_pid_tgid();
	__u32 *fd = bpf_map_lookup_elem(&connecting, &thread), which;

	if (!fd)
		return 0;
	which = *fd;
	bpf_map_delete_elem(&connecting, &thread);
	return ctx->ret == 0 || ctx->ret == -115 /* EINPROGRESS */ ? found(which, CONNECTED) : 0;
}

SEC("tracepoint/syscalls/sys_exit_accept")
int accepted(struct trace_event_raw_sys_exit *ctx) { return ctx->ret >= 0 ? found(ctx->ret, ACCEPTED) : 0; }

SEC("tracepoint/syscalls/sys_exit_accept4")
int accepted4(struct trace_event_raw_sys_exit *ctx) { return ctx->ret >= 0 ? found(ctx->ret, ACCEPTED) : 0; }

/*
 * What follows runs in one program at a time, for some minutes, where the
 * runtime does not keep ancestors. Arguments are in registers, as in ABIInternal
 * of Go 1.17 (amd64) and 1.18 (arm64).
 */
static __always_inline int entered(void *ctx, struct registers *r, struct layout **at, struct goroutine *g, __u64 *parent, __u64 *back)
{
	struct pt_regs___x86 *x86 = ctx;
	struct pt_regs___arm64 *arm64 = ctx;
	__u32 pid = process_id((void *)bpf_get_current_task());

	*at = bpf_map_lookup_elem(&layouts, &pid);
	if (!*at || !(*at)->goid)
		return 0;
	*r = registers_of(ctx);
	if (bpf_core_field_exists(x86->bp)) {
		if (bpf_probe_read_user(back, 8, (void *)r->sp))
			return 0;
	} else {
		*back = BPF_CORE_READ(arm64, user_regs.regs[30]);
	}
	return goroutine(r, *at, pid, g, parent);
}

static __always_inline __u64 argument(void *ctx, int second)
{
	struct pt_regs___x86 *x86 = ctx;
	struct pt_regs___arm64 *arm64 = ctx;

	if (bpf_core_field_exists(x86->bp))
		return second ? BPF_CORE_READ(x86, bx) : BPF_CORE_READ(x86, ax);
	return second ? BPF_CORE_READ(arm64, user_regs.regs[1]) : BPF_CORE_READ(arm64, user_regs.regs[0]);
}

static __always_inline __u64 caller(struct registers *r, __u32 pid, __u64 back)
{
	struct stack *s = begin(pid);

	if (!s)
		return 0;
	/* back is a return address, where walk expects the place itself: the reader takes one off all but the first. */
	walk(s, back - 1, r->fp);
	return end(s, 0);
}

/* func newproc(fn *funcval) of package runtime: a go statement. */
SEC("uprobe/newproc")
int go_statement(void *ctx)
{
	struct registers r;
	struct layout *at;
	struct goroutine g = {};
	struct start s = {};
	__u64 back;

	__sync_fetch_and_add(&go_statements, 1);
	if (!entered(ctx, &r, &at, &g, &s.parent, &back))
		return 0;
	s.creator = g.creator;
	s.stack = caller(&r, g.pid, back);
	g.creator = back;
	bpf_map_update_elem(&starts, &g, &s, BPF_ANY);
	return 0;
}

/* func (t *Transport) queueForDial(w *wantConn) of package net/http */
SEC("uprobe/queueForDial")
int queue_for_dial(void *ctx)
{
	struct registers r;
	struct layout *at;
	struct goroutine g = {};
	struct request wanted = {.transport = argument(ctx, 0)};
	struct pointer p = {.address = argument(ctx, 1)};
	__u64 parent, back;

	if (!entered(ctx, &r, &at, &g, &parent, &back))
		return 0;
	p.pid = g.pid;
	wanted.stack = caller(&r, g.pid, back);
	bpf_map_update_elem(&requests, &p, &wanted, BPF_ANY);
	return 0;
}

/* func (t *Transport) dialConnFor(w *wantConn) of package net/http: begins the goroutine that dials. */
SEC("uprobe/dialConnFor")
int dial_conn_for(void *ctx)
{
	struct registers r;
	struct layout *at;
	struct goroutine g = {};
	struct dial d = {.wanted = argument(ctx, 1)};
	__u64 parent, back;

	if (!entered(ctx, &r, &at, &g, &parent, &back))
		return 0;
	d.id = g.id;
	struct pointer p = {.address = r.g, .pid = g.pid};
	bpf_map_update_elem(&dials, &p, &d, BPF_ANY);
	return 0;
}

/* bpf_probe_read_user, bpf_seq_write and others are for programs that name the GPL. */
char __license[] SEC("license") = "GPL";
