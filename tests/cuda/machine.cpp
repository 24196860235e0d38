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

enum { MAX_THREADS = 1024, STACK = 256 << 10, MAX_SHARED = 227 << 10 };
/* Where the memory of a block begins that its launch asked for: aligned to 256 bytes, and not to more. */
enum { SHARED_BEGIN = 5 * 256 };
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

/* A product of a warpgroup, as far as it is this lane's; of what was computed at once `sums` wait to be added. */
enum { MAX_PAIRS = 32, GROUP_THREADS = 128 };
struct product {
    float *to;
    int pairs;
    uint64_t a, b;
    float sums[4 * MAX_PAIRS];
};

struct fiber {
    context at;
    state now;
    bool made;
    unsigned parity;            /* of its next exchange */
    std::vector<copy> copies;   /* under way, oldest first */
    std::vector<size_t> groups; /* how many of them each group has; the last is not closed */
    bool unpublished;           /* copies have arrived that the tensor cores have not been told of */
    bool begun;                 /* its sums have been handed to products */
    size_t asked;               /* products so far */
    std::vector<product> products;
    std::vector<size_t> product_groups;
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

/* What all warps of a warpgroup asked for, in order: they have to ask for the same. */
std::vector<std::pair<uint64_t, uint64_t>> asked[MAX_THREADS / GROUP_THREADS];
bool block_unpublished; /* a thread came to a wait for the block so */
const char *broken;     /* what the kernel may not do and has done */

/* An asynchronous copy arrives when it is waited for, and a product reads when it is asked for: what comes too early
 * there lacks a wait before it. With `early` the copy arrives at once, and a product reads when it is waited for: what
 * comes too early then is the copy. */
bool early()
{
    static const char *const wanted = getenv("WARD_EMULATED_COPIES");
    return wanted && strcmp(wanted, "early") == 0;
}

void arrive(const copy &c)
{
    if (c.from)
        memcpy(c.to, c.from, 16);
    else
        memset(c.to, 0, 16);
}

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
        fibers[i].unpublished = fibers[i].begun = false;
        fibers[i].asked = 0;
        fibers[i].products.clear();
        fibers[i].product_groups.assign(1, 0);
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
    for (auto &group : asked)
        group.clear();
    block_unpublished = false;
    broken = nullptr;
    if (!begin_block(threads, hide))
        return false;
    for (;;) {
        unsigned waiting = 0;
        for (unsigned warp : warp_order.of((threads + 31) / 32)) {
            const unsigned first = 32 * warp, lanes = std::min(32u, threads - first);
            if (fibers[first].now != DONE && !run_warp(first, lanes))
                return false;
            if (broken)
                return fault(broken);
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
    block_unpublished |= fibers[current].unpublished;
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
    if (early())
        arrive({to, from});
    fibers[current].copies.push_back({to, from});
    fibers[current].groups.back()++;
}

void emulated_copy_group()
{
    fibers[current].groups.push_back(0);
}

/* The oldest of `groups` until `left` remain; returns how many things these had. */
static size_t finish_groups(std::vector<size_t> &groups, size_t left)
{
    size_t done = 0;
    while (groups.size() > left + 1) {
        done += groups.front();
        groups.erase(groups.begin());
    }
    return done;
}

void emulated_copy_wait(size_t left)
{
    fiber &f = fibers[current];
    const size_t done = finish_groups(f.groups, left);
    for (size_t i = 0; i < done && !early(); i++)
        arrive(f.copies[i]);
    f.copies.erase(f.copies.begin(), f.copies.begin() + (ptrdiff_t)done);
    f.unpublished |= done > 0;
}

/* ---- Hopper's products ------------------------------------------------------------------------------------------- */

uint32_t shared_address(const void *p)
{
    return (uint32_t)((const char *)p - block_memory) + SHARED_BEGIN;
}

/* 16 values of a row of a descriptor's matrix (PTX ISA, "Matrix Descriptor Format", "Shared Memory Matrix Layout" with
 * the 128-byte swizzle, K-major): rows of 128 bytes, eight of them to the next eight as the descriptor says, and bits
 * 4-6 of an address exchanged by its bits 7-9. */
const uint64_t OTHER_BITS = 0x3fffc000c000c000; /* unused, and the base offset */
static void read_row(float out[16], uint64_t descriptor, int row)
{
    const uint32_t begin = (uint32_t)(descriptor & 0x3fff) << 4, eight = (uint32_t)(descriptor >> 32 & 0x3fff) << 4;
    if (descriptor >> 62 != 1 || descriptor & OTHER_BITS)
        broken = "a descriptor of another layout";
    for (int piece = 0; piece < 2; piece++) {
        const uint32_t plain = begin + (uint32_t)row / 8 * eight + (uint32_t)row % 8 * 128 + (uint32_t)piece * 16;
        const uint32_t at = plain ^ (plain >> 7 & 7) << 4;
        if (at < SHARED_BEGIN || at + 16 > SHARED_BEGIN + MAX_SHARED) {
            broken = "a descriptor of no shared memory";
            return;
        }
        uint16_t values[8];
        memcpy(values, block_memory + (at - SHARED_BEGIN), sizeof values);
        for (int i = 0; i < 8; i++)
            out[8 * piece + i] = bf16_to_float(values[i]);
    }
}

/* This lane's part of D: of rows g and g + 8 of its warp's 16 the columns 2t and 2t + 1 of every eight. */
static void compute(product &p)
{
    const int warp = (int)(current / 32 % 4), g = (int)(current % 32 / 4), t = (int)(current % 4);
    float rows[2][16], column[16];
    for (int half = 0; half < 2; half++)
        read_row(rows[half], p.a, 16 * warp + g + 8 * half);
    for (int n = 0; n < p.pairs; n++)
        for (int i = 0; i < 2; i++) {
            read_row(column, p.b, 8 * n + 2 * t + i);
            for (int half = 0; half < 2; half++) {
                float sum = 0;
                for (int k = 0; k < 16; k++)
                    sum += rows[half][k] * column[k];
                p.sums[4 * n + 2 * half + i] = sum;
            }
        }
}

void emulated_publish()
{
    fibers[current].unpublished = false;
}

void emulated_wgmma_begin()
{
    fibers[current].begun = true;
}

void emulated_wgmma(float *sums, int pairs, uint64_t a, uint64_t b)
{
    fiber &f = fibers[current];
    auto &others = asked[current / GROUP_THREADS];
    if (f.asked == others.size())
        others.push_back({a, b});
    if (others[f.asked++] != std::make_pair(a, b))
        broken = "threads of a warpgroup ask for different products";
    if (!f.begun)
        broken = "a product without wgmma.fence before it";
    if (block_unpublished)
        broken = "a product of copies without fence.proxy.async before the block waited";
    f.products.push_back({sums, pairs, a, b, {}});
    f.product_groups.back()++;
    if (!early())
        compute(f.products.back());
}

void emulated_wgmma_group()
{
    fibers[current].product_groups.push_back(0);
}

void emulated_wgmma_wait(size_t left)
{
    fiber &f = fibers[current];
    const size_t done = finish_groups(f.product_groups, left);
    for (size_t i = 0; i < done; i++) {
        product &p = f.products[i];
        if (early())
            compute(p);
        for (int j = 0; j < 4 * p.pairs; j++)
            p.to[j] += p.sums[j];
    }
    f.products.erase(f.products.begin(), f.products.begin() + (ptrdiff_t)done);
    f.begun = false;
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
