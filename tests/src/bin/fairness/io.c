/*
 * Keeps a disk busy past the page cache: so many processes, each reading or writing its part of one file again and again, one after the other in pieces
 * of 64 KiB or anywhere in pieces of 4 KiB. Ends by itself.
 *
 * io read|write|randread|randwrite FILE MIB PROCESSES SECONDS
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static char piece[65536] __attribute__((aligned(4096)));

static void work(const char *how, int file, off_t from, off_t bytes, int seconds)
{
	int anywhere = !strncmp(how, "rand", 4), reads = strstr(how, "read") != NULL;
	size_t size = anywhere ? 4096 : sizeof piece;
	time_t end = time(NULL) + seconds;

	srandom(getpid());
	for (off_t at = 0; time(NULL) < end; at = (at + size) % bytes) {
		off_t where = from + (anywhere ? random() % (bytes / size) * size : at);
		ssize_t done = reads ? pread(file, piece, size, where) : pwrite(file, piece, size, where);

		if (done != (ssize_t)size) perror("io"), exit(1);
	}
	exit(0);
}

int main(int count, char **words)
{
	if (count != 6) return 2;
	off_t bytes = (off_t)atoi(words[3]) << 20;
	int processes = atoi(words[4]), seconds = atoi(words[5]), failed = 0, status;
	int file = open(words[2], O_RDWR | O_CREAT | O_DIRECT, 0600);

	if (file < 0) return perror("open"), 1;
	/* What was never written is not read from the disk. */
	for (off_t at = lseek(file, 0, SEEK_END); at < bytes; at += sizeof piece)
		if (pwrite(file, piece, sizeof piece, at) != sizeof piece) return perror("pwrite"), 1;
	bytes = bytes / processes / sizeof piece * sizeof piece;
	for (int i = 0; i < processes && seconds; i++)
		if (!fork()) work(words[1], file, bytes * i, bytes, seconds);
	while (wait(&status) > 0) failed |= status;
	return failed != 0;
}
