/* The maps, and the three ways to charge: HARD refuses above the barrier or the limit, SOFT above the limit, FORCE never (K6 kernel/bc/). */
#ifndef VZ_CHARGE_H
#define VZ_CHARGE_H

#include "layout.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>
#include "table.h"

char LICENSE[] SEC("license") = "GPL";

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct host);
} host SEC(".maps");

/* cgroup id of a container to the number of its slot */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, SLOTS);
	__type(key, __u64);
	__type(value, __u32);
} containers SEC(".maps");

/* An array, because user space maps it: a barrier is raised by one store, beside the additions of the programs. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SLOTS);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct slot);
} slots SEC(".maps");

/* What exists and was charged. */
TABLE(charges, struct charge, 5)

enum manner { HARD, SOFT, FORCE };

static __always_inline struct task_struct *current(void)
{
	return (void *)bpf_get_current_task_btf();
}

/* Of the system call of the running task. */
static __always_inline const struct pt_regs *registers(void)
{
	return (void *)bpf_task_pt_regs(current());
}

/* Everything in a container is in a user namespace. What is not is the host's own, and is let through at no more than the price of this. */
static __always_inline int of_the_host(const struct cred *cred)
{
	return cred->user_ns->level == 0;
}

/* The container of the running task: of its ancestors' ids only those at depths where containers lie are looked up. */
static __always_inline struct slot *current_slot(__u32 *number)
{
	__u32 zero = 0;
	struct host *h;

	if (of_the_host(current()->cred))
		return 0;
	h = bpf_map_lookup_elem(&host, &zero);
	if (!h)
		return 0;
#pragma unroll
	for (int i = 0; i < LEVELS; i++) {
		__u32 level = h->levels[i];
		__u64 id;
		__u32 *found;

		if (!level)
			return 0; /* they are filled from the first */
		id = bpf_get_current_ancestor_cgroup_id(level);
		if (!id)
			continue;
		found = bpf_map_lookup_elem(&containers, &id);
		if (found) {
			*number = *found;
			return bpf_map_lookup_elem(&slots, number);
		}
	}
	return 0;
}

/* The container that a cgroup is, or is in. Those of cgroup v1 have ids of their own. */
static __always_inline struct slot *slot_of_cgroup(const struct cgroup *cgroup)
{
	const void *ancestors = (const void *)cgroup + bpf_core_field_offset(struct cgroup, ancestors);
	__u32 zero = 0, depth;
	struct host *h = bpf_map_lookup_elem(&host, &zero);

	if (!h || !h->levels[0] || BPF_CORE_READ(cgroup, root, hierarchy_id))
		return 0;
	depth = BPF_CORE_READ(cgroup, level);
#pragma unroll
	for (int i = 0; i < LEVELS; i++) {
		__u32 level = h->levels[i], *number;
		const struct cgroup *ancestor;
		__u64 id;

		if (!level)
			return 0;
		if (level > depth || bpf_probe_read_kernel(&ancestor, sizeof(ancestor), ancestors + level * sizeof(ancestor)))
			continue;
		id = BPF_CORE_READ(ancestor, kn, id);
		number = bpf_map_lookup_elem(&containers, &id);
		if (number)
			return bpf_map_lookup_elem(&slots, number);
	}
	return 0;
}

/*
 * Remembers a refusal, at most one a second of each resource, so that a loop that is refused does not wash out all others. A packet is refused
 * while any task runs: one of somebody else is not told.
 */
static __noinline void tell(struct slot *slot, __u32 resource, __u64 wanted, __u32 at_limit)
{
	__u64 now = bpf_ktime_get_boot_ns(), told, number, ids;
	struct counter *counter;
	struct event *event;
	__u32 task_of, own;

	if (!slot || resource >= RESOURCES)
		return;
	counter = &slot->counters[resource];
	told = counter->told_ns;
	if (told && now - told < 1000000000ULL)
		return;
	if (__sync_val_compare_and_swap(&counter->told_ns, told, now) != told)
		return;
	number = __sync_fetch_and_add(&slot->events, 1);
	event = &slot->ring[number & (EVENTS - 1)];
	__sync_lock_test_and_set(&event->sequence, 0);
	ids = bpf_get_current_pid_tgid();
	own = current_slot(&task_of) == slot;
	event->boottime_ns = now;
	event->held = counter->held;
	event->wanted = wanted;
	event->bound = at_limit ? counter->limit : counter->barrier;
	event->failcnt = counter->failcnt;
	event->resource = resource;
	event->at_limit = at_limit;
	event->pid = own ? ids >> 32 : 0;
	event->tid = own ? (__u32)ids : 0;
	event->comm[0] = 0;
	if (own)
		bpf_get_current_comm(event->comm, sizeof(event->comm));
	__sync_lock_test_and_set(&event->sequence, number + 1);
}

static __always_inline void refuse(struct slot *slot, __u32 resource, __u64 wanted, __u32 at_limit)
{
	__sync_fetch_and_add(&slot->counters[resource].failcnt, 1);
	tell(slot, resource, wanted, at_limit);
}

static __always_inline void seen(struct counter *counter, __u64 held)
{
	for (int i = 0; i < 8; i++) {
		__u64 max = counter->maxheld;

		if (held <= max || __sync_val_compare_and_swap(&counter->maxheld, max, held) == max)
			return;
	}
}

/* Whether `amount` more may be had; then it is held. Compared and swapped, not added and taken back: for a moment that would refuse others. */
static __always_inline int may_hold(struct slot *slot, __u32 resource, __u64 amount, enum manner manner)
{
	struct counter *counter = &slot->counters[resource];
	__u64 barrier = counter->barrier, limit = counter->limit;
	__u32 at_limit = manner == SOFT || limit < barrier;
	__u64 bound = at_limit ? limit : barrier;

	for (int i = 0; i < 16 && manner != FORCE; i++) {
		__u64 held = counter->held;

		if (held + amount > bound) {
			refuse(slot, resource, amount, at_limit);
			return 0;
		}
		if (__sync_val_compare_and_swap(&counter->held, held, held + amount) == held) {
			seen(counter, held + amount);
			return 1;
		}
	}
	seen(counter, __sync_fetch_and_add(&counter->held, amount) + amount);
	return 1;
}

/* The slot that something was charged to; none if it is another container's by now. */
static __always_inline struct slot *slot_of_use(__u32 number, __u32 generation)
{
	struct slot *slot = bpf_map_lookup_elem(&slots, &number);

	return slot && slot->generation == generation ? slot : 0;
}

static __always_inline struct slot *slot_of(const struct charge *charge)
{
	return slot_of_use(charge->slot, charge->generation);
}

static __always_inline void release(const struct charge *charge)
{
	__u32 resource = charge->resource, also = charge->also;
	struct slot *slot = slot_of(charge);

	if (!slot || resource >= RESOURCES || also >= RESOURCES)
		return;
	__sync_fetch_and_sub(&slot->counters[resource].held, charge->amount);
	if (also)
		__sync_fetch_and_sub(&slot->counters[also].held, 1);
}

/* Whether `amount` more would not be too much; nothing is held for it. Below zero is what others were charged with and this one gave back. */
static __always_inline int has_room(const struct slot *slot, __u32 resource, __u64 amount)
{
	const struct counter *counter = &slot->counters[resource];
	__u64 barrier = counter->barrier, limit = counter->limit;

	return (__s64)(counter->held + amount) <= (__s64)(limit < barrier ? limit : barrier);
}

static __always_inline void refuse_for_want_of_room(struct slot *slot, __u32 resource, __u64 amount)
{
	refuse(slot, resource, amount, slot->counters[resource].limit < slot->counters[resource].barrier);
}

/* Whether there may be `amount` more, for what is charged only once it is there. */
static __always_inline int may_have(struct slot *slot, __u32 resource, __u64 amount)
{
	if (has_room(slot, resource, amount))
		return 1;
	refuse_for_want_of_room(slot, resource, amount);
	return 0;
}

/*
 * Whether the kernel may have more memory for a container: its counter is raised by the page (kmem.bpf.c). What it could give back of it is not
 * in the way: K6 threw that away before it refused.
 */
static __always_inline int may_have_kernel_memory(struct slot *slot)
{
	if (has_room(slot, KMEMSIZE, PAGE_SIZE - slot->counters[DCACHESIZE].held))
		return 1;
	refuse_for_want_of_room(slot, KMEMSIZE, PAGE_SIZE);
	return 0;
}

/*
 * Charges `amount` for what lies at `object` to the running task's container; -`error` is a refusal, and -ENOMEM one for want of kernel memory. What is
 * charged already is left alone, so that two versions of a program may run beside each other while one takes over. Without room in `charges`
 * it is allowed and said, never leaked.
 */
static __always_inline int charge_all(const void *object, __u32 resource, __u64 amount, enum manner manner, int error)
{
	__u64 key = (__u64)object;
	struct charge charge = { .resource = resource, .amount = amount };
	__u32 number;
	struct slot *slot = current_slot(&number);
	long failed;

	if (!slot)
		return 0;
	charge.slot = number;
	charge.generation = slot->generation;
	failed = charges_put(key, &charge);
	if (failed) {
		if (failed != -EEXIST)
			__sync_fetch_and_add(&slot->uncharged, 1);
		return 0;
	}
	if (manner == HARD && !may_have_kernel_memory(slot))
		error = ENOMEM;
	else if (may_hold(slot, resource, amount, manner))
		return 0;
	charges_take(key, &charge);
	return -error;
}

static __always_inline int charge(const void *object, __u32 resource, enum manner manner, int error)
{
	return charge_all(object, resource, 1, manner, error);
}

/* Of what is there already, and was not asked for. */
static __always_inline void charge_anyway(const void *object, __u32 resource, __u64 amount)
{
	charge_all(object, resource, amount, FORCE, 0);
}

/* The charge of what lies at `object`; if it has none, the running task's container is charged with `amount`. */
static __always_inline struct charge *charge_of(const void *object, __u32 resource, __u64 amount)
{
	__u64 key = (__u64)object;
	struct charge *found = charges_find(key), new = { .resource = resource, .amount = amount };
	struct slot *slot;
	__u32 number;
	long failed;

	if (found)
		return found;
	slot = current_slot(&number);
	if (!slot)
		return 0;
	new.slot = number;
	new.generation = slot->generation;
	failed = charges_put(key, &new);
	if (!failed)
		may_hold(slot, resource, amount, FORCE);
	else if (failed != -EEXIST)
		__sync_fetch_and_add(&slot->uncharged, 1);
	return charges_find(key);
}

/* Makes a charge what there is now. */
static __always_inline void settle_charge(struct charge *charge, __u32 resource, __u64 now)
{
	struct slot *slot = slot_of(charge);
	__u64 before;

	if (!slot || now == charge->amount)
		return;
	before = __sync_lock_test_and_set(&charge->amount, now);
	if (now > before)
		may_hold(slot, resource, now - before, FORCE);
	else
		__sync_fetch_and_sub(&slot->counters[resource].held, before - now);
}

/* Gives back what was charged for `object`, whoever drops it. */
static __always_inline void uncharge(const void *object)
{
	struct charge charge;

	if (charges_take((__u64)object, &charge))
		release(&charge);
}

#endif
