/* A machine for the server to run on whose clock jumps and whose disk fills, because a test may do neither to a real one: preloaded into
 * every process of the server, told what to do by a file that all of them map. See machine.py. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

struct orders {
    int64_t clock_is_ahead_s;
    int64_t no_file_grows; /* of those whose path has `folder` in it */
    char folder[64];
};

static const struct orders *orders;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("PUSHY_TEST_MACHINE");
    int fd = path ? open(path, O_RDONLY) : -1;
    void *map = fd < 0 ? MAP_FAILED : mmap(NULL, sizeof *orders, PROT_READ, MAP_SHARED, fd, 0);
    if (map != MAP_FAILED)
        orders = map;
    if (fd >= 0)
        close(fd);
}

int clock_gettime(clockid_t clock, struct timespec *answer) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real)
        real = dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(clock, answer);
    if (orders && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        answer->tv_sec += orders->clock_is_ahead_s;
    return result;
}

int gettimeofday(struct timeval *restrict answer, void *restrict zone) {
    struct timespec now;
    (void) zone;
    clock_gettime(CLOCK_REALTIME, &now);
    answer->tv_sec = now.tv_sec;
    answer->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *answer) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (answer)
        *answer = now.tv_sec;
    return now.tv_sec;
}

static int is_full(int fd, off_t end) {
    char link[64], path[4096];
    struct stat file;
    if (!orders || !orders->no_file_grows || fstat(fd, &file) != 0 || !S_ISREG(file.st_mode) || end <= file.st_size)
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0)
        return 0;
    path[length] = 0;
    return strstr(path, orders->folder) != NULL;
}

#define REAL(name) ((__typeof__(&name)) dlsym(RTLD_NEXT, #name))
#define FULL (errno = ENOSPC, -1)

static off_t bytes(const struct iovec *parts, int count) {
    off_t sum = 0;
    while (count-- > 0)
        sum += parts++->iov_len;
    return sum;
}

ssize_t write(int fd, const void *from, size_t count) {
    off_t at = orders && orders->no_file_grows ? lseek(fd, 0, SEEK_CUR) : -1;
    return at >= 0 && is_full(fd, at + count) ? FULL : REAL(write)(fd, from, count);
}
ssize_t pwrite(int fd, const void *from, size_t count, off_t at) { return is_full(fd, at + count) ? FULL : REAL(pwrite)(fd, from, count, at); }
ssize_t pwrite64(int fd, const void *from, size_t count, off_t at) { return is_full(fd, at + count) ? FULL : REAL(pwrite64)(fd, from, count, at); }
ssize_t pwritev(int fd, const struct iovec *from, int count, off_t at) { return is_full(fd, at + bytes(from, count)) ? FULL : REAL(pwritev)(fd, from, count, at); }
ssize_t pwritev64(int fd, const struct iovec *from, int count, off_t at) { return is_full(fd, at + bytes(from, count)) ? FULL : REAL(pwritev64)(fd, from, count, at); }
int posix_fallocate(int fd, off_t at, off_t count) { return is_full(fd, at + count) ? ENOSPC : REAL(posix_fallocate)(fd, at, count); }
