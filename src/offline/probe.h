/* What a program would do to get out, tried: from inside the lock and without it. Raw system calls throughout. */
#ifndef WARD_OFFLINE_PROBE_H
#define WARD_OFFLINE_PROBE_H

#include "offline/offline.h"

struct probe {
    const char *name; /* "tcp_connect" */
    const char *what; /* for people: "connect to a TCP listener on this machine" */
    bool needed;      /* without the lock it has to succeed, else its refusal proves nothing */
    int locked, unlocked; /* what the kernel answered: 0 when it was allowed, else errno */
};

struct proof {
    struct offline_state state; /* of the locked processes: as far as the kernel could lock them */
    bool enforced; /* every guarantee holds, everything tried was refused, and what is needed went well without the lock */
    int n;
    struct probe at[24];
};

/* Each attempt is made in a process of its own. Fails when one could not be made at all. */
WARD_CHECKED int probe_all(struct proof *out, struct ward_error *err);

#endif
