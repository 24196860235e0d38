/* The page cache: dropping files from it, so that the next run waits for the disk as the first one after a start does.
 */
#ifndef WARD_BENCH_PAGECACHE_H
#define WARD_BENCH_PAGECACHE_H

#include "base/error.h"

/* Writes back and drops the pages of a file that no process has mapped, and looks whether they are gone. *resident is
 * the share of the file that is still in memory afterwards, 0 to 1; negative: the kernel does not tell (to those who
 * may not write a file it says so since Linux 5.2, by calling all of it resident). */
WARD_CHECKED int pagecache_drop(const char *path, double *resident, struct ward_error *err);
/* The share of a file that is in memory, as above. */
double pagecache_resident(const char *path);

#endif
