// Takes up to COUNT of a resource, says how many it got and what the first refusal was, and keeps them until its input ends.
// take KIND COUNT
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static const long PAGE = 4096;
static int lock_file = -1;

static int file(long n) { return open("/dev/null", O_RDONLY); }

static int bound(int family, int type) {
    int fd = socket(family, type, 0);
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    return fd < 0 || bind(fd, (void *)&here, sizeof here) < 0 ? -1 : fd;
}

static int tcp(long n) {
    int fd = bound(AF_INET, SOCK_STREAM);
    return fd < 0 ? -1 : listen(fd, 1) < 0 ? -1 : fd;
}

// Neither bound nor connected: in no list of the kernel's.
static int bare_tcp(long n) { return socket(AF_INET6, SOCK_STREAM, 0); }
static int udp(long n) { return bound(AF_INET, SOCK_DGRAM); }
static int local(long n) { return socket(AF_UNIX, SOCK_STREAM, 0); }

// What is written below: one page of a socket that nobody reads.
static char page[4096];

// In the queue of a socket pair of its own: one takes ten.
static int datagram(long n) {
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_DGRAM, 0, pair) < 0) return -1;
    return send(pair[0], page, sizeof page, MSG_DONTWAIT) < 0 ? -1 : 0;
}

// To itself. One that does not come is lost: nobody is told.
static int udp_unread(long n) {
    struct sockaddr_in here;
    socklen_t size = sizeof here;
    int fd = bound(AF_INET, SOCK_DGRAM);
    if (fd < 0 || getsockname(fd, (void *)&here, &size) < 0 || sendto(fd, page, sizeof page, 0, (void *)&here, size) < 0) return -1;
    errno = ETIME;
    return poll(&(struct pollfd){.fd = fd, .events = POLLIN}, 1, 2000) == 1 ? 0 : -1;
}

// All into one connection.
static int tcp_unread(long n) {
    static int writer = -1;
    if (n == 0) {
        struct sockaddr_in here;
        socklen_t size = sizeof here;
        int listener = tcp(n);
        writer = socket(AF_INET, SOCK_STREAM, 0);
        if (listener < 0 || getsockname(listener, (void *)&here, &size) < 0 || connect(writer, (void *)&here, size) < 0) return -1;
        if (accept(listener, NULL, NULL) < 0) return -1;
    }
    return send(writer, page, sizeof page, MSG_DONTWAIT) < 0 ? -1 : 0;
}

// Every other byte: neighbouring locks would become one.
static int lock(long n) {
    struct flock one = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 2 * n, .l_len = 1};
    return fcntl(lock_file, F_SETLK, &one);
}

static int pty(long n) { return posix_openpt(O_RDWR | O_NOCTTY); }

static int locked_page(long n) {
    void *page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return page == MAP_FAILED ? -1 : mlock(page, PAGE);
}

// Address space, not memory: nothing is written to it. A hundred pages each, and not next to each other, or they would be one mapping.
static int private_pages(long n) {
    void *pages = mmap(NULL, 101 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return pages == MAP_FAILED ? -1 : mprotect(pages, 100 * PAGE, PROT_READ | PROT_WRITE);
}

static int shared_page(long n) {
    int id = shmget(IPC_PRIVATE, PAGE, IPC_CREAT | 0600);
    if (id < 0) return -1;
    char *page = shmat(id, NULL, 0);
    int mapped = page == (char *)-1 ? -1 : 0;
    if (mapped == 0) *page = 1;
    return shmctl(id, IPC_RMID, NULL) < 0 ? -1 : mapped;
}

static int directory(long n) {
    char name[64];
    snprintf(name, sizeof name, "/taken-%d-%ld", (int)getpid(), n);
    return mkdir(name, 0700);
}

// A MiB of memory that is written to.
static int mib(long n) {
    void *memory = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return memory == MAP_FAILED ? -1 : (memset(memory, 1, 1 << 20), 0);
}

static int signal_queued(long n) { return sigqueue(getpid(), SIGRTMIN, (union sigval){.sival_int = (int)n}); }

struct message {
    struct nlmsghdr head;
    struct nfgenmsg of;
    char attributes[64];
};

static char *message(char *at, int type, int flags, int family, int subsystem) {
    struct message *message = (void *)at;
    memset(message, 0, sizeof *message);
    message->head = (struct nlmsghdr){.nlmsg_len = NLMSG_LENGTH(sizeof message->of), .nlmsg_type = type, .nlmsg_flags = NLM_F_REQUEST | flags};
    message->of = (struct nfgenmsg){.nfgen_family = family, .res_id = htons(subsystem)};
    return at + message->head.nlmsg_len;
}

static char *attribute(char *message, char *at, int type, const void *value, int bytes) {
    struct nlattr *attribute = (void *)at;
    *attribute = (struct nlattr){.nla_len = NLA_HDRLEN + bytes, .nla_type = type};
    memcpy(at + NLA_HDRLEN, value, bytes);
    at += NLA_ALIGN(attribute->nla_len);
    ((struct nlmsghdr *)message)->nlmsg_len = at - message;
    return at;
}

// A rule of nftables that says nothing, in a table that is gone with the socket.
static int rule(long n) {
    static int netfilter = -1;
    char batch[1024], *start = batch, *at = message(batch, NFNL_MSG_BATCH_BEGIN, 0, AF_UNSPEC, NFNL_SUBSYS_NFTABLES);
    if (netfilter < 0) {
        netfilter = socket(AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER);
        at = message(start = at, NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWTABLE, NLM_F_CREATE, AF_INET, 0);
        at = attribute(start, at, NFTA_TABLE_NAME, "take", 5);
        at = attribute(start, at, NFTA_TABLE_FLAGS, &(unsigned){htonl(2 /* NFT_TABLE_F_OWNER */)}, 4);
        at = message(start = at, NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWCHAIN, NLM_F_CREATE, AF_INET, 0);
        at = attribute(start, at, NFTA_CHAIN_TABLE, "take", 5);
        at = attribute(start, at, NFTA_CHAIN_NAME, "here", 5);
    }
    at = message(start = at, NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND | NLM_F_ACK, AF_INET, 0);
    at = attribute(start, at, NFTA_RULE_TABLE, "take", 5);
    at = attribute(start, at, NFTA_RULE_CHAIN, "here", 5);
    at = message(at, NFNL_MSG_BATCH_END, 0, AF_UNSPEC, NFNL_SUBSYS_NFTABLES);
    if (send(netfilter, batch, at - batch, 0) < 0) return -1;
    struct {
        struct nlmsghdr head;
        struct nlmsgerr said;
        char rest[256];
    } answer;
    if (recv(netfilter, &answer, sizeof answer, 0) < 0) return -1;
    errno = answer.head.nlmsg_type == NLMSG_ERROR ? -answer.said.error : EPROTO;
    return errno ? -1 : 0;
}

static int process(long n) {
    int pid = fork();
    if (pid == 0)
        for (;;) pause();
    return pid;
}

int main(int argc, char **argv) {
    static const struct {
        const char *name;
        int (*take)(long);
    } kinds[] = {{"file", file}, {"tcp", tcp}, {"bare-tcp", bare_tcp}, {"udp", udp}, {"local", local}, {"datagram", datagram},
                 {"udp-unread", udp_unread}, {"tcp-unread", tcp_unread}, {"lock", lock}, {"pty", pty},
                 {"locked-page", locked_page}, {"private-pages", private_pages}, {"shared-page", shared_page}, {"directory", directory},
                 {"mib", mib}, {"signal", signal_queued}, {"rule", rule}, {"process", process}};
    if (argc != 3) return 2;
    // What it forks is ended with it, and nobody else.
    setpgid(0, 0);
    struct rlimit files = {20000, 20000};
    setrlimit(RLIMIT_NOFILE, &files);
    lock_file = open("/take.lock", O_RDWR | O_CREAT, 0600);
    sigset_t all;
    sigfillset(&all);
    sigdelset(&all, SIGTERM);
    sigprocmask(SIG_BLOCK, &all, NULL);
    for (unsigned i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (strcmp(kinds[i].name, argv[1])) continue;
        long wanted = atol(argv[2]), got = 0;
        int refused = 0;
        while (got < wanted) {
            if (kinds[i].take(got) < 0) {
                refused = errno;
                break;
            }
            got++;
        }
        printf("took %ld %s\n", got, refused ? strerrorname_np(refused) : "all");
        fflush(stdout);
        char byte;
        while (read(0, &byte, 1) > 0) {}
        kill(0, SIGTERM);
        return 0;
    }
    return 2;
}
