/* The lock: what the process can no longer do, whatever a file made it do, enforced by the kernel.
 *
 * Once offline_lock returns 0 there are no new sockets of any family and no call on those inherited, no program is
 * started, no process but this one is touched, no memory becomes code, files are read and written only where the policy
 * says, and no core is dumped. It cannot be undone, and threads started later inherit it. docs/offline.md has each
 * guarantee, the system call by which it is kept and the kernel that it needs. */
#ifndef WARD_OFFLINE_OFFLINE_H
#define WARD_OFFLINE_OFFLINE_H

#include "base/error.h"

enum offline_access {
    OFFLINE_READ,   /* a file, or a folder: all below it, and the files that links in the folder itself point to */
    OFFLINE_LIST,   /* a folder: the names in it and below, not the contents */
    OFFLINE_OUTPUT, /* a file to be made or replaced: its folder is opened as by OFFLINE_FOLDER, for the temporary name;
                       what is there and no regular file (a device, a pipe) is opened alone */
    OFFLINE_FOLDER, /* a folder: files and folders below are made, read, written, renamed and removed */
    OFFLINE_LINKS,  /* as OFFLINE_FOLDER, and symbolic links are made in it */
};

/* Starts as {0}: nothing but what the C library and ward read of the system (/proc/self, CPU and cgroup limits). */
struct offline_policy {
    struct offline_path {
        char *path;
        enum offline_access access;
    } *paths;
    size_t n;
    bool failed;           /* memory ran out in offline_allow; offline_lock says so */
    bool read_anywhere;    /* every file of the user's, as a chat's /image asks for */
    bool keep_descriptors; /* those above 2 stay open; else all are closed but what a path names as /dev/fd/N */
    bool card;             /* NVIDIA's driver computes: its devices are opened and take its commands */
    bool partial;          /* lock as far as the kernel can, instead of failing */
};

/* Paths are copied, and resolved by offline_lock: links are followed then. NULL, and what is not there, is no error:
 * opening it will say so. */
void offline_allow(struct offline_policy *policy, enum offline_access access, const char *path);
void offline_policy_free(struct offline_policy *policy);

/* Call it before a model or an image is opened and before threads are started. A later call can only take away: it
 * holds in addition to those before. Fails when the kernel cannot give a guarantee, naming it; with `partial` it
 * returns 0 and offline_state tells. */
WARD_CHECKED int offline_lock(const struct offline_policy *policy, struct ward_error *err);

/* For --json and the audit log. */
struct offline_state {
    bool attempted;    /* offline_lock was called */
    bool enforced;     /* every guarantee holds */
    bool seccomp;      /* the filter of system calls is in force */
    int landlock;      /* the ABI in force, 0: none */
    char missing[400]; /* what keeps `enforced` from being true, a clause; "" */
};
const struct offline_state *offline_state(void);

#endif
