/*
 * Refusals of pages of tmpfs and memfd by shmpages. The kernel may ask more than once for a page before it gives up (memory.bpf.c): one is counted
 * when it has.
 */
#include "charge.h"

#define VM_FAULT_OOM 1
#define VM_FAULT_SIGBUS 2

static __always_inline void refused(void)
{
	__u32 number;
	struct slot *slot = current_slot(&number);

	if (slot)
		may_have(slot, SHMPAGES, 1);
}

#define AFTER(call, failed) \
	SEC("fexit/shmem_" #call) \
	int BPF_PROG(vz_tmpfs_##call) \
	{ \
		__u64 said = 0; \
\
		if (!bpf_get_func_ret(ctx, &said) && (failed)) \
			refused(); \
		return 0; \
	}

AFTER(write_begin, (int)said == -ENOSPC || (int)said == -ENOMEM)
AFTER(fallocate, (int)said == -ENOSPC || (int)said == -ENOMEM)
AFTER(fault, said & (VM_FAULT_OOM | VM_FAULT_SIGBUS))
