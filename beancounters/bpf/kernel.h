/* The few kernel structures that the programs look into, each with the fields they read. CO-RE finds where a running kernel has them. */
#ifndef VZ_KERNEL_H
#define VZ_KERNEL_H

typedef unsigned char __u8;
typedef signed char __s8;
typedef unsigned short __u16;
typedef short __s16;
typedef unsigned int __u32;
typedef int __s32;
typedef unsigned long long __u64;
typedef long long __s64;
typedef __u16 __be16;
typedef __u32 __be32;
typedef __u32 __wsum;

/* linux/bpf.h, which would bring the host's headers with it. */
enum { BPF_MAP_TYPE_HASH = 1, BPF_MAP_TYPE_ARRAY = 2 };
enum { BPF_ANY = 0, BPF_NOEXIST = 1 };
enum { BPF_F_NO_PREALLOC = 1 << 0, BPF_F_MMAPABLE = 1 << 10 };

#define EPERM 1
#define EAGAIN 11
#define ENOMEM 12
#define EEXIST 17
#define ENFILE 23
#define ENOSPC 28
#define ENOLCK 37
#define ENOBUFS 105

#define AF_UNIX 1
#define AF_INET 2
#define AF_INET6 10
#define AF_PACKET 17
#define SOCK_STREAM 1
#define SOL_SOCKET 1
#define SO_SNDBUFFORCE 32
#define SO_RCVBUFFORCE 33
#define TCP_LISTEN 10
#define IPPROTO_IP 0
#define IPPROTO_TCP 6
#define IPPROTO_IPV6 41
#define IPPROTO_MPTCP 262
#define NETLINK_NETFILTER 12

#define SB_KERNMOUNT (1 << 22)
#define VM_NORESERVE 0x00200000
#define MAP_SHARED 1
#define PAGE_SHIFT 12
#define PAGE_SIZE (1 << PAGE_SHIFT)
#define F_UNLCK 2
#define UCOUNT_RLIMIT_SIGPENDING 2

#define S_IFMT 0170000
#define S_IFSOCK 0140000
#define S_IFCHR 0020000

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

typedef struct {
	__s64 counter;
} atomic64_t;

struct ucounts {
	atomic64_t rlimit[4];
};

struct user_namespace {
	int level;
	struct user_namespace *parent;
	struct ucounts *ucounts;
};

struct cred {
	struct user_namespace *user_ns;
};

struct bpf_map {
	__u32 max_entries;
};

struct kernfs_node {
	__u64 id;
};

struct cgroup_root {
	int hierarchy_id;
};

struct cgroup {
	int level;
	struct kernfs_node *kn;
	struct cgroup_root *root;
	struct cgroup *ancestors[1];
};

struct css_set {
	struct cgroup *dfl_cgrp;
};

typedef struct {
	__u32 val;
} kuid_t;

struct super_block {
	unsigned long s_flags;
	unsigned long s_magic;
};

struct inode {
	unsigned short i_mode;
	kuid_t i_uid;
	struct super_block *i_sb;
	__u32 i_rdev;
	long long i_size;
};

struct file {
	struct inode *f_inode;
	const struct cred *f_cred;
};

struct shmem_inode_info {
	unsigned long flags;
	unsigned long alloced;
	struct inode vfs_inode;
};

struct atomic_counter {
	long counter;
};

struct rw_semaphore {
	struct atomic_counter owner;
};

struct file_lock {
	struct file *fl_file;
};

struct file_lock_core {
	struct file *flc_file;
};

/* Since 6.9 its first part is that of a lease, too. */
struct file_lock___6_9 {
	struct file_lock_core c;
};

struct mm_struct {
	struct rw_semaphore mmap_lock;
	unsigned long total_vm;
	unsigned long locked_vm;
	unsigned long data_vm;
	unsigned long stack_vm;
	unsigned long def_flags;
};

struct rlimit {
	unsigned long rlim_cur;
};

struct signal_struct {
	struct rlimit rlim[16];
};

struct kern_ipc_perm {
	int id;
};

struct shmid_kernel {
	struct kern_ipc_perm shm_perm; /* the first, here as there */
	struct file *shm_file;
	unsigned long shm_segsz;
};

struct task_struct {
	unsigned int flags;
	struct mm_struct *mm;
	const struct cred *real_cred;
	const struct cred *cred;
	struct css_set *cgroups;
	struct signal_struct *signal;
};

struct net_generic;

struct netns_nftables {
	__u8 gencursor;
};

struct net {
	struct user_namespace *user_ns;
	struct net_generic *gen;
	struct netns_nftables nft;
};

struct list_head {
	struct list_head *next;
};

struct nftables_pernet {
	struct list_head tables;
};

struct nft_table {
	struct list_head list; /* the first, here as there */
	struct list_head chains;
	__u16 family : 6;
	__u16 genmask : 2;
	char *name;
};

struct nft_chain {
	struct list_head rules;
	struct list_head list;
	__u8 genmask : 2;
	char *name;
};

struct nft_rule {
	struct list_head list; /* the first, here as there */
	__u64 genmask : 2;
};

struct netlink_notify {
	struct net *net;
	int protocol;
};

typedef struct {
	struct net *net;
} possible_net_t;

struct sock_common {
	unsigned short skc_family;
	volatile unsigned char skc_state;
	possible_net_t skc_net;
	struct sock *skc_listener;
};

typedef struct {
	int counter;
} atomic_t;

typedef struct {
	atomic_t refs;
} refcount_t;

struct sk_buff_head {
	__u32 qlen;
};

struct sock {
	struct sock_common __sk_common;
	struct sk_buff_head sk_receive_queue;
	struct {
		atomic_t rmem_alloc;
	} sk_backlog;
	int sk_sndbuf;
	int sk_wmem_queued;
	refcount_t sk_wmem_alloc;
	__u16 sk_protocol;
	__u16 sk_type;
};

struct tcp_sock {
	__u32 rcv_nxt;
};

struct request_sock {
	struct sock_common __req_common;
};

struct sk_buff {
	struct sock *sk;
	unsigned int len;
	unsigned char *data;
	unsigned int truesize;
};

struct msghdr;

struct socket {
	short type;
	struct sock *sk;
};

struct socket_alloc {
	struct socket socket;
	struct inode vfs_inode;
};

struct pt_regs {
	unsigned long r10;
	unsigned long r8;
	unsigned long cx;
	unsigned long si;
	unsigned long di;
	unsigned long orig_ax;
};

struct cgroup_subsys_state {
	struct cgroup *cgroup;
};

struct memcg_vmstats {
	long state[1];
};

struct mem_cgroup {
	struct cgroup_subsys_state css;
	struct memcg_vmstats *vmstats;
};

#pragma clang attribute pop

/* Their values are the running kernel's, by name (bpf_core_enum_value). */
enum memcg_stat_item { MEMCG_KMEM = 1 };
enum node_stat_item { NR_SLAB_RECLAIMABLE_B = 1 };

#endif
