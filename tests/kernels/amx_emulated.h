/* The instructions of AMX that amx.c uses, in C, so that a processor without them can run everything else in it; given
 * to the compiler before the file. As Intel's manual defines them: what it leaves undefined or makes a fault ends the
 * program here. */
#ifndef WARD_TESTS_KERNELS_AMX_EMULATED_H
#define WARD_TESTS_KERNELS_AMX_EMULATED_H

#include <immintrin.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { EMULATED_TILES = 8, EMULATED_ROWS = 16, EMULATED_ROW_BYTES = 64 };

/* Of this thread. */
struct emulated_tiles {
    int configured;
    struct {
        int rows, row_bytes;
        uint8_t data[EMULATED_ROWS][EMULATED_ROW_BYTES];
    } tile[EMULATED_TILES];
};
static _Thread_local struct emulated_tiles emulated;

static inline void emulated_need(int condition, const char *what)
{
    if (!condition) {
        fprintf(stderr, "AMX would fault: %s\n", what);
        abort();
    }
}

static inline void emulated_loadconfig(const void *config)
{
    uint8_t bytes[64];
    if (emulated.configured) { /* no fault, but nobody of ours may leave them to the next */
        fprintf(stderr, "the tiles of this thread were not released\n");
        abort();
    }
    memcpy(bytes, config, sizeof bytes);
    emulated_need(bytes[0] == 1 && bytes[1] == 0, "palette 1 and start row 0 are all that is emulated");
    for (int i = 2; i < 16; i++)
        emulated_need(bytes[i] == 0, "a reserved byte of the configuration is set");
    for (int i = 0; i < 16; i++) {
        uint16_t row_bytes;
        memcpy(&row_bytes, bytes + 16 + 2 * i, sizeof row_bytes);
        const int rows = bytes[48 + i];
        emulated_need(row_bytes <= EMULATED_ROW_BYTES && rows <= EMULATED_ROWS, "a tile is too large");
        emulated_need((row_bytes == 0) == (rows == 0), "a tile has rows without columns or columns without rows");
        emulated_need(i < EMULATED_TILES || rows == 0, "there are eight tiles");
        if (i < EMULATED_TILES) {
            emulated.tile[i].rows = rows;
            emulated.tile[i].row_bytes = row_bytes;
            memset(emulated.tile[i].data, 0, sizeof emulated.tile[i].data);
        }
    }
    emulated.configured = 1;
}

static inline void emulated_release(void)
{
    memset(&emulated, 0, sizeof emulated);
}

static inline void emulated_need_tile(int tile)
{
    emulated_need(emulated.configured && emulated.tile[tile].rows > 0, "a tile of no shape is used");
}

static inline void emulated_zero(int tile)
{
    emulated_need_tile(tile);
    memset(emulated.tile[tile].data, 0, sizeof emulated.tile[tile].data);
}

static inline void emulated_loadd(int tile, const void *base, long stride)
{
    emulated_zero(tile);
    for (int r = 0; r < emulated.tile[tile].rows; r++)
        memcpy(emulated.tile[tile].data[r], (const uint8_t *)base + r * stride, (size_t)emulated.tile[tile].row_bytes);
}

static inline void emulated_stored(int tile, void *base, long stride)
{
    emulated_need_tile(tile);
    for (int r = 0; r < emulated.tile[tile].rows; r++)
        memcpy((uint8_t *)base + r * stride, emulated.tile[tile].data[r], (size_t)emulated.tile[tile].row_bytes);
}

/* Pairs of bf16 a [m][k][2] and b [k][n][2]: the products of the even and of the odd columns are summed apart, each
 * from 0 in the order of k by fused multiply-adds, then added to each other, then to what the tile holds. Subnormal
 * numbers are 0, read or made, whatever the thread's own mode is; all rounds to nearest even. */
static inline void emulated_dpbf16ps(int sums, int a, int b)
{
    const unsigned mode = _mm_getcsr(), flush = 0x8000 | 0x0040, all_masked = 0x1f80;
    emulated_need_tile(sums);
    emulated_need_tile(a);
    emulated_need_tile(b);
    emulated_need(sums != a && sums != b && a != b, "a tile is used twice in one multiply");
    emulated_need(emulated.tile[sums].rows == emulated.tile[a].rows &&
                      emulated.tile[sums].row_bytes == emulated.tile[b].row_bytes &&
                      emulated.tile[a].row_bytes == 4 * emulated.tile[b].rows,
                  "the shapes of a multiply do not fit");
    _mm_setcsr(all_masked | flush);
    __asm__ volatile("" : : : "memory"); /* the arithmetic stays between the two changes of mode */
    const __mmask16 mask = (__mmask16)((1u << emulated.tile[b].row_bytes / 4) - 1);
    for (int m = 0; m < emulated.tile[sums].rows; m++) {
        __m512 even = _mm512_setzero_ps(), odd = _mm512_setzero_ps();
        for (int k = 0; k < emulated.tile[b].rows; k++) {
            uint32_t pair;
            memcpy(&pair, emulated.tile[a].data[m] + 4 * k, sizeof pair);
            const __m512i pairs = _mm512_maskz_loadu_epi32(mask, emulated.tile[b].data[k]);
            const __m512i upper = _mm512_set1_epi32((int)0xffff0000);
            even = _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_set1_epi32((int)(pair << 16))),
                                   _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16)), even);
            odd = _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_set1_epi32((int)(pair & 0xffff0000))),
                                  _mm512_castsi512_ps(_mm512_and_si512(pairs, upper)), odd);
        }
        void *row = emulated.tile[sums].data[m];
        _mm512_mask_storeu_ps(row, mask, _mm512_add_ps(_mm512_maskz_loadu_ps(mask, row), _mm512_add_ps(even, odd)));
    }
    __asm__ volatile("" : : : "memory");
    _mm_setcsr(mode);
}

#undef _tile_loadd
#undef _tile_stored
#undef _tile_zero
#undef _tile_dpbf16ps
#define _tile_loadconfig emulated_loadconfig
#define _tile_release emulated_release
#define _tile_loadd(tile, base, stride) emulated_loadd(tile, base, (long)(stride))
#define _tile_stored(tile, base, stride) emulated_stored(tile, base, (long)(stride))
#define _tile_zero emulated_zero
#define _tile_dpbf16ps emulated_dpbf16ps

#endif
