// The same work inside a container and outside: does one kind of it and prints how long that took, in nanoseconds.
// work cpu|null|calls|files|net|proc|again|open|socket|map|fork [directory]
#include <arpa/inet.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void need(int ok, const char *what) {
    if (!ok) {
        perror(what);
        exit(1);
    }
}

// Arithmetic and a table larger than the first cache: no system call.
static void cpu(void) {
    static uint64_t table[1 << 15];
    uint64_t x = 88172645463325252u;
    for (int i = 0; i < 60 * 1000 * 1000; i++) {
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        table[x & 0x7fff] += x;
    }
    volatile uint64_t sink = table[x & 0x7fff];
    (void)sink;
}

// The cheapest call there is: what is measured is the way into the kernel and back, and nothing else.
static void null_calls(void) {
    for (int i = 0; i < 1000 * 1000; i++) syscall(SYS_getppid);
}

// What a server's process asks for all day: a small file opened, looked at, read and closed, and a byte through a pipe.
static void calls(void) {
    char buffer[512];
    int ends[2];
    need(pipe(ends) == 0, "pipe");
    int fd = open("calls", O_CREAT | O_RDWR | O_TRUNC, 0600);
    need(fd >= 0 && write(fd, buffer, sizeof buffer) == sizeof buffer && close(fd) == 0, "calls");
    for (int i = 0; i < 60 * 1000; i++) {
        struct stat st;
        fd = open("calls", O_RDONLY);
        need(fd >= 0 && fstat(fd, &st) == 0 && read(fd, buffer, sizeof buffer) == sizeof buffer && close(fd) == 0, "calls");
        need(write(ends[1], buffer, 1) == 1 && read(ends[0], buffer, 1) == 1, "pipe");
    }
    unlink("calls");
}

// What free does.
static void proc(void) {
    char buffer[8192];
    for (int i = 0; i < 1000; i++) {
        int fd = open("/proc/meminfo", O_RDONLY);
        need(fd >= 0 && read(fd, buffer, sizeof buffer) > 0 && close(fd) == 0, "/proc/meminfo");
    }
}

// What top does.
static void again(void) {
    char buffer[8192];
    int fd = open("/proc/meminfo", O_RDONLY);
    for (int i = 0; i < 1000; i++) need(pread(fd, buffer, sizeof buffer, 0) > 0, "/proc/meminfo");
    close(fd);
}

// Files made, written, read and removed, in the page cache: the file system's own work.
static void files(void) {
    static char block[16384];
    char name[32];
    for (int round = 0; round < 8; round++) {
        for (int i = 0; i < 500; i++) {
            snprintf(name, sizeof name, "file%d", i);
            int fd = open(name, O_CREAT | O_RDWR | O_TRUNC, 0600);
            need(fd >= 0 && write(fd, block, sizeof block) == sizeof block, name);
            need(pread(fd, block, sizeof block, 0) == sizeof block && close(fd) == 0, name);
        }
        for (int i = 0; i < 500; i++) {
            snprintf(name, sizeof name, "file%d", i);
            need(unlink(name) == 0, name);
        }
    }
}

// A conversation over TCP on the loopback of the own network namespace, then a flood.
static void net(void) {
    static char block[65536];
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t size = sizeof at;
    int door = socket(AF_INET, SOCK_STREAM, 0);
    need(door >= 0 && bind(door, (void *)&at, sizeof at) == 0 && listen(door, 1) == 0, "listen");
    need(getsockname(door, (void *)&at, &size) == 0, "getsockname");
    pid_t other = fork();
    need(other >= 0, "fork");
    if (other == 0) {
        int s = accept(door, NULL, NULL);
        for (int i = 0; i < 15000; i++) need(read(s, block, 1) == 1 && write(s, block, 1) == 1, "echo");
        while (read(s, block, sizeof block) > 0) {}
        _exit(0);
    }
    int s = socket(AF_INET, SOCK_STREAM, 0);
    need(s >= 0 && connect(s, (void *)&at, sizeof at) == 0, "connect");
    for (int i = 0; i < 15000; i++) need(write(s, block, 1) == 1 && read(s, block, 1) == 1, "talk");
    for (int i = 0; i < 4000; i++) need(write(s, block, sizeof block) == sizeof block, "flood");
    close(s);
    int status;
    need(waitpid(other, &status, 0) == other && status == 0, "the other side");
}

// What beancounters count, each by itself: a file, a socket, address space, a process.
static void open_close(void) {
    for (int i = 0; i < 200 * 1000; i++) {
        int fd = open("/dev/null", O_RDONLY);
        need(fd >= 0 && close(fd) == 0, "/dev/null");
    }
}

static void socket_close(void) {
    for (int i = 0; i < 100 * 1000; i++) {
        int fd = socket(AF_UNIX, SOCK_STREAM, 0);
        need(fd >= 0 && close(fd) == 0, "socket");
    }
}

static void map_unmap(void) {
    for (int i = 0; i < 200 * 1000; i++) {
        void *at = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        need(at != MAP_FAILED && munmap(at, 65536) == 0, "mmap");
    }
}

static void fork_wait(void) {
    for (int i = 0; i < 2000; i++) {
        pid_t child = fork();
        need(child >= 0, "fork");
        if (child == 0) _exit(0);
        need(waitpid(child, NULL, 0) == child, "waitpid");
    }
}

int main(int argc, char **argv) {
    need(argc >= 2, "work cpu|null|calls|files|net|proc|again|open|socket|map|fork [directory]");
    if (argc > 2) need(chdir(argv[2]) == 0, argv[2]);
    struct { const char *name; void (*run)(void); } kinds[] = {
        {"cpu", cpu}, {"null", null_calls}, {"calls", calls}, {"files", files}, {"net", net}, {"proc", proc}, {"again", again},
        {"open", open_close}, {"socket", socket_close}, {"map", map_unmap}, {"fork", fork_wait}};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (strcmp(argv[1], kinds[i].name) == 0) {
            struct timespec a, b;
            clock_gettime(CLOCK_MONOTONIC, &a);
            kinds[i].run();
            clock_gettime(CLOCK_MONOTONIC, &b);
            printf("%lld\n", (b.tv_sec - a.tv_sec) * 1000000000LL + b.tv_nsec - a.tv_nsec);
            return 0;
        }
    }
    return 2;
}
