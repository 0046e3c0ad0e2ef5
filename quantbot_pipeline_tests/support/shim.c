/* A file system that fails on demand: preloaded into a process, it counts every call that changes a file or a folder under one
 * directory, and lets one of them fail, or ends the process there. Python, Arrow and DuckDB all come through here. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum mode { COUNT, IO_ERROR, DISK_FULL, KILL, TORN };
enum { FREES = 0, NEEDS_SPACE = 1, CAN_TEAR = 2 };

static char watched[PATH_MAX];
static size_t watched_length;
static enum mode mode;
static long target;
static atomic_long seen;

void faults_arm(const char *directory, int how, long at) {
    strncpy(watched, directory, sizeof watched - 1);
    watched_length = strlen(watched);
    mode = (enum mode)how;
    target = at;
    seen = 0;
}

long faults_seen(void) { return seen; }

static int is_watched(const char *path) {
    return watched_length && strncmp(path, watched, watched_length) == 0 &&
           (path[watched_length] == '/' || path[watched_length] == 0);
}

static int fd_is_watched(int fd) {
    char link[64], path[PATH_MAX];
    if (!watched_length) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n < 0) return 0;
    path[n] = 0;
    return is_watched(path);
}

static int at_is_watched(int fd, const char *path) {
    if (path[0] == '/') return is_watched(path);
    if (fd != AT_FDCWD) return fd_is_watched(fd);
    char here[PATH_MAX];
    return watched_length && getcwd(here, sizeof here) && is_watched(here);
}

static void die(void) {
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

/* 0: let it happen; an errno: it fails; -1: half of the write reaches the disk, and then nothing does any more. */
static int fault(int needs) {
    long n = atomic_fetch_add(&seen, 1) + 1;
    if (mode == IO_ERROR && n == target) return EIO;
    if (mode == DISK_FULL && n >= target && needs) return ENOSPC;
    if (mode == KILL && n == target) die();
    if (mode == TORN && n >= target && needs == CAN_TEAR) return -1;
    return 0;
}

#define REAL(result, name, ...)                         \
    static result (*real)(__VA_ARGS__);                 \
    if (!real) real = (result(*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

#define FAIL_IF(condition, needs, failed)               \
    if (condition) {                                    \
        int e = fault(needs);                           \
        if (e > 0) { errno = e; return failed; }        \
    }

#define OPEN(fd)                                                         \
    mode_t permissions = 0;                                                             \
    if (flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE) {                                            \
        va_list more;                                                                   \
        va_start(more, flags);                                                          \
        permissions = va_arg(more, mode_t);                                             \
        va_end(more);                                                                   \
    }                                                                                   \
    FAIL_IF(flags & (O_CREAT | O_TRUNC) && at_is_watched(fd, path), NEEDS_SPACE, -1)

int open(const char *path, int flags, ...) {
    REAL(int, "open", const char *, int, ...);
    OPEN(AT_FDCWD)
    return real(path, flags, permissions);
}
int open64(const char *path, int flags, ...) {
    REAL(int, "open64", const char *, int, ...);
    OPEN(AT_FDCWD)
    return real(path, flags, permissions);
}
int openat(int fd, const char *path, int flags, ...) {
    REAL(int, "openat", int, const char *, int, ...);
    OPEN(fd)
    return real(fd, path, flags, permissions);
}
int openat64(int fd, const char *path, int flags, ...) {
    REAL(int, "openat64", int, const char *, int, ...);
    OPEN(fd)
    return real(fd, path, flags, permissions);
}

#define WRITE(torn)                                     \
    if (fd_is_watched(fd)) {                            \
        int e = fault(CAN_TEAR);                        \
        if (e > 0) { errno = e; return -1; }            \
        if (e < 0) { (void)!(torn); die(); }            \
    }

ssize_t write(int fd, const void *data, size_t n) {
    REAL(ssize_t, "write", int, const void *, size_t);
    WRITE(real(fd, data, n / 2))
    return real(fd, data, n);
}
ssize_t pwrite(int fd, const void *data, size_t n, off_t offset) {
    REAL(ssize_t, "pwrite", int, const void *, size_t, off_t);
    WRITE(real(fd, data, n / 2, offset))
    return real(fd, data, n, offset);
}
ssize_t pwrite64(int fd, const void *data, size_t n, off64_t offset) {
    REAL(ssize_t, "pwrite64", int, const void *, size_t, off64_t);
    WRITE(real(fd, data, n / 2, offset))
    return real(fd, data, n, offset);
}
ssize_t writev(int fd, const struct iovec *parts, int n) {
    REAL(ssize_t, "writev", int, const struct iovec *, int);
    WRITE(real(fd, parts, n / 2))
    return real(fd, parts, n);
}
ssize_t sendfile(int fd, int from, off_t *offset, size_t n) {
    REAL(ssize_t, "sendfile", int, int, off_t *, size_t);
    WRITE(real(fd, from, offset, n / 2))
    return real(fd, from, offset, n);
}
ssize_t sendfile64(int fd, int from, off64_t *offset, size_t n) {
    REAL(ssize_t, "sendfile64", int, int, off64_t *, size_t);
    WRITE(real(fd, from, offset, n / 2))
    return real(fd, from, offset, n);
}
ssize_t copy_file_range(int from, off64_t *start, int fd, off64_t *offset, size_t n, unsigned flags) {
    REAL(ssize_t, "copy_file_range", int, off64_t *, int, off64_t *, size_t, unsigned);
    WRITE(real(from, start, fd, offset, n / 2, flags))
    return real(from, start, fd, offset, n, flags);
}

#define ON_FD(name, needs, declared, given)             \
    int name declared {                                 \
        REAL(int, #name, TYPES_##name);                 \
        FAIL_IF(fd_is_watched(fd), needs, -1)           \
        return real given;                              \
    }
#define TYPES_fsync int
#define TYPES_fdatasync int
#define TYPES_ftruncate int, off_t
#define TYPES_ftruncate64 int, off64_t
#define TYPES_fallocate int, int, off_t, off_t
ON_FD(fsync, NEEDS_SPACE, (int fd), (fd))
ON_FD(fdatasync, NEEDS_SPACE, (int fd), (fd))
ON_FD(ftruncate, NEEDS_SPACE, (int fd, off_t size), (fd, size))
ON_FD(ftruncate64, NEEDS_SPACE, (int fd, off64_t size), (fd, size))
ON_FD(fallocate, NEEDS_SPACE, (int fd, int how, off_t from, off_t n), (fd, how, from, n))

#define ON_PATH(name, needs, condition, declared, given) \
    int name declared {                                  \
        REAL(int, #name, TYPES_##name);                  \
        FAIL_IF(condition, needs, -1)                    \
        return real given;                               \
    }
#define TYPES_rename const char *, const char *
#define TYPES_renameat int, const char *, int, const char *
#define TYPES_renameat2 int, const char *, int, const char *, unsigned
#define TYPES_link const char *, const char *
#define TYPES_linkat int, const char *, int, const char *, int
#define TYPES_unlink const char *
#define TYPES_unlinkat int, const char *, int
#define TYPES_remove const char *
#define TYPES_rmdir const char *
#define TYPES_mkdir const char *, mode_t
#define TYPES_mkdirat int, const char *, mode_t
ON_PATH(rename, FREES, at_is_watched(AT_FDCWD, to), (const char *path, const char *to), (path, to))
ON_PATH(renameat, FREES, at_is_watched(new, to), (int old, const char *path, int new, const char *to), (old, path, new, to))
ON_PATH(renameat2, FREES, at_is_watched(new, to), (int old, const char *path, int new, const char *to, unsigned how),
        (old, path, new, to, how))
ON_PATH(link, NEEDS_SPACE, at_is_watched(AT_FDCWD, to), (const char *path, const char *to), (path, to))
ON_PATH(linkat, NEEDS_SPACE, at_is_watched(new, to), (int old, const char *path, int new, const char *to, int how),
        (old, path, new, to, how))
ON_PATH(unlink, FREES, at_is_watched(AT_FDCWD, path), (const char *path), (path))
ON_PATH(unlinkat, FREES, at_is_watched(fd, path), (int fd, const char *path, int how), (fd, path, how))
ON_PATH(remove, FREES, at_is_watched(AT_FDCWD, path), (const char *path), (path))
ON_PATH(rmdir, FREES, at_is_watched(AT_FDCWD, path), (const char *path), (path))
ON_PATH(mkdir, NEEDS_SPACE, at_is_watched(AT_FDCWD, path), (const char *path, mode_t how), (path, how))
ON_PATH(mkdirat, NEEDS_SPACE, at_is_watched(fd, path), (int fd, const char *path, mode_t how), (fd, path, how))
