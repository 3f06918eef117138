/*
 * numflock: locks that are held on files, of flock and of fcntl, and leases. What waits for a lock holds none. A lock becomes held, is split
 * off, or replaces another as a copy of what was asked for; and there is one function that takes it off its file again.
 */
#include "charge.h"

/* Its client keeps copies of its own, which are no locks. The server grants those. */
#define NFS_SUPER_MAGIC 0x6969

static __always_inline int on_nfs(const struct file *file)
{
	return BPF_CORE_READ(file, f_inode, i_sb, s_magic) == NFS_SUPER_MAGIC;
}

static __always_inline const struct file *file_of(const void *lock)
{
	const struct file_lock___6_9 *newer = lock;
	const struct file_lock *older = lock;

	if (bpf_core_field_exists(newer->c.flc_file))
		return BPF_CORE_READ(newer, c.flc_file);
	return BPF_CORE_READ(older, fl_file);
}

/* It has only the kind of the lock: whether it would add one, or change one that there is, shows later. */
SEC("lsm/file_lock")
int BPF_PROG(vz_lock_ask, struct file *file, unsigned int kind)
{
	struct slot *slot;
	__u32 number;

	if (kind == F_UNLCK)
		return 0;
	slot = current_slot(&number);
	if (!slot || on_nfs(file))
		return 0;
	return may_have(slot, NUMFLOCK, 1) ? 0 : -ENOLCK;
}

SEC("fentry/locks_copy_lock")
int BPF_PROG(vz_lock_take, void *lock, const void *asked)
{
	if (!of_the_host(current()->cred) && !on_nfs(file_of(asked)))
		charge_anyway(lock, NUMFLOCK, 1);
	return 0;
}

/* The first that happens to a lease when it is on its file; and again when it changes, but then it is charged. */
SEC("fentry/lease_setup")
int BPF_PROG(vz_lock_lease, void *lease)
{
	charge_anyway(lease, NUMFLOCK, 1);
	return 0;
}

SEC("fentry/locks_unlink_lock_ctx")
int BPF_PROG(vz_lock_give_back, void *lock)
{
	uncharge(lock);
	return 0;
}
