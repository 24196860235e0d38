/* Preloaded, it takes the lock's two walls away: what then works is what they were in the way of. ward believes itself
 * locked in. For tools/card_report.py, where a driver does not start behind the lock. */
#include <dlfcn.h>
#include <seccomp.h>
#include <stdarg.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SYS_landlock_restrict_self
#define SYS_landlock_restrict_self 446
#endif

int seccomp_load(const scmp_filter_ctx filter)
{
    (void)filter;
    return 0;
}

long syscall(long number, ...)
{
    long (*next)(long, ...), arguments[6];
    va_list given;
    va_start(given, number);
    for (int i = 0; i < 6; i++)
        arguments[i] = va_arg(given, long);
    va_end(given);
    if (number == SYS_landlock_restrict_self)
        return 0;
    *(void **)&next = dlsym(RTLD_NEXT, "syscall");
    return next(number, arguments[0], arguments[1], arguments[2], arguments[3], arguments[4], arguments[5]);
}
