/* Moves the clocks of a program by the seconds that a file names: the boot clock, the wall clock, and,
 * if there is a third number, all of them.
 *
 * Preloaded. A sleeping machine cannot be had in a test, but this is how it looks afterwards: both
 * clocks have run on, and the monotonic one has not. Time that is only long is the third number. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *now) {
    long result = syscall(SYS_clock_gettime, clock, now);
    int boots = clock == CLOCK_BOOTTIME, runs = clock == CLOCK_MONOTONIC;
    if (result != 0 || (!boots && !runs && clock != CLOCK_REALTIME)) return (int)result;
    const char *path = getenv("LAB_CLOCK");
    FILE *file = path ? fopen(path, "r") : NULL;
    if (!file) return 0;
    long boot = 0, wall = 0, all = 0;
    if (fscanf(file, "%ld %ld %ld", &boot, &wall, &all) >= 2)
        now->tv_sec += all + (runs ? 0 : boots ? boot : wall);
    fclose(file);
    return 0;
}
