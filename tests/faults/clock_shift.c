/* Shifts the wall clock of one process, while it runs: LD_PRELOAD. CLOCK_REALTIME and what is made of it, no other clock.
 *
 * The shift stands in the file that CLOCK_SHIFT_FILE names, as a signed number of milliseconds in the machine's own
 * 64-bit form, and may change at any time. (libfaketime 0.9.10 refuses clock_nanosleep by an absolute monotonic time
 * when it is told to leave the monotonic clock alone, and that is how Python sleeps.)
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile const int64_t *shift_ms;
static int (*real_clock_gettime)(clockid_t, struct timespec *);

__attribute__((constructor)) static void prepare(void)
{
    const char *path = getenv("CLOCK_SHIFT_FILE");
    int file = path == NULL ? -1 : open(path, O_RDONLY | O_CLOEXEC);
    void *mapped;

    real_clock_gettime = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    if (file < 0)
        return;
    mapped = mmap(NULL, sizeof(int64_t), PROT_READ, MAP_SHARED, file, 0);
    close(file);
    if (mapped != MAP_FAILED)
        shift_ms = mapped;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    int result = real_clock_gettime != NULL ? real_clock_gettime(clock, now)
                                            : (int)syscall(SYS_clock_gettime, clock, now);
    if (result == 0 && shift_ms != NULL && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
        int64_t nanoseconds = now->tv_nsec + *shift_ms % 1000 * 1000000;
        now->tv_sec += *shift_ms / 1000;
        if (nanoseconds >= 1000000000) {
            nanoseconds -= 1000000000;
            now->tv_sec += 1;
        } else if (nanoseconds < 0) {
            nanoseconds += 1000000000;
            now->tv_sec -= 1;
        }
        now->tv_nsec = nanoseconds;
    }
    return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    struct timespec found;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &found);
    now->tv_sec = found.tv_sec;
    now->tv_usec = found.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *now)
{
    struct timespec found;
    clock_gettime(CLOCK_REALTIME, &found);
    if (now != NULL)
        *now = found.tv_sec;
    return found.tv_sec;
}
