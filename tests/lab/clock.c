/* Moves the boot clock and the wall clock of a program by the seconds that a file names.
 *
 * Preloaded. A sleeping machine cannot be had in a test, but this is how it looks afterwards: both
 * clocks have run on, and the monotonic one has not. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *now) {
    long result = syscall(SYS_clock_gettime, clock, now);
    if (result != 0 || (clock != CLOCK_BOOTTIME && clock != CLOCK_REALTIME)) return (int)result;
    const char *path = getenv("LAB_CLOCK");
    FILE *file = path ? fopen(path, "r") : NULL;
    if (!file) return 0;
    long boot = 0, wall = 0;
    if (fscanf(file, "%ld %ld", &boot, &wall) == 2)
        now->tv_sec += clock == CLOCK_BOOTTIME ? boot : wall;
    fclose(file);
    return 0;
}
