/*
 * numsiginfo: signals that are queued for the users of a container. The kernel counts and refuses them itself, by a limit of the user
 * namespace. What it does not keep is the most there were, and how often it refused.
 */
#include "charge.h"

#define NESTED 33 /* user namespaces, at most */

/* What the kernel has counted of the whole container: what its outermost user namespace is charged with, outside. */
static __always_inline __u64 queued_of(const struct task_struct *task)
{
	const struct user_namespace *ns = BPF_CORE_READ(task, real_cred, user_ns);
	__s64 queued;

	for (int i = 0; i < NESTED && BPF_CORE_READ(ns, level) > 1; i++)
		ns = BPF_CORE_READ(ns, parent);
	queued = BPF_CORE_READ(ns, ucounts, rlimit[UCOUNT_RLIMIT_SIGPENDING].counter);
	return queued > 0 ? queued : 0;
}

/* A signal is its target's, whoever sends it. A timer that can't have its signal is refused, too. */
SEC("fexit/__sigqueue_alloc")
int BPF_PROG(vz_signal_queue, int sig, struct task_struct *target, unsigned int gfp, int override, unsigned int flags, void *queued)
{
	struct counter *counter;
	struct slot *slot;

	if (of_the_host(target->real_cred))
		return 0;
	slot = slot_of_cgroup(BPF_CORE_READ(target, cgroups, dfl_cgrp));
	if (!slot)
		return 0;
	counter = &slot->counters[NUMSIGINFO];
	counter->held = queued_of(target);
	if (queued)
		seen(counter, counter->held);
	else
		refuse(slot, NUMSIGINFO, 1, 0);
	return 0;
}
