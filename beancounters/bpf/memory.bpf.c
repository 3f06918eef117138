/*
 * privvmpages: private address space that can be written, of all address spaces of the container: what the kernel counts as data and stack.
 * It asks before it gives some of it, and that is charged; after the call the charge is put right by what the address space then has.
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

/* Of a kernel that asks twice (tmpfs.bpf.c). */
extern const void shmem_alloc_and_add_folio __ksym __weak;

static __always_inline __u64 pages_of(const struct mm_struct *mm)
{
	return BPF_CORE_READ(mm, data_vm) + BPF_CORE_READ(mm, stack_vm);
}

/* An address space that is new to us is charged with all it has. */
static __always_inline struct charge *charge_of_space(struct mm_struct *mm)
{
	return of_the_host(current()->cred) ? 0 : charge_of(mm, PRIVVMPAGES, pages_of(mm));
}

/* Makes the charge what the address space has. */
static __always_inline void settle(struct mm_struct *mm)
{
	struct charge *charge = mm ? charge_of_space(mm) : 0;

	if (charge)
		settle_charge(charge, PRIVVMPAGES, pages_of(mm));
}

/*
 * HARD for what a task asks for, SOFT for the growth of a stack, exec and mprotect (K6). A page fault has its error code where a call has its
 * number: never one of these.
 */
static __always_inline enum manner manner_of_the_call(void)
{
	struct pt_regs *registers = (void *)bpf_task_pt_regs(current());

	switch (BPF_CORE_READ(registers, orig_ax)) {
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

static __always_inline enum asked asked_for(const struct mm_struct *mm)
{
	struct pt_regs *registers = (void *)bpf_task_pt_regs(current());
	unsigned long call = BPF_CORE_READ(registers, orig_ax);

	if ((BPF_CORE_READ(mm, mmap_lock.owner.counter) & ~RWSEM_NONSPINNABLE) != (unsigned long)current())
		return call == SYS_SHMGET ? OBJECT : PAGES;
	return call == SYS_MMAP && BPF_CORE_READ(registers, r10) & MAP_SHARED ? OBJECT : PRIVATE;
}

/* It is charged when it is there (shared.bpf.c). A kernel that asks a second time for a page is refused each time, and that is counted once. */
static __always_inline int may_share(__u64 pages, enum asked asked)
{
	__u32 number;
	struct slot *slot = current_slot(&number);

	if (!slot || has_room(slot, SHMPAGES, pages))
		return 1;
	if (asked == OBJECT || !&shmem_alloc_and_add_folio)
		refuse_for_want_of_room(slot, SHMPAGES, pages);
	return 0;
}

SEC("fmod_ret/security_vm_enough_memory_mm")
int BPF_PROG(vz_memory_ask, struct mm_struct *mm, long pages, int ret)
{
	struct charge *charge;
	struct slot *slot;
	enum asked asked;

	if (ret || pages <= 0 || !mm || of_the_host(current()->cred))
		return ret;
	asked = asked_for(mm);
	if (asked != PRIVATE)
		return may_share(pages, asked) ? 0 : -ENOMEM;
	charge = charge_of_space(mm);
	if (!charge)
		return 0;
	slot = slot_of(charge);
	if (!slot)
		return 0;
	if (slot->counters[PRIVVMPAGES].held + pages <= slot->counters[VMGUARPAGES].barrier)
		may_hold(slot, PRIVVMPAGES, pages, FORCE); /* promised */
	else if (!may_hold(slot, PRIVVMPAGES, pages, manner_of_the_call()))
		return -ENOMEM;
	__sync_fetch_and_add(&charge->amount, pages);
	return 0;
}

SEC("fentry/exit_mmap")
int BPF_PROG(vz_memory_exit, struct mm_struct *mm)
{
	uncharge(mm);
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

#define AFTER(call) \
	SEC("fexit/__x64_sys_" #call) \
	int BPF_PROG(vz_memory_##call) \
	{ \
		settle(current()->mm); \
		return 0; \
	}

AFTER(mmap)
AFTER(munmap)
AFTER(mremap)
AFTER(mprotect)
AFTER(brk)
