/*
 * What a person at a keyboard notices: works for a millisecond, sleeps until the next tick, and says how late it woke up, in microseconds:
 * half of the times, 99 of 100, the worst.
 *
 * wake TICKS
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define TICK_NS 11000000LL
#define WORK_NS 1000000LL

static long long now(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static int later(const void *a, const void *b)
{
	long long x = *(const long long *)a, y = *(const long long *)b;

	return (x > y) - (x < y);
}

int main(int count, char **words)
{
	int ticks = count > 1 ? atoi(words[1]) : 100;
	long long *late = calloc(ticks, sizeof *late), due = now(CLOCK_MONOTONIC);

	if (!late || ticks < 1)
		return 1;
	for (int i = 0; i < ticks; i++) {
		long long begun = now(CLOCK_PROCESS_CPUTIME_ID);
		struct timespec at;

		while (now(CLOCK_PROCESS_CPUTIME_ID) - begun < WORK_NS)
			;
		/* One that is late does not hurry after the ticks it missed. */
		due = now(CLOCK_MONOTONIC) + TICK_NS - WORK_NS;
		at.tv_sec = due / 1000000000LL;
		at.tv_nsec = due % 1000000000LL;
		while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL))
			;
		late[i] = now(CLOCK_MONOTONIC) - due;
	}
	qsort(late, ticks, sizeof *late, later);
	printf("%lld %lld %lld\n", late[ticks / 2] / 1000, late[ticks - 1 - ticks / 100] / 1000, late[ticks - 1] / 1000);
	return 0;
}
