/* What a batch of nftables says, and what there is. */
#ifndef VZ_FILTER_H
#define VZ_FILTER_H

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

/* NFTA_TABLE_NAME, NFTA_CHAIN_TABLE and NFTA_RULE_TABLE are one number. */
#define NFTA_TABLE 1
#define NFTA_CHAIN_NAME 3
#define NFTA_RULE_CHAIN 2
#define NFTA_RULE_HANDLE 3
#define NFTA_RULE_ID 9
#define NLA_TYPE 0x3fff

#define MOST_MESSAGES (1 << 23)	/* as many as bpf_loop goes through */
#define MOST_STEPS (1 << 22)	/* of a walk over tables, chains and rules */
#define MOST_ATTRIBUTES 8	/* that are looked at; those that name things are the first */
#define NAME_BYTES 256		/* NFT_NAME_MAXLEN */

/* Where a network namespace has what the module keeps for it. */
extern const void nf_tables_net_id __ksym;

/*
 * All zero, of which the verifier knows nothing: before 6.8 it follows the function of a loop once, and drops what can't be reached the first time.
 * What can't be read is zero.
 */
#define BLANK(object) bpf_probe_read_kernel(&(object), sizeof(object), 0)

struct nlmsghdr {
	__u32 length;
	__u16 type;
	__u16 flags;
	__u32 sequence;
	__u32 port;
	__u8 family; /* the first byte of what follows: struct nfgenmsg */
	__u8 rest[3];
};

struct nlattr {
	__u16 length;
	__u16 type;
};

/* What somebody says, and what it may be: a string. */
struct comparison {
	__u64 said;
	__u64 is;
	__u32 bytes;
	__u32 differs;
};

static long compare(__u32 index, struct comparison *names)
{
	char said = 0, is = 0;

	if (names->bytes)
		bpf_probe_read_kernel(&said, 1, (void *)names->said);
	bpf_probe_read_kernel(&is, 1, (void *)names->is);
	names->differs = said != is;
	if (said != is || !said)
		return 1;
	names->said++;
	names->is++;
	names->bytes--;
	return 0;
}

static __always_inline int is_named(__u64 is, __u64 said, __u32 bytes)
{
	struct comparison names = { .said = said, .is = is, .bytes = bytes };

	bpf_loop(NAME_BYTES, compare, &names, 0);
	return !names.differs;
}

/* Of which tables and chains: by names in a message, or all. */
struct scope {
	__u64 table;
	__u64 chain;
	__u32 table_bytes;
	__u32 chain_bytes;
	__u32 family;
	__u32 one;	/* rule, by its number */
};

enum depth { TABLES, CHAINS, RULES, END };

/* Where a walk is, and where the list ends that it is in. */
struct walk {
	struct scope scope;
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

static __always_inline int is_wanted_table(const struct nft_table *table, const struct walk *walk)
{
	const struct scope *scope = &walk->scope;

	if (!IS_THERE(table, walk) || (scope->family && BPF_CORE_READ_BITFIELD_PROBED(table, family) != scope->family))
		return 0;
	return !scope->table || is_named((__u64)BPF_CORE_READ(table, name), scope->table, scope->table_bytes);
}

static __always_inline int is_wanted_chain(const struct nft_chain *chain, const struct walk *walk)
{
	const struct scope *scope = &walk->scope;

	if (!IS_THERE(chain, walk))
		return 0;
	return !scope->chain || is_named((__u64)BPF_CORE_READ(chain, name), scope->chain, scope->chain_bytes);
}

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
		} else if (is_wanted_chain(chain, walk)) {
			walk->rule = walk->rules = (__u64)chain + bpf_core_field_offset(struct nft_chain, rules);
			walk->depth = RULES;
		}
	} else {
		const struct nft_table *table = (void *)(walk->table = after(walk->table));

		if (!table || walk->table == walk->tables) {
			walk->depth = END;
			return 1;
		}
		if (is_wanted_table(table, walk)) {
			walk->chain = walk->chains = (__u64)table + bpf_core_field_offset(struct nft_table, chains);
			walk->depth = CHAINS;
		}
	}
	return 0;
}

enum generation { PRESENT, NEXT };

/* Walks over what the scope of `walk` names, in at most so many steps. Returns how many it took. */
static __always_inline __u32 go(struct walk *walk, const struct net *net, enum generation generation, __u32 most)
{
	__u32 id = 0, cursor = BPF_CORE_READ(net, nft.gencursor) & 1;
	__u64 pernet = 0;

	bpf_probe_read_kernel(&id, sizeof(id), &nf_tables_net_id);
	bpf_probe_read_kernel(&pernet, sizeof(pernet), (void *)BPF_CORE_READ(net, gen) + id * sizeof(void *));
	walk->table = walk->tables = pernet + bpf_core_field_offset(struct nftables_pernet, tables);
	walk->unborn = 1 << (cursor ^ generation);
	return bpf_loop(most, step, walk, 0);
}

/* How many rules there are; `otherwise` if nobody could wait for the answer. */
static __noinline __u64 rules_in(const struct net *net, enum generation generation, __u64 otherwise)
{
	struct walk walk;

	BLANK(walk);
	go(&walk, net, generation, MOST_STEPS);
	return walk.depth == END ? walk.found : otherwise;
}

struct batch {
	__u64 at;
	__u64 left;
	__u64 rules;		/* it adds */
	__u64 fewer;		/* of those that there were, it takes away so many, or not so many: what is named twice is counted twice */
	__u64 gone;		/* of those that it adds, it may take away so many */
	__u64 last_rule;	/* where it adds it */
	const struct net *net;
	__u32 steps;		/* that are left for looking what there is */
	__u32 takes_away;
};

/* The names that a message has. */
static __always_inline void read_names(struct scope *scope, __u64 at, const struct nlmsghdr *message, __u16 chain, __u16 one)
{
	__u64 end = at + message->length;

	at += sizeof(*message);
	for (int i = 0; i < MOST_ATTRIBUTES; i++) {
		struct nlattr attribute;
		__u16 type;

		if (at + sizeof(attribute) > end || bpf_probe_read_kernel(&attribute, sizeof(attribute), (void *)at))
			return;
		type = attribute.type & NLA_TYPE;
		if (attribute.length < sizeof(attribute))
			return;
		if (type == NFTA_TABLE) {
			scope->table = at + sizeof(attribute);
			scope->table_bytes = attribute.length - sizeof(attribute);
		} else if (chain && type == chain) {
			scope->chain = at + sizeof(attribute);
			scope->chain_bytes = attribute.length - sizeof(attribute);
		} else if (one && (type == one || type == NFTA_RULE_ID)) {
			scope->one = 1;
		}
		at += (attribute.length + 3) & ~3;
	}
}

/* Of the rules that the batch has added so far those may go as well that are in the same table as the last one. */
static __always_inline int may_be_its_own(const struct batch *batch, const struct scope *scope)
{
	struct nlmsghdr message;
	struct scope last = {};

	if (!batch->rules || bpf_probe_read_kernel(&message, sizeof(message), (void *)batch->last_rule))
		return 0;
	read_names(&last, batch->last_rule, &message, 0, 0);
	return !scope->table || is_named(last.table, scope->table, scope->table_bytes);
}

static __always_inline void take_away(struct batch *batch, const struct nlmsghdr *message, __u16 chain, __u16 one)
{
	struct walk walk;

	BLANK(walk);
	walk.scope.family = message->family;
	batch->takes_away = 1;
	read_names(&walk.scope, batch->at, message, chain, one);
	if (walk.scope.one) {
		batch->fewer++;
		return;
	}
	if (may_be_its_own(batch, &walk.scope))
		batch->gone = batch->rules;
	batch->steps -= go(&walk, batch->net, PRESENT, batch->steps);
	batch->fewer = walk.depth == END ? batch->fewer + walk.found : UNLIMITED >> 1;
}

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
		if (!(message.flags & NLM_F_REPLACE)) {
			batch->rules++;
			batch->last_rule = batch->at;
		}
		break;
	case NFT_MSG_DELRULE: case NFT_MSG_DESTROYRULE:
		take_away(batch, &message, NFTA_RULE_CHAIN, NFTA_RULE_HANDLE);
		break;
	case NFT_MSG_DELCHAIN: case NFT_MSG_DESTROYCHAIN:
		take_away(batch, &message, NFTA_CHAIN_NAME, 0);
		break;
	case NFT_MSG_DELTABLE: case NFT_MSG_DESTROYTABLE:
		take_away(batch, &message, 0, 0);
	}
	if (length >= batch->left)
		return 1;
	batch->at += length;
	batch->left -= length;
	return 0;
}

/* What is too long to be gone through is taken for as many rules as it has room for. */
static __always_inline void read_batch(struct batch *batch, const struct net *net, const struct sk_buff *skb)
{
	BLANK(*batch);
	batch->net = net;
	batch->at = (__u64)skb->data;
	batch->left = skb->len;
	batch->steps = MOST_STEPS;
	if (bpf_loop(MOST_MESSAGES, next_message, batch, 0) == MOST_MESSAGES)
		batch->rules += batch->left / sizeof(struct nlmsghdr);
}

#endif
