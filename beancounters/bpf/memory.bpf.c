/*
 * privvmpages: private address space that can be written, of all address spaces of the container: what the kernel counts as data and stack.
 * It asks before it gives some of it, and that is charged; after the call the charge is put right by what the address space then has.
 */
#include "charge.h"

/* x86_64 */
#define SYS_MMAP 9
#define SYS_BRK 12
#define SYS_MREMAP 25
#define SYS_CLONE 56
#define SYS_FORK 57
#define SYS_VFORK 58
#define SYS_CLONE3 435

static __always_inline __u64 pages_of(const struct mm_struct *mm)
{
	return BPF_CORE_READ(mm, data_vm) + BPF_CORE_READ(mm, stack_vm);
}

/* The charge of an address space; one that is new to us is charged to the running task's container with all it has. */
static __always_inline struct charge *charge_of(struct mm_struct *mm)
{
	__u64 key = (__u64)mm;
	struct charge *found, new = { .resource = PRIVVMPAGES };
	struct slot *slot;

	if (of_the_host(current()->cred))
		return 0;
	found = bpf_map_lookup_elem(&charges, &key);
	if (found)
		return found;
	slot = current_slot(&new.slot);
	if (!slot)
		return 0;
	new.generation = slot->generation;
	new.amount = pages_of(mm);
	if (bpf_map_update_elem(&charges, &key, &new, BPF_NOEXIST))
		__sync_fetch_and_add(&slot->uncharged, 1);
	else
		may_hold(slot, PRIVVMPAGES, new.amount, FORCE);
	return bpf_map_lookup_elem(&charges, &key);
}

static __always_inline struct slot *slot_of(const struct charge *charge)
{
	__u32 number = charge->slot;
	struct slot *slot = bpf_map_lookup_elem(&slots, &number);

	return slot && slot->generation == charge->generation ? slot : 0;
}

/* Makes the charge what the address space has. */
static __always_inline void settle(struct mm_struct *mm)
{
	struct charge *charge;
	struct slot *slot;
	__u64 now, before;

	if (!mm)
		return;
	charge = charge_of(mm);
	if (!charge)
		return;
	slot = slot_of(charge);
	if (!slot)
		return;
	now = pages_of(mm);
	if (now == charge->amount)
		return;
	before = __sync_lock_test_and_set(&charge->amount, now);
	if (now > before)
		may_hold(slot, PRIVVMPAGES, now - before, FORCE);
	else
		__sync_fetch_and_sub(&slot->counters[PRIVVMPAGES].held, before - now);
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

SEC("fmod_ret/security_vm_enough_memory_mm")
int BPF_PROG(vz_memory_ask, struct mm_struct *mm, long pages, int ret)
{
	struct charge *charge;
	struct slot *slot;

	if (ret || pages <= 0 || !mm)
		return ret;
	charge = charge_of(mm);
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
