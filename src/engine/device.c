#include "engine/device.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

bool device_parse(const char *name, int *out)
{
    static const char CARD[] = "cuda:";
    const char *number = name && strncmp(name, CARD, strlen(CARD)) == 0 ? name + strlen(CARD) : NULL;
    if (!name || strcmp(name, "auto") == 0) {
        *out = DEVICE_AUTO;
    } else if (strcmp(name, "cpu") == 0) {
        *out = DEVICE_CPU;
    } else if (strcmp(name, "cuda") == 0) {
        *out = DEVICE_FIRST_CARD;
    } else if (number && isdigit((unsigned char)*number)) {
        char *end;
        const long card = strtol(number, &end, 10);
        *out = (int)card;
        return !*end && card < CU_CARDS;
    } else {
        return false;
    }
    return true;
}
