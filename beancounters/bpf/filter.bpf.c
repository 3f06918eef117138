/*
 * numiptent: rules of nftables, in each network namespace of a container. The kernel takes them in batches: a message to netlink that is carried
 * out as a whole or not at all. No program may refuse what a batch comes to, once the kernel knows it. So it is judged by what it says, when it
 * is sent; and all rules are counted anew when it is about to hold, which is when nobody else can change them.
 */
#include "charge.h"

#define NFNL_SUBSYS_NFTABLES 10
#define NFNL_MSG_BATCH_END 17
#define NLM_F_REPLACE 0x100

/* linux/netfilter/nf_tables.h, after NFNL_SUBSYS_NFTABLES; the last three since 6.3 */
#define NFT_MSG_DELTABLE 2
#define NFT_MSG_DELCHAIN 5
#define NFT_MSG_NEWRULE 6
#define NFT_MSG_DELRULE 8
#define NFT_MSG_DESTROYTABLE 26
#define NFT_MSG_DESTROYCHAIN 27
#define NFT_MSG_DESTROYRULE 28

#define MOST_MESSAGES (1 << 23)	/* as many as bpf_loop goes through */
#define MOST_STEPS (1 << 22)	/* of a walk over tables, chains and rules */

struct nlmsghdr {
	__u32 length;
	__u16 type;
	__u16 flags;
	__u32 sequence;
	__u32 port;
};

/* A batch that a task is sending. The key is the task. */
struct sending {
	__u32 slot;
	__u32 generation;
	__u64 rules;
	__u64 reserved;		/* held for it until it holds or has failed */
	__u64 reloading;	/* what it adds after taking others away, for which nothing is held */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1 << 16);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u64);
	__type(value, struct sending);
} sending SEC(".maps");

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

/* Where a network namespace has what the module keeps for it. */
extern const void nf_tables_net_id __ksym;

struct batch {
	__u64 at;
	__u64 left;
	__u64 rules;
	__u32 takes_away;
};

static long next_message(__u32 index, struct batch *batch)
{
	struct nlmsghdr message;
	__u64 length;

	if (batch->left < sizeof(message) || bpf_probe_read_kernel(&message, sizeof(message), (void *)batch->at))
		return 1;
	length = ((__u64)message.length + 3) & ~3ULL;
	if (length < sizeof(message) || message.type == NFNL_MSG_BATCH_END)
		return 1;
	switch (message.type ^ NFNL_SUBSYS_NFTABLES << 8) {
	case NFT_MSG_NEWRULE:
		batch->rules += !(message.flags & NLM_F_REPLACE);
		break;
	case NFT_MSG_DELTABLE: case NFT_MSG_DELCHAIN: case NFT_MSG_DELRULE:
	case NFT_MSG_DESTROYTABLE: case NFT_MSG_DESTROYCHAIN: case NFT_MSG_DESTROYRULE:
		batch->takes_away = 1;
	}
	if (length >= batch->left) {
		batch->left = 0;
		return 1;
	}
	batch->at += length;
	batch->left -= length;
	return 0;
}

/* What a batch says. What is too long to be gone through is taken for as many rules as it has room for. */
static __always_inline void read_batch(struct batch *batch, const struct sk_buff *skb)
{
	batch->at = (__u64)skb->data;
	batch->left = skb->len;
	if (bpf_loop(MOST_MESSAGES, next_message, batch, 0) == MOST_MESSAGES)
		batch->rules += batch->left / sizeof(struct nlmsghdr);
}

enum depth { TABLES, CHAINS, RULES, END };

/* Where a walk is, and where the list ends that it is in. */
struct walk {
	__u64 table, tables;
	__u64 chain, chains;
	__u64 rule, rules;
	__u64 found;
	__u32 unborn;	/* the bit of what is not there in the generation that is walked over */
	__u32 depth;
};

static __always_inline __u64 after(__u64 at)
{
	__u64 next = 0;

	bpf_probe_read_kernel(&next, sizeof(next), (void *)at);
	return next;
}

#define IS_THERE(object, walk) (!(BPF_CORE_READ_BITFIELD_PROBED(object, genmask) & (walk)->unborn))

static long step(__u32 index, struct walk *walk)
{
	if (walk->depth == RULES) {
		const struct nft_rule *rule = (void *)(walk->rule = after(walk->rule));

		if (!rule || walk->rule == walk->rules)
			walk->depth = CHAINS;
		else
			walk->found += IS_THERE(rule, walk);
	} else if (walk->depth == CHAINS) {
		const struct nft_chain *chain;

		walk->chain = after(walk->chain);
		chain = (void *)(walk->chain - bpf_core_field_offset(struct nft_chain, list));
		if (!walk->chain || walk->chain == walk->chains) {
			walk->depth = TABLES;
		} else if (IS_THERE(chain, walk)) {
			walk->rule = walk->rules = (__u64)chain + bpf_core_field_offset(struct nft_chain, rules);
			walk->depth = RULES;
		}
	} else {
		const struct nft_table *table = (void *)(walk->table = after(walk->table));

		if (!table || walk->table == walk->tables) {
			walk->depth = END;
			return 1;
		}
		if (IS_THERE(table, walk)) {
			walk->chain = walk->chains = (__u64)table + bpf_core_field_offset(struct nft_table, chains);
			walk->depth = CHAINS;
		}
	}
	return 0;
}

enum generation { PRESENT, NEXT };

/* How many rules there are; `otherwise` if nobody could wait for the answer. */
static __noinline __u64 rules_in(const struct net *net, enum generation generation, __u64 otherwise)
{
	__u32 id = 0, cursor = BPF_CORE_READ(net, nft.gencursor) & 1;
	struct walk walk = {};
	__u64 pernet = 0;

	if (bpf_probe_read_kernel(&id, sizeof(id), &nf_tables_net_id))
		return otherwise;
	bpf_probe_read_kernel(&pernet, sizeof(pernet), (void *)BPF_CORE_READ(net, gen) + id * sizeof(void *));
	if (!pernet)
		return 0;
	walk.table = walk.tables = pernet + bpf_core_field_offset(struct nftables_pernet, tables);
	walk.unborn = 1 << (cursor ^ generation);
	bpf_loop(MOST_STEPS, step, &walk, 0);
	return walk.depth == END ? walk.found : otherwise;
}

/* After what happens outside of batches: a table is gone with its socket, a chain with its device. */
static __always_inline void count_anew(const struct net *net, struct charge *charge)
{
	settle_charge(charge, NUMIPTENT, rules_in(net, PRESENT, charge->amount));
}

static __always_inline __s64 counted(const struct counter *counter, const struct filter *filter)
{
	return counter->held - filter->reserved;
}

/* Holds as many as a batch adds, if they are within the bound. */
static __always_inline int reserve(struct counter *counter, struct filter *filter, struct sending *batch, __u64 bound)
{
	for (int i = 0; i < 16; i++) {
		__u64 held = counter->held;

		if ((__s64)(held + batch->rules) > (__s64)bound)
			return 0;
		if (__sync_val_compare_and_swap(&counter->held, held, held + batch->rules) == held)
			break;
		if (i == 15)
			__sync_fetch_and_add(&counter->held, batch->rules);
	}
	batch->reserved = batch->rules;
	__sync_fetch_and_add(&filter->reserved, batch->reserved);
	return 1;
}

/*
 * Whether a batch may be sent that takes some away before it adds others. How many it will take away nobody knows. Within the bound is what it adds:
 * all that there was may be gone. So the bound may be passed, by as much as that; then nothing is added before enough was taken away by itself.
 */
static __always_inline int may_reload(struct counter *counter, struct filter *filter, struct sending *batch, __u64 bound)
{
	__u64 others;

	if (batch->rules > bound || counted(counter, filter) > (__s64)bound)
		return 0;
	others = __sync_fetch_and_add(&filter->reloading, batch->rules);
	if (others && others + batch->rules > 2 * bound) {
		__sync_fetch_and_sub(&filter->reloading, batch->rules);
		return 0;
	}
	batch->reloading = batch->rules;
	return 1;
}

static __always_inline void forget(__u64 task, const struct sending *batch)
{
	struct sending was = *batch;
	struct filter *filter = bpf_map_lookup_elem(&filters, &was.slot);
	struct slot *slot = slot_of_use(was.slot, was.generation);

	bpf_map_delete_elem(&sending, &task);
	if (slot)
		__sync_fetch_and_sub(&slot->counters[NUMIPTENT].held, was.reserved);
	if (!filter)
		return;
	__sync_fetch_and_sub(&filter->reserved, was.reserved);
	__sync_fetch_and_sub(&filter->reloading, was.reloading);
	__sync_fetch_and_sub(&filter->batches, 1);
}

static __always_inline int may_send(struct slot *slot, struct filter *filter, struct sending *batch, __u32 takes_away)
{
	struct counter *counter = &slot->counters[NUMIPTENT];
	__u64 barrier = counter->barrier, limit = counter->limit, bound = limit < barrier ? limit : barrier;

	if (!batch->rules || bound >= UNLIMITED)
		return 1;
	return takes_away ? may_reload(counter, filter, batch, bound) : reserve(counter, filter, batch, bound);
}

SEC("lsm/netlink_send")
int BPF_PROG(vz_filter_send, struct sock *sk, struct sk_buff *skb)
{
	__u64 task = bpf_get_current_pid_tgid(), key;
	struct sending new = {}, *found;
	struct batch batch = {};
	struct filter *filter;
	struct charge *charge;
	struct slot *slot;
	struct net *net;
	long failed;

	if (sk->sk_protocol != NETLINK_NETFILTER)
		return 0;
	slot = current_slot(&new.slot);
	filter = slot ? bpf_map_lookup_elem(&filters, &new.slot) : 0;
	if (!filter)
		return 0;
	read_batch(&batch, skb);
	if (!batch.rules && !batch.takes_away)
		return 0;
	net = sk->__sk_common.skc_net.net;
	key = (__u64)net;
	charge = bpf_map_lookup_elem(&charges, &key);
	if (!charge)
		charge = charge_of(net, NUMIPTENT, rules_in(net, PRESENT, 0));
	new.generation = slot->generation;
	new.rules = batch.rules;
	failed = bpf_map_update_elem(&sending, &task, &new, BPF_NOEXIST);
	if (failed) {
		if (failed != -EEXIST) /* that it is there already, another version of this program has seen to */
			__sync_fetch_and_add(&slot->uncharged, 1);
		return 0;
	}
	found = bpf_map_lookup_elem(&sending, &task);
	if (!found)
		return 0;
	if (may_send(slot, filter, found, batch.takes_away))
		goto send;
	/* Nothing that is being carried out is in the way of a new count: there may be fewer. */
	if (charge && !filter->batches) {
		count_anew(net, charge);
		if (may_send(slot, filter, found, batch.takes_away))
			goto send;
	}
	bpf_map_delete_elem(&sending, &task);
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
	struct charge *charge = bpf_map_lookup_elem(&charges, &key);
	struct sending *batch = bpf_map_lookup_elem(&sending, &task);
	struct filter *filter;
	struct counter *counter;
	struct slot *slot;
	__s64 change;

	slot = charge ? slot_of(charge) : 0;
	filter = charge ? bpf_map_lookup_elem(&filters, &charge->slot) : 0;
	if (!slot || !filter)
		return 0;
	if (batch && batch->slot != charge->slot)
		batch = 0;
	rules = rules_in(net, NEXT, charge->amount + (batch ? batch->rules : 0));
	if (batch) {
		reserved = batch->reserved;
		batch->reserved = 0;
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
	struct charge *charge = said ? bpf_map_lookup_elem(&charges, &key) : 0;

	if (charge)
		count_anew(net, charge);
	return 0;
}

SEC("fexit/netlink_sendmsg")
int BPF_PROG(vz_filter_sent)
{
	__u64 task = bpf_get_current_pid_tgid();
	struct sending *batch;

	if (of_the_host(current()->cred))
		return 0;
	batch = bpf_map_lookup_elem(&sending, &task);
	if (batch)
		forget(task, batch);
	return 0;
}

/* A socket is gone, and its tables with it. */
SEC("fexit/nft_rcv_nl_event")
int BPF_PROG(vz_filter_socket, void *block, unsigned long event, struct netlink_notify *notify)
{
	struct net *net = BPF_CORE_READ(notify, net);
	__u64 key = (__u64)net;
	struct filter *filter;
	struct charge *charge;

	if (BPF_CORE_READ(notify, protocol) != NETLINK_NETFILTER)
		return 0;
	charge = bpf_map_lookup_elem(&charges, &key);
	filter = charge ? bpf_map_lookup_elem(&filters, &charge->slot) : 0;
	if (filter && !filter->batches)
		count_anew(net, charge);
	return 0;
}

SEC("fentry/nf_tables_exit_net")
int BPF_PROG(vz_filter_exit, struct net *net)
{
	uncharge(net);
	return 0;
}
