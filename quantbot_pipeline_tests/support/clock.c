/* A time of day that a test sets: preloaded into a process, it adds what a file says (nanoseconds, eight bytes) to the wall clock.
 * Waits until a time of day are turned back by as much, so pauses and patience stay real. libfaketime is not used: under it
 * `clock_nanosleep` fails in Python. A file has the kernel's time until it is flushed; then it gets that of the process, since the lab
 * asks how old a run is. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000000000LL
#define REAL(name) ({ static __typeof__(&name) found; if (!found) found = (__typeof__(&name))dlsym(RTLD_NEXT, #name); found; })

static const _Atomic int64_t none;
static const _Atomic int64_t *ahead = &none;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("QB_TEST_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0)
        return;
    void *mapped = mmap(NULL, sizeof(int64_t), PROT_READ, MAP_SHARED, file, 0);
    if (mapped != MAP_FAILED)
        ahead = mapped;
    close(file);
}

static struct timespec moved(struct timespec t, int64_t by) {
    int64_t ns = t.tv_sec * SECOND + t.tv_nsec + by;
    return (struct timespec){.tv_sec = ns / SECOND, .tv_nsec = ns % SECOND};
}

/* A moment of the kernel's wall clock; counts since the start of the machine are small and stay. */
static struct timespec real_moment(const struct timespec *t) {
    return t->tv_sec > SECOND ? moved(*t, -*ahead) : *t;
}

int clock_gettime(clockid_t clock, struct timespec *t) {
    int status = REAL(clock_gettime)(clock, t);
    if (status == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        *t = moved(*t, *ahead);
    return status;
}

int gettimeofday(struct timeval *restrict t, void *restrict zone) {
    (void)zone;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    *t = (struct timeval){.tv_sec = now.tv_sec, .tv_usec = now.tv_nsec / 1000};
    return 0;
}

time_t time(time_t *t) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (t)
        *t = now.tv_sec;
    return now.tv_sec;
}

int clock_nanosleep(clockid_t clock, int flags, const struct timespec *until, struct timespec *left) {
    struct timespec real = (flags & TIMER_ABSTIME) ? real_moment(until) : *until;
    return REAL(clock_nanosleep)(clock, flags, &real, left);
}

int pthread_cond_timedwait(pthread_cond_t *restrict cond, pthread_mutex_t *restrict mutex, const struct timespec *restrict until) {
    struct timespec real = real_moment(until);
    return REAL(pthread_cond_timedwait)(cond, mutex, &real);
}

int pthread_cond_clockwait(pthread_cond_t *cond, pthread_mutex_t *mutex, clockid_t clock, const struct timespec *until) {
    struct timespec real = real_moment(until);
    return REAL(pthread_cond_clockwait)(cond, mutex, clock, &real);
}

int pthread_mutex_timedlock(pthread_mutex_t *restrict mutex, const struct timespec *restrict until) {
    struct timespec real = real_moment(until);
    return REAL(pthread_mutex_timedlock)(mutex, &real);
}

int sem_timedwait(sem_t *restrict sem, const struct timespec *restrict until) {
    struct timespec real = real_moment(until);
    return REAL(sem_timedwait)(sem, &real);
}

int sem_clockwait(sem_t *restrict sem, clockid_t clock, const struct timespec *restrict until) {
    struct timespec real = real_moment(until);
    return REAL(sem_clockwait)(sem, clock, &real);
}

static int dated(int fd, int status) {
    struct timespec now[2] = {{.tv_nsec = UTIME_OMIT}};
    clock_gettime(CLOCK_REALTIME, &now[1]);
    if (status == 0)
        futimens(fd, now); /* a read-only or foreign file keeps its own */
    return status;
}

int fsync(int fd) {
    return dated(fd, REAL(fsync)(fd));
}

int fdatasync(int fd) {
    return dated(fd, REAL(fdatasync)(fd));
}

/* Abseil, within gRPC, waits without the library. */
long syscall(long number, ...) {
    long a[6];
    va_list arguments;
    va_start(arguments, number);
    for (int i = 0; i < 6; i++)
        a[i] = va_arg(arguments, long);
    va_end(arguments);
    struct timespec real;
    if (number == SYS_futex && (a[1] & FUTEX_CLOCK_REALTIME) && a[3]) {
        real = real_moment((const struct timespec *)a[3]);
        a[3] = (long)&real;
    }
    return REAL(syscall)(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
