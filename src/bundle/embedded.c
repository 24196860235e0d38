#include "bundle/embedded.h"

/* Paths are relative to the folder that make runs in. */
#define EMBED(name, path)                                                                                              \
    __asm__(".section .rodata\n"                                                                                       \
            ".global " #name "\n.hidden " #name "\n.type " #name ", %object\n"                                         \
            #name ":\n.incbin \"" path "\"\n.byte 0\n"                                                                 \
            ".size " #name ", . - " #name "\n"                                                                         \
            ".text\n")

EMBED(embedded_install_sh, "src/bundle/install.sh");
EMBED(embedded_license, "LICENSE");
