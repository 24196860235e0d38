#include "interrupt.h"

#include <signal.h>
#include <stddef.h>

static volatile sig_atomic_t interrupts;

static void on_interrupt(int number)
{
    if (interrupts++) {
        signal(number, SIG_DFL);
        raise(number);
    }
}

void interrupt_catch(int signal_number)
{
    /* No SA_RESTART: a read from the terminal ends, too. */
    struct sigaction action = {.sa_handler = on_interrupt};
    sigemptyset(&action.sa_mask);
    sigaction(signal_number, &action, NULL);
}

bool interrupt_pending(void)
{
    return interrupts != 0;
}

bool interrupt_take(void)
{
    bool pending = interrupts != 0;
    interrupts = 0;
    return pending;
}
