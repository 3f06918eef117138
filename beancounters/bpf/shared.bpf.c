/*
 * shmpages: shared memory of System V, shared anonymous mappings, files in memory (memfd) and tmpfs. What has a size that was asked for has that
 * much, touched or not; the others what is in them, in memory or swapped. It is refused where it is asked for (memory.bpf.c).
 */
#include "charge.h"

static __always_inline __u64 pages_of(const struct inode *inode)
{
	const struct shmem_inode_info *info = (const void *)inode - bpf_core_field_offset(struct shmem_inode_info, vfs_inode);

	if (BPF_CORE_READ(info, flags) & VM_NORESERVE)
		return BPF_CORE_READ(info, alloced);
	return (BPF_CORE_READ(inode, i_size) + PAGE_SIZE - 1) >> PAGE_SHIFT;
}

/* One that is new to us is charged to the running task's container. */
static __always_inline void settle(const struct inode *inode)
{
	__u64 key = (__u64)inode, now = pages_of(inode);
	struct charge *charge = charges_find(key);

	if (!charge && now)
		charge = charge_of(inode, SHMPAGES, now);
	if (charge)
		settle_charge(charge, SHMPAGES, now);
}

SEC("fexit/__shmem_file_setup")
int BPF_PROG(vz_shared_setup, void *mount, void *name, long long size, unsigned long flags, unsigned int inode_flags, struct file *file)
{
	if ((unsigned long)file < -4095UL)
		settle(BPF_CORE_READ(file, f_inode));
	return 0;
}

SEC("fexit/shmem_recalc_inode")
int BPF_PROG(vz_shared_change, struct inode *inode)
{
	settle(inode);
	return 0;
}

SEC("fexit/shmem_evict_inode")
int BPF_PROG(vz_shared_gone, struct inode *inode)
{
	uncharge(inode);
	return 0;
}
