/* numfile: open files. numpty: those of them that are the master of a terminal. */
#include "charge.h"

#define PTMX_RDEV ((5 << 20) | 2)

/*
 * A kernel that opens a second file below one that was opened (overlay) does so with the credentials of somebody else: that one is not the
 * container's.
 */
static __always_inline int of_the_kernel(void)
{
	struct task_struct *task = current();

	return task->cred != task->real_cred;
}

SEC("lsm/file_alloc_security")
int BPF_PROG(vz_file_alloc, struct file *file)
{
	if (of_the_host(file->f_cred) || of_the_kernel())
		return 0;
	return charge(file, NUMFILE, HARD, ENFILE);
}

SEC("lsm/file_free_security")
int BPF_PROG(vz_file_free, struct file *file)
{
	if (!of_the_host(file->f_cred))
		uncharge(file);
	return 0;
}

/* As the kernel's own limit of a devpts says it: no space. */
SEC("lsm/file_open")
int BPF_PROG(vz_pty_open, struct file *file)
{
	struct inode *inode = file->f_inode;
	__u64 key = (__u64)file;
	struct charge *charge;
	struct slot *slot;

	if (inode->i_rdev != PTMX_RDEV || (inode->i_mode & S_IFMT) != S_IFCHR)
		return 0;
	charge = charges_find(key);
	if (!charge || charge->also)
		return 0;
	slot = slot_of(charge);
	if (!slot)
		return 0;
	if (!may_hold(slot, NUMPTY, 1, HARD))
		return -ENOSPC;
	charge->also = NUMPTY;
	return 0;
}
