/*
 * privvmpages: private address space that can be written, of all address spaces of the container: what the kernel counts as data and stack.
 * It asks before it gives some of it, and that is charged; after the call the charge is put right by what the address space then has.
 * lockedpages: what of all of it is locked, in the same way, and segments of shared memory that are. No program is asked before mlock.
 */
#include "charge.h"

/* kernel/locking/rwsem.c: of the owner, whom it has changed; a reader has the lowest bit. */
#define RWSEM_NONSPINNABLE 2UL

/* x86_64 */
#define SYS_MMAP 9
#define SYS_BRK 12
#define SYS_MREMAP 25
#define SYS_SHMGET 29
#define SYS_CLONE 56
#define SYS_FORK 57
#define SYS_VFORK 58
#define SYS_CLONE3 435

#define VM_LOCKED 0x2000
#define MAP_LOCKED 0x2000
#define SHM_LOCK 11
#define RLIMIT_MEMLOCK 8

/* What is charged twice has a second key: no object lies at an odd address. */
static __always_inline const void *locked_part(const void *object)
{
	return (const char *)object + 1;
}

static __always_inline __u64 pages_for(__u64 bytes)
{
	return (bytes + PAGE_SIZE - 1) >> PAGE_SHIFT;
}

static __always_inline __u64 pages_of(const struct mm_struct *mm, __u32 resource)
{
	return resource == LOCKEDPAGES ? BPF_CORE_READ(mm, locked_vm) : BPF_CORE_READ(mm, data_vm) + BPF_CORE_READ(mm, stack_vm);
}

/* An address space that is new to us is charged with all it has; one that has nothing locked need not be. */
static __always_inline struct charge *charge_of_space(struct mm_struct *mm, __u32 resource)
{
	const void *object = resource == LOCKEDPAGES ? locked_part(mm) : mm;
	__u64 key = (__u64)object, pages = pages_of(mm, resource);

	if (of_the_host(current()->cred))
		return 0;
	if (resource == LOCKEDPAGES && !pages)
		return charges_find(key);
	return charge_of(object, resource, pages);
}

static __always_inline void settle_one(struct mm_struct *mm, __u32 resource)
{
	struct charge *charge = charge_of_space(mm, resource);

	if (charge)
		settle_charge(charge, resource, pages_of(mm, resource));
}

/* Makes the charges what the address space has, after what may have locked some of it. */
static __always_inline void settle(struct mm_struct *mm)
{
	if (!mm)
		return;
	settle_one(mm, PRIVVMPAGES);
	if (mm->locked_vm)
		settle_one(mm, LOCKEDPAGES);
}

static __always_inline void settle_locked(struct mm_struct *mm)
{
	if (mm)
		settle_one(mm, LOCKEDPAGES);
}

/* After what may have unlocked some: it may have been the last. */
static __always_inline void settle_unlocked(struct mm_struct *mm)
{
	if (!mm)
		return;
	settle_one(mm, PRIVVMPAGES);
	settle_one(mm, LOCKEDPAGES);
}

/*
 * HARD for what a task asks for, SOFT for the growth of a stack, exec and mprotect (K6). A page fault has its error code where a call has its
 * number: never one of these.
 */
static __always_inline enum manner manner_of_the_call(unsigned long number)
{
	switch (number) {
	case SYS_MMAP: case SYS_BRK: case SYS_MREMAP: case SYS_CLONE: case SYS_FORK: case SYS_VFORK: case SYS_CLONE3:
		return HARD;
	}
	return SOFT;
}

/*
 * What is asked for. For private memory the running task holds the address space to change it; for a shared mapping as well, but then nothing
 * private is asked for. Shared memory comes by an object of a size, or by the page, when something is written.
 */
enum asked { PRIVATE, OBJECT, PAGES };

static __always_inline enum asked asked_for(const struct mm_struct *mm, unsigned long call)
{
	if ((BPF_CORE_READ(mm, mmap_lock.owner.counter) & ~RWSEM_NONSPINNABLE) != (unsigned long)current())
		return call == SYS_SHMGET ? OBJECT : PAGES;
	return call == SYS_MMAP && BPF_CORE_READ(registers(), r10) & MAP_SHARED ? OBJECT : PRIVATE;
}

/* It is charged when it is there (shared.bpf.c). For a page the kernel may ask more than once: that refusal is counted in tmpfs.bpf.c. */
static __always_inline int may_share(__u64 pages, enum asked asked)
{
	__u32 number;
	struct slot *slot = current_slot(&number);

	if (!slot || has_room(slot, SHMPAGES, pages))
		return 1;
	if (asked == OBJECT)
		refuse_for_want_of_room(slot, SHMPAGES, pages);
	return 0;
}

SEC("fmod_ret/security_vm_enough_memory_mm")
int BPF_PROG(vz_memory_ask, struct mm_struct *mm, long pages, int ret)
{
	struct charge *charge;
	struct slot *slot;
	enum asked asked;
	unsigned long call;

	if (ret || pages <= 0 || !mm || of_the_host(current()->cred))
		return ret;
	call = BPF_CORE_READ(registers(), orig_ax);
	asked = asked_for(mm, call);
	if (asked != PRIVATE)
		return may_share(pages, asked) ? 0 : -ENOMEM;
	charge = charge_of_space(mm, PRIVVMPAGES);
	if (!charge)
		return 0;
	slot = slot_of(charge);
	if (!slot)
		return 0;
	if (call == SYS_BRK && mm->def_flags & VM_LOCKED && !may_have(slot, LOCKEDPAGES, pages))
		return -ENOMEM;
	if (slot->counters[PRIVVMPAGES].held + pages <= slot->counters[VMGUARPAGES].barrier)
		may_hold(slot, PRIVVMPAGES, pages, FORCE); /* promised */
	else if (!may_hold(slot, PRIVVMPAGES, pages, manner_of_the_call(call)))
		return -ENOMEM;
	__sync_fetch_and_add(&charge->amount, pages);
	return 0;
}

SEC("fentry/exit_mmap")
int BPF_PROG(vz_memory_exit, struct mm_struct *mm)
{
	uncharge(mm);
	uncharge(locked_part(mm));
	return 0;
}

/* The parent was asked for what the child now has. */
SEC("tp_btf/sched_process_fork")
int BPF_PROG(vz_memory_fork, struct task_struct *parent, struct task_struct *child)
{
	settle(parent->mm);
	if (child->mm != parent->mm)
		settle(child->mm);
	return 0;
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(vz_memory_exec, struct task_struct *task)
{
	settle(task->mm);
	return 0;
}

/* As the kernel refuses it at the limit of one process. */
SEC("lsm/mmap_file")
int BPF_PROG(vz_memory_map_locked, struct file *file, unsigned long asked, unsigned long prot, unsigned long flags)
{
	struct mm_struct *mm = current()->mm;
	struct slot *slot;
	__u32 number;

	if (!mm || !(flags & MAP_LOCKED || mm->def_flags & VM_LOCKED) || BPF_CORE_READ(registers(), orig_ax) != SYS_MMAP)
		return 0;
	slot = current_slot(&number);
	return !slot || may_have(slot, LOCKEDPAGES, pages_for(BPF_CORE_READ(registers(), si))) ? 0 : -EAGAIN;
}

SEC("lsm/shm_shmctl")
int BPF_PROG(vz_memory_lock_segment, struct kern_ipc_perm *perm, int command)
{
	struct shmid_kernel *segment = (void *)perm;
	__u64 key = (__u64)locked_part(BPF_CORE_READ(segment, shm_file, f_inode));
	struct slot *slot;
	__u32 number;

	if (command != SHM_LOCK)
		return 0;
	slot = current_slot(&number);
	if (!slot || charges_find(key))
		return 0;
	return may_have(slot, LOCKEDPAGES, pages_for(BPF_CORE_READ(segment, shm_segsz))) ? 0 : -ENOMEM;
}

/* Also of a segment that goes. */
SEC("fexit/shmem_lock")
int BPF_PROG(vz_memory_segment, struct file *file, int lock, void *ucounts, int ret)
{
	const void *segment = locked_part(file->f_inode);

	if (!ret && lock)
		charge_anyway(segment, LOCKEDPAGES, pages_for(BPF_CORE_READ(file, f_inode, i_size)));
	else if (!ret)
		uncharge(segment);
	return 0;
}

/* Whether the limit of the process refused to lock `pages` more; the kernel says the same of a hole. */
static __always_inline void refused_to_lock(long ret, __u64 pages)
{
	struct mm_struct *mm = current()->mm;
	struct slot *slot;
	__u32 number;

	if (ret != -ENOMEM || !mm)
		return;
	if (mm->locked_vm + pages <= BPF_CORE_READ(current(), signal, rlim[RLIMIT_MEMLOCK].rlim_cur) / PAGE_SIZE)
		return;
	slot = current_slot(&number);
	if (slot)
		refuse(slot, LOCKEDPAGES, pages, 0);
}

#define AFTER(call, what) \
	SEC("fexit/__x64_sys_" #call) \
	int BPF_PROG(vz_memory_##call, const struct pt_regs *asked, long ret) \
	{ \
		struct mm_struct *mm = current()->mm; \
		what; \
		return 0; \
	}

AFTER(mmap, settle(mm))
AFTER(brk, settle(mm))
AFTER(mprotect, settle(mm))
AFTER(munmap, settle_unlocked(mm))
AFTER(mremap, settle_unlocked(mm))
AFTER(mlock, settle_locked(mm); refused_to_lock(ret, pages_for(asked->si + asked->di % PAGE_SIZE)))
AFTER(mlock2, settle_locked(mm); refused_to_lock(ret, pages_for(asked->si + asked->di % PAGE_SIZE)))
AFTER(mlockall, settle_locked(mm); refused_to_lock(ret, mm ? mm->total_vm - mm->locked_vm : 0))
AFTER(munlock, settle_locked(mm))
AFTER(munlockall, settle_locked(mm))
