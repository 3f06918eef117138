/*
 * A table under the addresses of what lives in the kernel, for what is put in and taken out with every file: a hash map of the kernel takes and gives
 * back memory each time, twenty times what this costs. An address has its line, of two lines of the processor's cache, with a few ways in it. What
 * finds no free way is put into a hash map beside, and the line says so.
 *
 * Whoever puts and takes an address owns what lies there, so only the same address put by two tasks at once (the first look at an address
 * space) is a race: both see both, and the lower way stays.
 */
#ifndef VZ_TABLE_H
#define VZ_TABLE_H

#define FREE 0ULL
#define TAKEN 1ULL	/* for a moment, while the value is written; no object lies there */

/* Half of an address is no pointer to the verifier, which lets nobody multiply one. */
static __always_inline __u32 scattered(__u64 key)
{
	__u32 low;

	asm volatile("%0 = %1" : "=w"(low) : "w"((__u32)key));
	return low * 0x9e3779b1;
}

#define TABLE(name, held, number_of_ways) \
	struct name##_line { \
		struct { __u64 key; held value; } ways[number_of_ways]; \
		__u64 spilled; /* of this line's addresses, how many are in the map beside */ \
	}; \
	_Static_assert(sizeof(struct name##_line) == 128, ""); \
	\
	/* The loader sizes both by the host's memory. */ \
	struct { \
		__uint(type, BPF_MAP_TYPE_ARRAY); \
		__uint(max_entries, 1 << 12); \
		__type(key, __u32); \
		__type(value, struct name##_line); \
	} name SEC(".maps"); \
	struct { \
		__uint(type, BPF_MAP_TYPE_HASH); \
		__uint(max_entries, 1 << 16); \
		__uint(map_flags, BPF_F_NO_PREALLOC); \
		__type(key, __u64); \
		__type(value, held); \
	} name##_spilled SEC(".maps"); \
	\
	static __always_inline struct name##_line *name##_line_of(__u64 key) \
	{ \
		__u32 lines = ((struct bpf_map *)&name)->max_entries, line = (__u64)scattered(key) * lines >> 32; \
	\
		return bpf_map_lookup_elem(&name, &line); \
	} \
	\
	static __always_inline held *name##_find(__u64 key) \
	{ \
		struct name##_line *line = name##_line_of(key); \
	\
		if (!line) \
			return 0; \
		for (int i = 0; i < number_of_ways; i++) \
			if (line->ways[i].key == key) \
				return &line->ways[i].value; \
		return line->spilled ? bpf_map_lookup_elem(&name##_spilled, &key) : 0; \
	} \
	\
	/* -EEXIST: it is there, and stays what it was. Another error: there is no room. */ \
	static __always_inline long name##_put(__u64 key, const held *value) \
	{ \
		struct name##_line *line = name##_line_of(key); \
		long failed; \
		int mine; \
	\
		if (!line) \
			return -ENOMEM; \
		for (int i = 0; i < number_of_ways; i++) \
			if (line->ways[i].key == key) \
				return -EEXIST; \
		if (line->spilled && bpf_map_lookup_elem(&name##_spilled, &key)) \
			return -EEXIST; \
		for (mine = 0; mine < number_of_ways; mine++) { \
			if (line->ways[mine].key == FREE && __sync_val_compare_and_swap(&line->ways[mine].key, FREE, TAKEN) == FREE) { \
				line->ways[mine].value = *value; \
				__sync_lock_test_and_set(&line->ways[mine].key, key); \
				break; \
			} \
		} \
		for (int i = 0; i < mine && mine < number_of_ways; i++) { \
			if (line->ways[i].key == key) { \
				__sync_lock_test_and_set(&line->ways[mine].key, FREE); \
				return -EEXIST; \
			} \
		} \
		if (mine < number_of_ways) \
			return 0; \
		__sync_fetch_and_add(&line->spilled, 1); \
		failed = bpf_map_update_elem(&name##_spilled, &key, value, BPF_NOEXIST); \
		if (failed) \
			__sync_fetch_and_sub(&line->spilled, 1); \
		return failed; \
	} \
	\
	/* Whether it was there; what it was is in `value`. */ \
	static __always_inline int name##_take(__u64 key, held *value) \
	{ \
		struct name##_line *line = name##_line_of(key); \
		held *found; \
	\
		if (!line) \
			return 0; \
		for (int i = 0; i < number_of_ways; i++) { \
			if (line->ways[i].key != key) \
				continue; \
			*value = line->ways[i].value; \
			return __sync_val_compare_and_swap(&line->ways[i].key, key, FREE) == key; \
		} \
		found = line->spilled ? bpf_map_lookup_elem(&name##_spilled, &key) : 0; \
		if (!found) \
			return 0; \
		*value = *found; \
		if (bpf_map_delete_elem(&name##_spilled, &key)) \
			return 0; \
		__sync_fetch_and_sub(&line->spilled, 1); \
		return 1; \
	}

#endif
