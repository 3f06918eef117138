/*
 * numiptent: rules of nftables, in each network namespace of a container. The kernel takes them in batches: a message to netlink that is carried
 * out as a whole or not at all. No program may refuse what a batch comes to, once the kernel knows it. So it is judged by what it says, when it
 * is sent; and all rules are counted anew when it is about to hold, which is when nobody else can change them.
 */
#include "filter.h"

/* A batch that a task is sending. The key is the task. */
struct delivery {
	__u32 slot;
	__u32 generation;
	__u64 rules;		/* it adds */
	__u64 reserved;		/* held for it until it holds or has failed */
	__u64 reloading;	/* what it adds, if it takes others away */
	__u64 skb;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1 << 16);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u64);
	__type(value, struct delivery);
} deliveries SEC(".maps");

/* The sums of a slot's. */
struct filter {
	__u64 batches;
	__u64 reserved;
	__u64 reloading;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SLOTS);
	__type(key, __u32);
	__type(value, struct filter);
} filters SEC(".maps");

static __always_inline struct filter *filter_of(const struct charge *charge)
{
	__u32 number = charge->slot;

	return bpf_map_lookup_elem(&filters, &number);
}

/*
 * After what happens outside of batches: a table is gone with its socket, a chain with its device. While more than `own` batches are being carried
 * out, what is there may be less than what is counted already, and theirs is a count of its own.
 */
static __always_inline void count_anew(const struct net *net, struct charge *charge, __u64 own)
{
	struct filter *filter = filter_of(charge);
	__u64 rules;

	if (!filter || filter->batches > own)
		return;
	rules = rules_in(net, PRESENT, charge->amount);
	if (filter->batches <= own)
		settle_charge(charge, NUMIPTENT, rules);
}

static __always_inline __s64 counted(const struct counter *counter, const struct filter *filter)
{
	return counter->held - filter->reserved;
}

/* Holds so many for a batch, if they are within the bound. */
static __always_inline int reserve(struct counter *counter, struct filter *filter, struct delivery *delivery, __u64 rules, __u64 bound)
{
	for (int i = 0; i < 16; i++) {
		__u64 held = counter->held;

		if ((__s64)(held + rules) > (__s64)bound)
			return 0;
		if (__sync_val_compare_and_swap(&counter->held, held, held + rules) == held)
			break;
		if (i == 15)
			__sync_fetch_and_add(&counter->held, rules);
	}
	delivery->reserved = rules;
	__sync_fetch_and_add(&filter->reserved, rules);
	return 1;
}

/*
 * Whether a batch may be sent that takes some away before it adds others. What it names may be gone when it is carried out, or named twice. So the
 * bound may be passed, by twice as much at the most: no more is being added at a moment by such batches, and above the bound nothing is added until
 * enough was taken away by itself.
 */
static __always_inline int may_reload(struct counter *counter, struct filter *filter, struct delivery *delivery, struct batch *batch, __u64 bound)
{
	__s64 there = counted(counter, filter), fewer = batch->fewer, more = batch->rules - batch->gone;
	__u64 others;

	if (there > (__s64)bound || batch->rules > 2 * bound)
		return 0;
	if (there < 0)
		there = 0;
	more -= fewer < there ? fewer : there;
	if (more > 0 && !reserve(counter, filter, delivery, more, bound))
		return 0;
	others = __sync_fetch_and_add(&filter->reloading, batch->rules);
	if (others && others + batch->rules > 2 * bound) {
		__sync_fetch_and_sub(&filter->reloading, batch->rules);
		__sync_fetch_and_sub(&counter->held, delivery->reserved);
		__sync_fetch_and_sub(&filter->reserved, delivery->reserved);
		delivery->reserved = 0;
		return 0;
	}
	delivery->reloading = batch->rules;
	return 1;
}

static __always_inline void forget(__u64 task, const struct delivery *delivery)
{
	struct delivery was = *delivery;
	struct filter *filter = bpf_map_lookup_elem(&filters, &was.slot);
	struct slot *slot = slot_of_use(was.slot, was.generation);

	bpf_map_delete_elem(&deliveries, &task);
	if (slot)
		__sync_fetch_and_sub(&slot->counters[NUMIPTENT].held, was.reserved);
	if (!filter)
		return;
	__sync_fetch_and_sub(&filter->reserved, was.reserved);
	__sync_fetch_and_sub(&filter->reloading, was.reloading);
	__sync_fetch_and_sub(&filter->batches, 1);
}

static __always_inline int may_send(struct slot *slot, struct filter *filter, struct delivery *delivery, struct batch *batch)
{
	struct counter *counter = &slot->counters[NUMIPTENT];
	__u64 barrier = counter->barrier, limit = counter->limit, bound = limit < barrier ? limit : barrier;

	if (!batch->rules || bound >= UNLIMITED)
		return 1;
	return batch->takes_away ? may_reload(counter, filter, delivery, batch, bound) : reserve(counter, filter, delivery, batch->rules, bound);
}

/* One that is new to us is counted. Not inline: all of it together needs more stack than Linux 6.1 gives. */
static __noinline struct charge *charge_of_namespace(struct net *net)
{
	struct charge *charge = charges_find((__u64)net);

	return charge ? charge : charge_of(net, NUMIPTENT, rules_in(net, PRESENT, 0));
}

SEC("lsm/netlink_send")
int BPF_PROG(vz_filter_send, struct sock *sk, struct sk_buff *skb)
{
	__u64 task = bpf_get_current_pid_tgid();
	struct delivery new = {}, *found;
	struct batch batch;
	struct filter *filter;
	struct charge *charge;
	struct slot *slot;
	struct net *net;

	if (sk->sk_protocol != NETLINK_NETFILTER)
		return 0;
	slot = current_slot(&new.slot);
	filter = slot ? bpf_map_lookup_elem(&filters, &new.slot) : 0;
	if (!filter)
		return 0;
	net = sk->__sk_common.skc_net.net;
	read_batch(&batch, net, skb);
	if (!batch.rules && !batch.takes_away)
		return 0;
	charge = charge_of_namespace(net);
	new.generation = slot->generation;
	new.rules = batch.rules;
	new.skb = (__u64)skb;
	found = bpf_map_lookup_elem(&deliveries, &task);
	if (found && found->skb == new.skb)
		return 0; /* another version of this program has seen to it */
	if (found)
		forget(task, found); /* nobody was called when it was done */
	if (bpf_map_update_elem(&deliveries, &task, &new, BPF_NOEXIST)) {
		__sync_fetch_and_add(&slot->uncharged, 1);
		return 0;
	}
	found = bpf_map_lookup_elem(&deliveries, &task);
	if (!found)
		return 0;
	if (may_send(slot, filter, found, &batch))
		goto send;
	/* There may be fewer by now. */
	if (charge) {
		count_anew(net, charge, 0);
		if (may_send(slot, filter, found, &batch))
			goto send;
	}
	bpf_map_delete_elem(&deliveries, &task);
	refuse(slot, NUMIPTENT, batch.rules, slot->counters[NUMIPTENT].limit < slot->counters[NUMIPTENT].barrier);
	return -ENOMEM;
send:
	__sync_fetch_and_add(&filter->batches, 1);
	return 0;
}

/*
 * The batch was understood and will hold. What was held for it makes place for what it is, in one step: it counts neither twice nor, for a moment,
 * not at all. A namespace in which no container has sent any is the host's.
 */
SEC("fentry/nf_tables_commit")
int BPF_PROG(vz_filter_commit, struct net *net)
{
	__u64 task = bpf_get_current_pid_tgid(), key = (__u64)net, rules, reserved = 0;
	struct charge *charge = charges_find(key);
	struct delivery *delivery = bpf_map_lookup_elem(&deliveries, &task);
	struct filter *filter;
	struct counter *counter;
	struct slot *slot;
	__s64 change;

	slot = charge ? slot_of(charge) : 0;
	filter = charge ? filter_of(charge) : 0;
	if (!slot || !filter)
		return 0;
	if (delivery && delivery->slot != charge->slot)
		delivery = 0;
	rules = rules_in(net, NEXT, charge->amount + (delivery ? delivery->rules : 0));
	if (delivery) {
		reserved = delivery->reserved;
		delivery->reserved = 0;
	}
	counter = &slot->counters[NUMIPTENT];
	change = rules - __sync_lock_test_and_set(&charge->amount, rules) - reserved;
	__sync_fetch_and_add(&counter->held, change);
	if (reserved)
		__sync_fetch_and_sub(&filter->reserved, reserved);
	change = counted(counter, filter);
	if (change > 0)
		seen(counter, change);
	return 0;
}

/* It does not hold after all. */
SEC("fexit/nf_tables_commit")
int BPF_PROG(vz_filter_failed, struct net *net, struct sk_buff *skb, int said)
{
	__u64 key = (__u64)net;
	struct charge *charge = said ? charges_find(key) : 0;

	if (charge)
		count_anew(net, charge, 1);
	return 0;
}

SEC("fexit/netlink_sendmsg")
int BPF_PROG(vz_filter_sent)
{
	__u64 task = bpf_get_current_pid_tgid();
	struct delivery *delivery;

	if (of_the_host(current()->cred))
		return 0;
	delivery = bpf_map_lookup_elem(&deliveries, &task);
	if (delivery)
		forget(task, delivery);
	return 0;
}

/* A socket is gone, and its tables with it. */
SEC("fexit/nft_rcv_nl_event")
int BPF_PROG(vz_filter_socket, void *block, unsigned long event, struct netlink_notify *notify)
{
	struct net *net = BPF_CORE_READ(notify, net);
	__u64 key = (__u64)net;
	struct charge *charge;

	if (BPF_CORE_READ(notify, protocol) != NETLINK_NETFILTER)
		return 0;
	charge = charges_find(key);
	if (charge)
		count_anew(net, charge, 0);
	return 0;
}

SEC("fentry/nf_tables_exit_net")
int BPF_PROG(vz_filter_exit, struct net *net)
{
	uncharge(net);
	return 0;
}

#define SYS_SETSOCKOPT 54	/* x86_64 */
#define SYS_SETSOCKOPT_32 366	/* i386 */
#define SYS_SOCKETCALL_32 102
#define IPT_SO_SET_REPLACE 64	/* IP6T_SO_SET_REPLACE as well */
#define ARPT_SO_SET_REPLACE 96
#define EBT_SO_SET_ENTRIES 128
#define ENTRY_BYTES 4096	/* of a table of iptables: more than any entry takes on the average, and the least is 152 */

/* What is set, as the system call has it. */
struct setting {
	__u64 at;
	__u32 bytes;
};

/* What struct ipt_replace and the others begin with. It is in user space, and may change yet. */
struct replacement {
	char table[32];
	__u32 hooks;
	__u32 entries;
};

static __always_inline int find(struct setting *setting)
{
	const struct pt_regs *call = registers();
	__u32 arguments[5];

	switch (BPF_CORE_READ(call, orig_ax)) {
	case SYS_SETSOCKOPT:
		setting->at = BPF_CORE_READ(call, r10);
		setting->bytes = BPF_CORE_READ(call, r8);
		return 1;
	case SYS_SETSOCKOPT_32:
		setting->at = (__u32)BPF_CORE_READ(call, si);
		setting->bytes = BPF_CORE_READ(call, di);
		return 1;
	case SYS_SOCKETCALL_32:
		if (bpf_probe_read_user(arguments, sizeof(arguments), (void *)(__u64)(__u32)BPF_CORE_READ(call, cx)))
			return 0;
		setting->at = arguments[3];
		setting->bytes = arguments[4];
		return 1;
	}
	return 0;
}

/*
 * A table of iptables' own, which is set as a whole: each by itself, beside the rules of nftables. Who changes what it says before the kernel reads
 * it is bound by its size.
 */
SEC("lsm/socket_setsockopt")
int BPF_PROG(vz_filter_table, struct socket *socket, int level, int option)
{
	struct replacement replacement = {};
	struct setting setting = {};
	struct counter *counter;
	__u64 bound, entries;
	struct slot *slot;
	__u32 number;
	__s64 held;

	if (level == IPPROTO_IPV6 ? option != IPT_SO_SET_REPLACE
				  : level != IPPROTO_IP || (option != IPT_SO_SET_REPLACE && option != ARPT_SO_SET_REPLACE && option != EBT_SO_SET_ENTRIES))
		return 0;
	slot = current_slot(&number);
	if (!slot)
		return 0;
	counter = &slot->counters[NUMIPTENT];
	bound = counter->limit < counter->barrier ? counter->limit : counter->barrier;
	if (bound >= UNLIMITED)
		return 0;
	if (!find(&setting)) {
		entries = bound + 1; /* not by a call that iptables would make */
	} else {
		bpf_probe_read_user(&replacement, sizeof(replacement), (void *)setting.at);
		entries = setting.bytes / ENTRY_BYTES;
		if (entries < replacement.entries)
			entries = replacement.entries;
	}
	held = counter->held;
	if ((held > 0 ? held : 0) + entries <= bound)
		return 0;
	refuse(slot, NUMIPTENT, entries, counter->limit < counter->barrier);
	return -ENOMEM;
}
