/*
 * What the programs and user space share: `beancounters/src/bpf/layout.rs` has the same in Rust, and both assert the same numbers. A change
 * of anything here is another layout: raise LAYOUT there, and both live beside each other.
 */
#ifndef VZ_LAYOUT_H
#define VZ_LAYOUT_H

#include "kernel.h"

/* The numbers of `Resource::LIVE`. */
enum resource {
	KMEMSIZE,
	LOCKEDPAGES,
	PRIVVMPAGES,
	SHMPAGES,
	NUMPROC,
	PHYSPAGES,
	VMGUARPAGES,
	OOMGUARPAGES,
	NUMTCPSOCK,
	NUMFLOCK,
	NUMPTY,
	NUMSIGINFO,
	TCPSNDBUF,
	TCPRCVBUF,
	OTHERSOCKBUF,
	DGRAMRCVBUF,
	NUMOTHERSOCK,
	DCACHESIZE,
	NUMFILE,
	NUMIPTENT,
	SWAPPAGES,
	RESOURCES,
};

#define SLOTS 2048	/* containers at one time */
#define EVENTS 16	/* refusals remembered of each; a power of two */
#define LEVELS 4	/* depths of the cgroup tree at which containers may lie */
#define UNLIMITED 0x7fffffffffffffffULL

struct counter {
	__u64 held;
	__u64 maxheld;
	__u64 barrier;
	__u64 limit;
	__u64 failcnt;
	__u64 told_ns;	/* when the last refusal became an event */
};

struct event {
	__u64 sequence;		/* from 1; 0 while it is being written */
	__u64 boottime_ns;
	__u64 held;
	__u64 wanted;		/* how much more was asked for */
	__u64 bound;		/* the barrier or the limit that refused */
	__u64 failcnt;		/* with this one */
	__u32 resource;
	__u32 at_limit;		/* 0: the barrier, 1: the limit */
	__u32 pid;
	__u32 tid;
	char comm[16];
};

struct slot {
	__u64 cgroup;		/* 0: free */
	__u32 generation;	/* of its use: what was charged to an earlier container is not given back to this one */
	__u32 level;		/* of the cgroup, from the root */
	__u64 uncharged;	/* what was allowed without counting it, for want of room in `charges` */
	__u64 events;		/* written so far */
	struct counter counters[RESOURCES];
	struct event ring[EVENTS];
};

/* To whom something that exists is charged. The key is its address. */
struct charge {
	__u16 slot;
	__u8 resource;
	__u8 also;		/* a second resource, charged one of; 0 is none */
	__u32 generation;
	__u64 amount;
};

/* To whom the buffers of a socket are charged, and how much of them. The key is the address of the kernel's socket. */
struct buffers {
	__u32 slot;
	__u32 generation;
	__u32 tcp;
	__u32 reserved;		/* what a write that is going on may bring `sent` to */
	__u64 received;
	__u64 sent;
};

struct host {
	__u32 levels[LEVELS];	/* where containers are looked for; 0 is none */
};

#define offset(type, field) __builtin_offsetof(type, field)
_Static_assert(RESOURCES == 21, "");
_Static_assert(sizeof(struct counter) == 48 && offset(struct counter, failcnt) == 32, "");
_Static_assert(sizeof(struct event) == 80 && offset(struct event, resource) == 48 && offset(struct event, comm) == 64, "");
_Static_assert(sizeof(struct slot) == 2320 && offset(struct slot, counters) == 32 && offset(struct slot, ring) == 1040, "");
_Static_assert(sizeof(struct host) == 16 && sizeof(struct charge) == 16 && sizeof(struct buffers) == 32, "");

#endif
