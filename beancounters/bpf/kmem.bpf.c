/*
 * kmemsize: the memory that the kernel has for a container, as its memory cgroup and those below count it: by the page, at once. Above the
 * barrier there are no new tasks, inodes and IPC objects, nor files and sockets (charge.h). What the kernel needs to go on (page tables, pipe
 * buffers) is counted and not refused.
 *
 * dcachesize: of that, what the kernel could give back. Only its own sums are known, which it makes every two seconds: by those it is refused.
 */
#include "charge.h"

/* About what an inode and a name of it take. */
#define INODE_BYTES 1024

/* The build whose programs count: what is counted by differences must not be counted twice while one build takes over from another. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} counting SEC(".maps");

/* Of a kernel (since 6.10) that keeps only some of the items: where it has which. */
extern const void mem_cgroup_stats_index __ksym __weak;

SEC("fentry/__mod_memcg_state")
int BPF_PROG(vz_kmem_count, struct mem_cgroup *memcg, int item, int pages)
{
	__s64 bytes = (__s64)pages * PAGE_SIZE;
	__u32 zero = 0;
	struct counter *counter;
	struct slot *slot;
	__u64 *build;

	if (item != bpf_core_enum_value(enum memcg_stat_item, MEMCG_KMEM))
		return 0;
	build = bpf_map_lookup_elem(&counting, &zero);
	if (!build || *build != VZ_BUILD)
		return 0;
	slot = slot_of_cgroup(memcg->css.cgroup);
	if (!slot)
		return 0;
	counter = &slot->counters[KMEMSIZE];
	bytes += (__s64)__sync_fetch_and_add(&counter->held, bytes);
	if (bytes > 0)
		seen(counter, bytes);
	return 0;
}

/* The kernel's sum of an item. The index begins at 0 or at 1 for the first of all. */
static __always_inline __s64 sum(const struct mem_cgroup *memcg, __u32 item)
{
	const void *states = (const void *)BPF_CORE_READ(memcg, vmstats) + bpf_core_field_offset(struct memcg_vmstats, state);
	__u8 first = 0, place = item;
	__s64 found = 0;

	if (&mem_cgroup_stats_index) {
		bpf_probe_read_kernel(&first, 1, &mem_cgroup_stats_index);
		bpf_probe_read_kernel(&place, 1, &mem_cgroup_stats_index + item);
		place -= first;
	}
	bpf_probe_read_kernel(&found, sizeof(found), states + place * sizeof(found));
	return found;
}

SEC("fexit/mem_cgroup_css_rstat_flush")
int BPF_PROG(vz_dcache_count, struct cgroup_subsys_state *css, int cpu)
{
	struct slot *slot = slot_of_cgroup(css->cgroup);
	__u64 id;
	__s64 bytes;

	if (!slot)
		return 0;
	id = BPF_CORE_READ(css, cgroup, kn, id);
	if (slot->cgroup != id)
		return 0; /* a part of it */
	bytes = sum((const void *)css, bpf_core_enum_value(enum node_stat_item, NR_SLAB_RECLAIMABLE_B));
	slot->counters[DCACHESIZE].held = bytes > 0 ? bytes : 0;
	return 0;
}

static __always_inline int may_have_inode(struct slot *slot)
{
	struct counter *counter = &slot->counters[DCACHESIZE];
	__u64 held = counter->held;

	seen(counter, held); /* here and not with the sum, which is made of one processor's part after the other */
	if (held + INODE_BYTES <= counter->limit)
		return 1;
	refuse(slot, DCACHESIZE, INODE_BYTES, 1);
	return 0;
}

/* Sockets, pipes and shared memory are refused elsewhere, as what they are. */
SEC("lsm/inode_alloc_security")
int BPF_PROG(vz_kmem_inode, struct inode *inode)
{
	__u32 number;
	struct slot *slot = current_slot(&number);

	if (!slot || inode->i_sb->s_flags & SB_KERNMOUNT)
		return 0;
	return may_have_kernel_memory(slot) && may_have_inode(slot) ? 0 : -ENOMEM;
}

static __always_inline int may_have_object(void)
{
	__u32 number;
	struct slot *slot = current_slot(&number);

	return !slot || may_have_kernel_memory(slot) ? 0 : -ENOMEM;
}

SEC("lsm/task_alloc")
int BPF_PROG(vz_kmem_task)
{
	return may_have_object();
}

SEC("lsm/msg_queue_alloc_security")
int BPF_PROG(vz_kmem_queue)
{
	return may_have_object();
}

SEC("lsm/sem_alloc_security")
int BPF_PROG(vz_kmem_semaphores)
{
	return may_have_object();
}

SEC("lsm/shm_alloc_security")
int BPF_PROG(vz_kmem_segment)
{
	return may_have_object();
}
