/*
 * Refusals of pages of tmpfs by shmpages, where the kernel (since 6.6) makes room and asks again before it gives up. Others have no such function,
 * and the refusal is counted when they ask (memory.bpf.c).
 */
#include "charge.h"

SEC("fexit/shmem_alloc_and_add_folio")
int BPF_PROG(vz_tmpfs_refusal)
{
	__u64 folio = 0;
	__u32 number;
	struct slot *slot;

	bpf_get_func_ret(ctx, &folio);
	if ((long)folio != -ENOSPC)
		return 0;
	slot = current_slot(&number);
	if (slot && !has_room(slot, SHMPAGES, 1))
		refuse_for_want_of_room(slot, SHMPAGES, 1);
	return 0;
}
