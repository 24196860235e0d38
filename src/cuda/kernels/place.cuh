/* Weights from the layout of files to that of the card: model/blocks.h describes the one, cuda/layout.h the other. Each
 * thread makes one unit; `from` holds rows first_row .. first_row + rows - 1 of the file, at any address. */
#ifndef WARD_CUDA_PLACE_CUH
#define WARD_CUDA_PLACE_CUH

#include "cuda/kernels/device.cuh"

__device__ inline uint32_t u16_at(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8;
}

/* The unit of this thread, as an index into the planes; returns false for a thread too many. */
struct placed_unit {
    size_t at;
    int row, unit; /* of the piece, of the row */
};

__device__ inline bool this_unit(placed_unit *u, const card_matrix &w, int first_row, int rows)
{
    const size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= (size_t)rows * (size_t)w.units)
        return false;
    u->row = (int)(i / (size_t)w.units);
    u->unit = (int)(i % (size_t)w.units);
    u->at = (size_t)first_row * (size_t)w.units + i;
    return true;
}

__device__ inline uint8_t *at_plane(const uint8_t *plane, size_t offset)
{
    return const_cast<uint8_t *>(plane) + offset;
}

/* `bytes` of each value, which is a float of any kind. */
extern "C" __global__ void place_floats(card_matrix w, const uint8_t *from, int first_row, int rows, int bytes)
{
    wait_for_previous();
    placed_unit u;
    if (!this_unit(&u, w, first_row, rows))
        return;
    uint8_t *to = at_plane(w.low, u.at * UNIT * (size_t)bytes);
    for (int i = 0; i < UNIT; i++)
        for (int b = 0; b < bytes; b++) {
            const int col = u.unit * UNIT + i;
            to[i * bytes + b] =
                col < w.cols ? from[((size_t)u.row * (size_t)w.cols + (size_t)col) * (size_t)bytes + (size_t)b] : 0;
        }
}

/* Blocks of 32 with one scale, or scale and minimum; kind: enum card_block. */
extern "C" __global__ void place_blocks_32(card_matrix w, const uint8_t *from, int first_row, int rows, int kind)
{
    wait_for_previous();
    placed_unit u;
    if (!this_unit(&u, w, first_row, rows))
        return;
    const bool present = u.unit * UNIT < w.cols;
    const int size = kind == FROM_Q8_0   ? 34
                     : kind == FROM_Q4_0 ? 18
                     : kind == FROM_Q4_1 ? 20
                     : kind == FROM_Q5_0 ? 22
                                         : 24;
    const int scales = kind == FROM_Q4_1 || kind == FROM_Q5_1 ? 4 : 2;
    const bool fifths = kind == FROM_Q5_0 || kind == FROM_Q5_1;
    const uint8_t *block = from + ((size_t)u.row * (size_t)(w.cols / 32) + (size_t)(u.unit / 2)) * (size_t)size;
    const uint8_t *q = block + scales + (fifths ? 4 : 0);
    const int odd = u.unit % 2; /* the first 16 values are in the low halves */

    uint32_t values[UNIT];
    for (int i = 0; i < UNIT; i++) {
        uint32_t value = 0;
        if (present && kind == FROM_Q8_0) {
            value = q[odd * UNIT + i];
        } else if (present) {
            value = q[i] >> 4 * odd & 15;
            if (fifths) {
                const int bit = odd * UNIT + i;
                value |= (uint32_t)(block[scales + bit / 8] >> bit % 8 & 1) << 4;
            }
            if (kind == FROM_Q5_0)
                value = (value - 16) & 255;
        }
        values[i] = value;
    }
    if (w.format == CARD_Q4) {
        uint32_t *to = (uint32_t *)at_plane(w.low, u.at * 8);
        for (int word = 0; word < 2; word++) {
            uint32_t packed = 0;
            for (int b = 0; b < 4; b++)
                packed |= (values[8 * word + b] | values[8 * word + 4 + b] << 4) << 8 * b;
            to[word] = packed;
        }
    } else {
        uint32_t *to = (uint32_t *)at_plane(w.low, u.at * 16);
        for (int word = 0; word < 4; word++)
            to[word] =
                values[4 * word] | values[4 * word + 1] << 8 | values[4 * word + 2] << 16 | values[4 * word + 3] << 24;
    }
    if (!odd) {
        uint16_t *to = (uint16_t *)at_plane(w.scale, u.at / 2 * (size_t)scales);
        for (int i = 0; i < scales / 2; i++)
            to[i] = (uint16_t)(present ? u16_at(block + 2 * i) : 0);
    }
}

/* Q4_K and Q5_K; cols is a multiple of 256, so nothing is filled up. */
extern "C" __global__ void place_blocks_k(card_matrix w, const uint8_t *from, int first_row, int rows)
{
    wait_for_previous();
    placed_unit u;
    if (!this_unit(&u, w, first_row, rows))
        return;
    const bool fifths = w.format == CARD_Q5K;
    const int size = fifths ? 176 : 144;
    const uint8_t *block = from + ((size_t)u.row * (size_t)(w.cols / 256) + (size_t)(u.unit / 16)) * (size_t)size;
    const uint8_t *scales = block + 4, *fifth = block + 16, *q = block + (fifths ? 48 : 16);
    const int group = u.unit % 16 / 2, odd = u.unit % 2; /* of 32 values; which half of them */
    uint32_t packed[2] = {0, 0}, high = 0;
    for (int i = 0; i < UNIT; i++) {
        const int at = odd * UNIT + i;
        const uint32_t value = q[group / 2 * 32 + at] >> 4 * (group % 2) & 15;
        packed[i / 8] |= value << (8 * (i % 4) + 4 * (i / 4 % 2));
        high |= fifths ? (uint32_t)(fifth[at] >> group & 1) << i : 0;
    }
    uint32_t *low = (uint32_t *)at_plane(w.low, u.at * 8);
    low[0] = packed[0];
    low[1] = packed[1];
    if (fifths)
        *(uint16_t *)at_plane(w.high, u.at * 2) = (uint16_t)high;
    if (u.unit % 16)
        return;
    card_super super;
    super.d = (uint16_t)u16_at(block);
    super.dmin = (uint16_t)u16_at(block + 2);
    super.high = 0;
    for (int g = 0; g < 8; g++) {
        const int scale = g < 4 ? scales[g] & 63 : (scales[g + 4] & 15) | scales[g - 4] >> 6 << 4;
        const int minimum = g < 4 ? scales[g + 4] & 63 : scales[g + 4] >> 4 | scales[g] >> 6 << 4;
        super.low[g] = (uint8_t)((scale & 15) | (minimum & 15) << 4);
        super.high |= (uint32_t)(scale >> 4 | minimum >> 4 << 2) << 4 * g;
    }
    *(uint4 *)at_plane(w.super, u.at / 16 * sizeof super) = *(const uint4 *)&super;
}

extern "C" __global__ void place_q6_k(card_matrix w, const uint8_t *from, int first_row, int rows)
{
    wait_for_previous();
    placed_unit u;
    if (!this_unit(&u, w, first_row, rows))
        return;
    const uint8_t *block = from + ((size_t)u.row * (size_t)(w.cols / 256) + (size_t)(u.unit / 16)) * 210;
    uint32_t packed[2] = {0, 0}, high = 0;
    for (int i = 0; i < UNIT; i++) {
        const int at = u.unit % 16 * UNIT + i, half = at / 128, group = at % 128 / 32, in = at % 32;
        const uint32_t low = block[half * 64 + group % 2 * 32 + in] >> 4 * (group / 2) & 15;
        packed[i / 8] |= low << (8 * (i % 4) + 4 * (i / 4 % 2));
        high |= (uint32_t)(block[128 + half * 32 + in] >> 2 * group & 3) << 2 * i;
    }
    uint32_t *low = (uint32_t *)at_plane(w.low, u.at * 8);
    low[0] = packed[0];
    low[1] = packed[1];
    *(uint32_t *)at_plane(w.high, u.at * 4) = high;
    *at_plane(w.scale, u.at) = block[192 + u.unit % 16];
    if (u.unit % 16 == 0)
        *(uint16_t *)at_plane(w.super, u.at / 16 * 2) = (uint16_t)u16_at(block + 208);
}

#endif
