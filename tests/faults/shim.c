/* Faults of a disk for one directory of one process (LD_PRELOAD): fsync and reads that fail, writes that find no space,
 * a slow disk; and a time of day that runs faster. (libfaketime can do that, too, but divides the time-outs of epoll as well.)
 * The harness steers it through a small file that both have mapped (tests/faults/shim.py).
 * FAULT_SHIM: that file. FAULT_SHIM_PATH: only files whose path begins with this are touched. FAULT_SHIM_SEED: for the
 * dice. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

struct control {
    volatile uint32_t fsync_eio_ppm; /* of a million calls so many fail */
    volatile uint32_t enospc_ppm;
    volatile uint32_t slow_us; /* what each fsync takes longer */
    volatile uint32_t injected; /* counted here, read by the harness */
    volatile int64_t since_us;  /* from this true time on, µs since 1970 … */
    volatile int64_t ahead_us;  /* … the clock is so far ahead … */
    volatile double faster;     /* … and gains so many seconds in each; 0: it does not */
    volatile uint32_t read_eio_ppm;
};

static struct control idle, *control = &idle;
static const char *prefix = "\xff";
static __thread unsigned seed;
static __thread int short_fd = -1; /* this file was written in part: the rest finds no space */

__attribute__((constructor)) static void start(void) {
    const char *path = getenv("FAULT_SHIM");
    if (getenv("FAULT_SHIM_PATH")) prefix = getenv("FAULT_SHIM_PATH");
    int file = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *map = mmap(NULL, sizeof(struct control), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (map != MAP_FAILED) control = map;
}

static int ours(int fd) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return strncmp(path, prefix, strlen(prefix)) == 0;
}

static int chance(uint32_t ppm) {
    if (ppm == 0) return 0;
    if (seed == 0) {
        const char *given = getenv("FAULT_SHIM_SEED");
        seed = given ? (unsigned)atoi(given) : (unsigned)getpid();
    }
    return (uint32_t)(((uint64_t)rand_r(&seed) * 1000000) / ((uint64_t)RAND_MAX + 1)) < ppm;
}

static int no_space(void) {
    __sync_fetch_and_add(&control->injected, 1);
    errno = ENOSPC;
    return -1;
}

/* How many bytes may be written: all, some, or -1 with errno. */
static ssize_t allowed(int fd, size_t count) {
    if ((control->enospc_ppm == 0 && short_fd < 0) || !ours(fd)) return (ssize_t)count;
    if (short_fd == fd) {
        short_fd = -1;
        return no_space();
    }
    if (!chance(control->enospc_ppm)) return (ssize_t)count;
    if (count < 2 || chance(500000)) return no_space();
    short_fd = fd; /* a full disk takes the beginning */
    return (ssize_t)(count / 2);
}

static int unreadable(int fd) {
    if (control->read_eio_ppm == 0 || !ours(fd) || !chance(control->read_eio_ppm)) return 0;
    __sync_fetch_and_add(&control->injected, 1);
    errno = EIO;
    return 1;
}

#define REAL(name) static __typeof__(&name) real; if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

ssize_t write(int fd, const void *data, size_t count) {
    REAL(write);
    ssize_t some = allowed(fd, count);
    return some < 0 ? -1 : real(fd, data, (size_t)some);
}

ssize_t pwrite(int fd, const void *data, size_t count, off_t at) {
    REAL(pwrite);
    ssize_t some = allowed(fd, count);
    return some < 0 ? -1 : real(fd, data, (size_t)some, at);
}

ssize_t pwrite64(int fd, const void *data, size_t count, off64_t at) {
    REAL(pwrite64);
    ssize_t some = allowed(fd, count);
    return some < 0 ? -1 : real(fd, data, (size_t)some, at);
}

ssize_t read(int fd, void *data, size_t count) {
    REAL(read);
    return unreadable(fd) ? -1 : real(fd, data, count);
}

ssize_t pread(int fd, void *data, size_t count, off_t at) {
    REAL(pread);
    return unreadable(fd) ? -1 : real(fd, data, count, at);
}

ssize_t pread64(int fd, void *data, size_t count, off64_t at) {
    REAL(pread64);
    return unreadable(fd) ? -1 : real(fd, data, count, at);
}

int posix_fallocate(int fd, off_t at, off_t count) {
    REAL(posix_fallocate);
    if (control->enospc_ppm && ours(fd) && chance(control->enospc_ppm)) {
        no_space();
        return ENOSPC;
    }
    return real(fd, at, count);
}

static int sync_fault(int fd) {
    if ((control->fsync_eio_ppm == 0 && control->slow_us == 0) || !ours(fd)) return 0;
    if (control->slow_us) {
        __sync_fetch_and_add(&control->injected, 1);
        usleep(control->slow_us);
    }
    if (!chance(control->fsync_eio_ppm)) return 0;
    __sync_fetch_and_add(&control->injected, 1);
    errno = EIO;
    return -1;
}

int fsync(int fd) {
    REAL(fsync);
    return sync_fault(fd) ? -1 : real(fd);
}

int fdatasync(int fd) {
    REAL(fdatasync);
    return sync_fault(fd) ? -1 : real(fd);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    REAL(clock_gettime);
    int failed = real(clock, now);
    if (failed || clock != CLOCK_REALTIME || (control->ahead_us == 0 && control->faster == 0)) return failed;
    int64_t us = (int64_t)now->tv_sec * 1000000 + now->tv_nsec / 1000;
    us += control->ahead_us + (int64_t)((double)(us - control->since_us) * control->faster);
    now->tv_sec = us / 1000000;
    now->tv_nsec = us % 1000000 * 1000;
    return 0;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    (void)zone;
    struct timespec found;
    int failed = clock_gettime(CLOCK_REALTIME, &found);
    now->tv_sec = found.tv_sec;
    now->tv_usec = found.tv_nsec / 1000;
    return failed;
}

time_t time(time_t *also) {
    struct timespec found;
    clock_gettime(CLOCK_REALTIME, &found);
    if (also) *also = found.tv_sec;
    return found.tv_sec;
}
