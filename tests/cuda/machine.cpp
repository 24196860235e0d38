#include "machine.h"

#include "emulated.h"

#include <algorithm>
#include <numeric>
#include <random>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>
#include <vector>

emulated_index threadIdx, blockIdx, blockDim, gridDim;

namespace
{

enum { MAX_THREADS = 1024, STACK = 256 << 10, MAX_SHARED = 99 << 10 };
enum state { RUNNING, AT_WARP, AT_BLOCK, AT_GRID, DONE };

/* A thread of a block, and the scheduler. Each has a stack of its own; one lets another go on where that one stopped.
 */
#ifdef __x86_64__
/* What a call preserves is on the stack, whose pointer is all there is to keep: swapcontext asks the system twice. */
typedef void *context;
extern "C" void emulated_switch(context *from, context to);
__asm__(".text\n"
        "emulated_switch:\n"
        "    pushq %rbp\n    pushq %rbx\n    pushq %r12\n    pushq %r13\n    pushq %r14\n    pushq %r15\n"
        "    movq %rsp, (%rdi)\n"
        "    movq %rsi, %rsp\n"
        "    popq %r15\n    popq %r14\n    popq %r13\n    popq %r12\n    popq %rbx\n    popq %rbp\n"
        "    ret\n");

void change(context &from, context &to)
{
    emulated_switch(&from, to);
}

void prepare(context &c, char *stack, size_t size, void (*start)())
{
    void **top = (void **)(stack + size) - 8; /* aligned as at the beginning of a function */
    top[6] = (void *)start;
    c = top;
}
#else
typedef ucontext_t context;

void change(context &from, context &to)
{
    swapcontext(&from, &to);
}

void prepare(context &c, char *stack, size_t size, void (*start)())
{
    getcontext(&c);
    c.uc_stack.ss_sp = stack;
    c.uc_stack.ss_size = size;
    c.uc_link = nullptr;
    makecontext(&c, start, 0);
}
#endif

struct copy {
    void *to;
    const void *from;
};

struct fiber {
    context at;
    state now;
    bool made;
    unsigned parity;            /* of its next exchange */
    std::vector<copy> copies;   /* under way, oldest first */
    std::vector<size_t> groups; /* how many of them each group has; the last is not closed */
};

fiber fibers[MAX_THREADS];
context scheduler;
unsigned current;
const emulated_launch *running;
alignas(256) char block_memory[MAX_SHARED + 256];
/* Two exchanges of each warp: while the slower lanes read one, the faster may fill the next. */
alignas(16) char slots[MAX_THREADS / 32][2][32 * EMULATED_SLOT];
struct result {
    alignas(16) char at[EMULATED_RESULT];
    bool made;
} results[MAX_THREADS / 32][2];

void leave(state why)
{
    fiber &f = fibers[current];
    f.now = why;
    change(f.at, scheduler);
}

/* Made once; each run of a kernel is a turn of its loop. */
void fiber_main()
{
    for (;;) {
        running->kernel();
        leave(DONE);
    }
}

/* Until it waits or ends. */
void enter(unsigned thread)
{
    fiber &f = fibers[thread];
    if (!f.made) {
        void *stack = mmap(nullptr, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (stack == MAP_FAILED)
            abort();
        /* Ends at addresses that fall into different sets of the cache: a warp's 32 are in use at once. */
        prepare(f.at, (char *)stack, STACK - thread % 48 * 320, fiber_main);
        f.made = true;
    }
    current = thread;
    threadIdx = {thread, 0, 0};
    f.now = RUNNING;
    change(scheduler, f.at);
}

/* The order that was asked for, of lanes, of warps, of blocks. */
struct ordering {
    std::vector<unsigned> at;
    const std::vector<unsigned> &of(unsigned n)
    {
        static const char *const wanted = getenv("WARD_EMULATED_ORDER");
        static std::mt19937 random(wanted ? (unsigned)atoi(wanted) : 0);
        const bool reverse = wanted && strcmp(wanted, "reverse") == 0;
        if (at.size() != n) {
            at.resize(n);
            std::iota(at.begin(), at.end(), 0u);
            if (reverse)
                std::reverse(at.begin(), at.end());
        }
        if (wanted && !reverse)
            std::shuffle(at.begin(), at.end(), random);
        return at;
    }
} lane_order, warp_order, block_order;

bool fault(const char *what)
{
    fprintf(stderr, "emulated card: %s in block %u, %u, %u\n", what, blockIdx.x, blockIdx.y, blockIdx.z);
    return false;
}

/* A warp until all its lanes wait for the block or are done. */
bool run_warp(unsigned first, unsigned lanes)
{
    for (;;) {
        unsigned at_warp = 0, at_block = 0, at_grid = 0, done = 0;
        for (unsigned lane : lane_order.of(lanes)) {
            const unsigned thread = first + lane;
            if (fibers[thread].now == RUNNING)
                enter(thread);
            at_warp += fibers[thread].now == AT_WARP;
            at_block += fibers[thread].now == AT_BLOCK;
            at_grid += fibers[thread].now == AT_GRID;
            done += fibers[thread].now == DONE;
        }
        if (at_grid)
            return fault("a thread waits for the kernel before it a second time");
        if (!at_warp)
            return at_block == 0 || done == 0 || fault("some lanes of a warp wait for the block, others have ended");
        if (at_warp != lanes)
            return fault("not all lanes of a warp come to a shuffle");
        for (unsigned lane = 0; lane < lanes; lane++)
            fibers[first + lane].now = RUNNING;
    }
}

void touched_too_early(int)
{
    static const char text[] = "emulated card: a kernel touches memory before it waits for the kernel before it\n";
    (void)!write(STDERR_FILENO, text, sizeof text - 1);
    _exit(1);
}

/* All threads up to where they wait for the kernel before theirs, which may still be running: with `hide` in a memory
 * that cannot be touched. */
bool begin_block(unsigned threads, void (*hide)(bool))
{
    struct sigaction early = {}, kept;
    early.sa_handler = touched_too_early;
    if (hide) {
        sigaction(SIGSEGV, &early, &kept);
        hide(true);
    }
    bool all_wait = true;
    for (unsigned i = 0; i < threads; i++) {
        fibers[i].parity = 0;
        fibers[i].copies.clear();
        fibers[i].groups.assign(1, 0);
        enter(i);
        all_wait &= fibers[i].now == AT_GRID;
        fibers[i].now = RUNNING;
    }
    if (hide) {
        hide(false);
        sigaction(SIGSEGV, &kept, nullptr);
    }
    return all_wait || fault("not every thread begins by waiting for the kernel before it");
}

bool run_block(unsigned threads, void (*hide)(bool))
{
    if (!begin_block(threads, hide))
        return false;
    for (;;) {
        unsigned waiting = 0;
        for (unsigned warp : warp_order.of((threads + 31) / 32)) {
            const unsigned first = 32 * warp, lanes = std::min(32u, threads - first);
            if (fibers[first].now != DONE && !run_warp(first, lanes))
                return false;
            waiting += fibers[first].now == AT_BLOCK;
        }
        if (!waiting)
            return true;
        for (unsigned i = 0; i < threads; i++)
            if (fibers[i].now == AT_BLOCK)
                fibers[i].now = RUNNING;
    }
}

} // namespace

void emulated_wait_previous()
{
    leave(AT_GRID);
}

void emulated_prefetch(const void *at)
{
    if (running->has(at))
        return;
    fault("a prefetch from where there is no memory");
    _exit(1);
}

void emulated_wait_block()
{
    leave(AT_BLOCK);
}

void emulated_wait_warp()
{
    leave(AT_WARP);
}

void *emulated_block_memory()
{
    return block_memory;
}

const void *emulated_exchange(const void *mine, size_t bytes)
{
    const unsigned turn = fibers[current].parity++ % 2;
    char *const slot = slots[current / 32][turn];
    results[current / 32][turn].made = false;
    memcpy(slot + current % 32 * EMULATED_SLOT, mine, bytes);
    emulated_wait_warp();
    return slot;
}

void *emulated_result(bool *first)
{
    result &r = results[current / 32][(fibers[current].parity + 1) % 2];
    *first = !r.made;
    r.made = true;
    return r.at;
}

void emulated_copy(void *to, const void *from)
{
    fibers[current].copies.push_back({to, from});
    fibers[current].groups.back()++;
}

void emulated_copy_group()
{
    fibers[current].groups.push_back(0);
}

void emulated_copy_wait(size_t left)
{
    fiber &f = fibers[current];
    size_t done = 0;
    while (f.groups.size() > left + 1) {
        done += f.groups.front();
        f.groups.erase(f.groups.begin());
    }
    for (size_t i = 0; i < done; i++)
        if (f.copies[i].from)
            memcpy(f.copies[i].to, f.copies[i].from, 16);
        else
            memset(f.copies[i].to, 0, 16);
    f.copies.erase(f.copies.begin(), f.copies.begin() + (ptrdiff_t)done);
}

bool emulated_run(const emulated_launch &launch)
{
    if (launch.threads > MAX_THREADS || launch.shared_bytes > MAX_SHARED)
        return fault("a block asks for too much");
    running = &launch;
    blockDim = {launch.threads, 1, 1};
    gridDim = {launch.grid[0], launch.grid[1], launch.grid[2]};
    const unsigned n = launch.grid[0] * launch.grid[1] * launch.grid[2];
    void (*hide)(bool) = launch.hide; /* for the first block that runs */
    for (unsigned block : block_order.of(n)) {
        blockIdx = {block % launch.grid[0], block / launch.grid[0] % launch.grid[1],
                    block / launch.grid[0] / launch.grid[1]};
        memset(block_memory, 0xff, launch.shared_bytes); /* not numbers */
        if (!run_block(launch.threads, hide))
            return false;
        hide = nullptr;
    }
    return true;
}
