/* Files of this repository that every bundle holds, as they were when ward was built. */
#ifndef WARD_BUNDLE_EMBEDDED_H
#define WARD_BUNDLE_EMBEDDED_H

extern const char embedded_install_sh[], embedded_license[]; /* NUL-terminated */

#endif
