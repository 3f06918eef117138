// Takes space and inodes of the file system it is run on until it is refused, and says how many KiB, or how many, it got and why no more.
// disk append|direct|reserve FILE KIB: a file in pieces of 4 KiB: written, written past the cache, or only taken (fallocate)
// disk parallel DIRECTORY WRITERS KIB: so many processes at once, each a file of its own
// disk files DIRECTORY COUNT: empty files
// disk attributes DIRECTORY COUNT: empty files, each with 3,000 bytes of extended attribute that no other has
// disk free PATH: what statfs says, in KiB and inodes: total, available, inodes, free inodes
// disk project PATH ID, disk flag PATH: another project id; no inherit flag
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

enum { PIECE = 4096 };

static const char *why(void) { return errno ? strerrorname_np(errno) : "all"; }

static int put(int file, const char *how, const char *piece, long at) {
    if (!strcmp(how, "reserve")) return fallocate(file, 0, at, PIECE);
    long wrote = write(file, piece, PIECE);
    if (wrote >= 0 && wrote < PIECE) errno = EIO;
    return wrote == PIECE ? 0 : -1;
}

// The error of the first refusal is in errno, 0 if there was none.
static long fill(const char *how, const char *path, long kib) {
    static char piece[PIECE] __attribute__((aligned(PIECE)));
    memset(piece, 'x', PIECE);
    long done = 0;
    errno = 0;
    int file = open(path, O_CREAT | O_WRONLY | (strcmp(how, "direct") ? O_APPEND : O_DIRECT), 0644);
    if (file < 0) return 0;
    while (done < kib && !put(file, how, piece, done * 1024)) done += PIECE / 1024;
    int refusal = done < kib ? errno : 0;
    // What was accepted must be kept.
    if (fsync(file)) perror("fsync"), exit(1);
    errno = refusal;
    return done;
}

static long parallel(const char *directory, int writers, long kib) {
    int ends[2];
    long sum = 0, one[2] = {0, 0};
    if (pipe(ends)) exit(1);
    for (int i = 0; i < writers; i++)
        if (!fork()) {
            char path[200];
            snprintf(path, sizeof path, "%s/%d", directory, i);
            one[0] = fill("append", path, kib);
            one[1] = errno;
            exit(write(ends[1], one, sizeof one) != sizeof one);
        }
    close(ends[1]);
    int refusal = 0;
    while (read(ends[0], one, sizeof one) == sizeof one) sum += one[0], refusal = one[1] ? one[1] : refusal;
    errno = refusal;
    return sum;
}

static long files(const char *directory, long count, int attributes) {
    char path[200], value[3000];
    memset(value, 'x', sizeof value);
    for (long n = 0; n < count; n++) {
        snprintf(path, sizeof path, "%s/%ld", directory, n);
        int file = open(path, O_CREAT | O_WRONLY, 0644);
        if (file < 0) return n;
        memcpy(value, &n, sizeof n);
        if (attributes && fsetxattr(file, "user.a", value, sizeof value, 0)) return n;
        close(file);
    }
    errno = 0;
    return count;
}

static int change(const char *path, unsigned *id) {
    struct fsxattr attributes;
    int file = open(path, O_RDONLY);
    if (file < 0 || ioctl(file, FS_IOC_FSGETXATTR, &attributes)) return -1;
    if (id) attributes.fsx_projid = *id;
    else attributes.fsx_xflags &= ~FS_XFLAG_PROJINHERIT;
    return ioctl(file, FS_IOC_FSSETXATTR, &attributes);
}

int main(int count, char **words) {
    const char *kind = count > 2 ? words[1] : "";
    long number = count > 3 ? atol(words[3]) : 0;
    unsigned id = number;
    struct statvfs have;
    if (!strcmp(kind, "parallel") && count > 4) number = parallel(words[2], number, atol(words[4]));
    else if (!strcmp(kind, "files")) number = files(words[2], number, 0);
    else if (!strcmp(kind, "attributes")) number = files(words[2], number, 1);
    else if (!strcmp(kind, "project")) errno = 0, number = change(words[2], &id);
    else if (!strcmp(kind, "flag")) errno = 0, number = change(words[2], 0);
    else if (!strcmp(kind, "free")) {
        if (statvfs(words[2], &have)) return perror("statvfs"), 1;
        long unit = have.f_frsize / 1024;
        printf("%ld %ld %ld %ld\n", (long)have.f_blocks * unit, (long)have.f_bavail * unit, (long)have.f_files, (long)have.f_ffree);
        return 0;
    } else if (count > 3) number = fill(kind, words[2], number);
    else return 2;
    printf("%ld %s\n", number, why());
    return 0;
}
