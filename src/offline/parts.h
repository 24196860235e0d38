/* The parts of the lock. Each returns 0 or an errno of the kernel's. */
#ifndef WARD_OFFLINE_PARTS_H
#define WARD_OFFLINE_PARTS_H

#include "offline/offline.h"

/* The ABI that the kernel has, from 1; 0: none, and why in *error. */
int landlock_abi(int *error);
/* A layer of rules for this thread and those it starts. */
int landlock_enforce(const struct offline_policy *policy, int abi);

/* The filter of system calls, for all threads; card: as in the policy. */
int seccomp_enforce(bool card);

#endif
