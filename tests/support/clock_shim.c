/* Preloaded into processes, it sets their time of day back and forth: CLOCK_REALTIME differs from
 * the machine's by the microseconds at the beginning of the file $CLOCK_SHIM_FILE, which may change
 * at any moment. CLOCK_MONOTONIC stays as it is, as when somebody sets a machine's clock.
 *
 * A wait until a time of day ends when the clock that it is given shows that time, whatever the
 * clock was set to meanwhile. Waits look again every 100 ms, as if woken for no reason, which all
 * who wait have to expect. For Linux on x86-64 with glibc.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const int64_t no_offset = 0, slice_us = 100000;
static const volatile int64_t *offset_us = &no_offset;
static int (*real_clock_gettime)(clockid_t, struct timespec *);
static int (*real_timedwait)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);
static long (*real_syscall)(long, ...);

__attribute__((constructor)) static void begin(void) {
  real_clock_gettime = dlsym(RTLD_NEXT, "clock_gettime");
  real_timedwait = dlvsym(RTLD_NEXT, "pthread_cond_timedwait", "GLIBC_2.3.2");
  real_syscall = dlsym(RTLD_NEXT, "syscall");
  const char *path = getenv("CLOCK_SHIM_FILE");
  int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
  if (file < 0) return;
  void *found = mmap(NULL, sizeof(int64_t), PROT_READ, MAP_SHARED, file, 0);
  close(file);
  if (found != MAP_FAILED) offset_us = found;
}

static int machine_clock(clockid_t clock, struct timespec *now) {
  long failed; /* real_clock_gettime is not known in the constructors of other libraries */
  if (real_clock_gettime) return real_clock_gettime(clock, now);
  __asm__ volatile("syscall"
                   : "=a"(failed)
                   : "0"((long)SYS_clock_gettime), "D"((long)clock), "S"(now)
                   : "rcx", "r11", "memory");
  if (failed < 0) errno = -failed;
  return failed < 0 ? -1 : 0;
}

static struct timespec later(struct timespec time, int64_t microseconds) {
  int64_t nanoseconds = time.tv_nsec + 1000 * (microseconds % 1000000);
  time.tv_sec += microseconds / 1000000;
  while (nanoseconds >= 1000000000) nanoseconds -= 1000000000, time.tv_sec++;
  while (nanoseconds < 0) nanoseconds += 1000000000, time.tv_sec--;
  time.tv_nsec = nanoseconds;
  return time;
}

static int is_before(struct timespec a, struct timespec b) {
  return a.tv_sec != b.tv_sec ? a.tv_sec < b.tv_sec : a.tv_nsec < b.tv_nsec;
}

/* By the machine's clock, when to look again; whether that is before `end`, by the clock shown. */
static int is_slice(const struct timespec *end, struct timespec *until) {
  struct timespec now, machine_end = later(*end, -*offset_us);
  machine_clock(CLOCK_REALTIME, &now);
  *until = later(now, slice_us);
  if (is_before(*until, machine_end)) return 1;
  *until = machine_end;
  return 0;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
  int failed = machine_clock(clock, now);
  if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
    *now = later(*now, *offset_us);
  return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
  struct timespec time;
  (void)zone;
  if (clock_gettime(CLOCK_REALTIME, &time)) return -1;
  now->tv_sec = time.tv_sec;
  now->tv_usec = time.tv_nsec / 1000;
  return 0;
}

time_t time(time_t *stored) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (stored) *stored = now.tv_sec;
  return now.tv_sec;
}

int pthread_cond_timedwait(pthread_cond_t *restrict condition, pthread_mutex_t *restrict mutex,
                           const struct timespec *restrict end) {
  struct timespec until;
  if (condition->__data.__wrefs & 2) /* waits by CLOCK_MONOTONIC */
    return real_timedwait(condition, mutex, end);
  int is_one = is_slice(end, &until), found = real_timedwait(condition, mutex, &until);
  return found == ETIMEDOUT && is_one ? 0 : found;
}

long syscall(long number, ...) {
  va_list list;
  long a[6];
  va_start(list, number);
  for (int i = 0; i < 6; i++) a[i] = va_arg(list, long);
  va_end(list);
  int is_until = (a[1] & FUTEX_CMD_MASK) == FUTEX_WAIT_BITSET && (a[1] & FUTEX_CLOCK_REALTIME);
  if (number != SYS_futex || !is_until || !a[3])
    return real_syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
  struct timespec until;
  int is_one = is_slice((const struct timespec *)a[3], &until);
  long found = real_syscall(number, a[0], a[1], a[2], (long)&until, a[4], a[5]);
  if (found == -1 && errno == ETIMEDOUT && is_one) errno = EINTR;
  return found;
}
