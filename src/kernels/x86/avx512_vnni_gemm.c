/* The product of matrices of AVX-512 VNNI: panels of x in 8 bits as struct x8 has it and of weights as bytes, weights
 * exact. A product of 32 (or 16) columns is summed in whole numbers, then scaled and added in float32. */
#include "kernels/x86/avx512_vnni.h"
#include "kernels/x86/transpose16.h"

enum {
    TILE_ROWS = 7, /* 14 registers of whole sums, 14 of float sums, 2 of weights, 1 of x */
    TILE_COLS = 2 * LANES,
    STEP = X8_BLOCK,   /* columns of a group of the panels */
    QUADS = STEP / 4,  /* the multiply takes four columns at a time */
    WEIGHT_ZERO = 128, /* what stands for 0 in a panel of weights */
};

/* What a group of a panel holds after its bytes, [QUADS][rows][4]. Weights: scales [parts][TILE_COLS], then minima
 * [TILE_COLS] if affine. x: scales [TILE_ROWS], minus WEIGHT_ZERO times the sums [parts][TILE_ROWS], then if affine
 * scale times sum [TILE_ROWS]. */
struct panels {
    int parts;   /* of a group, each with a scale of its own in w */
    bool affine; /* w = scale q + minimum */
};

static const struct panels panels_32 = {1, false}, panels_affine = {1, true}, panels_16 = {2, false};

#define X_GROUP(parts, affine) (TILE_ROWS * (STEP + sizeof(float) * (size_t)(1 + (parts) + (affine))))
#define W_GROUP(parts, affine) (TILE_COLS * (STEP + sizeof(float) * (size_t)((parts) + (affine))))

static ALWAYS_INLINE size_t x_group(const struct panels *p)
{
    return X_GROUP(p->parts, p->affine);
}

static ALWAYS_INLINE size_t w_group(const struct panels *p)
{
    return W_GROUP(p->parts, p->affine);
}

/* ---- x ---- */

/* One group of one row. */
static ALWAYS_INLINE void pack_x_group(const struct panels *p, uint8_t *group, const float *x, int row)
{
    float scale;
    const __m256i q = quantize_block(x, &scale);
    uint32_t quads[QUADS];
    _mm256_storeu_si256((void *)quads, q);
    for (int i = 0; i < QUADS; i++)
        memcpy(group + 4 * (i * TILE_ROWS + row), &quads[i], 4);

    const int32_t low = _mm512_reduce_add_epi32(_mm512_cvtepi8_epi32(_mm256_castsi256_si128(q)));
    const int32_t high = _mm512_reduce_add_epi32(_mm512_cvtepi8_epi32(_mm256_extracti128_si256(q, 1)));
    const int32_t zero[2] = {-WEIGHT_ZERO * (p->parts == 1 ? low + high : low), -WEIGHT_ZERO * high};
    const float sum = scale * (float)(low + high);
    uint8_t *to = group + TILE_ROWS * STEP + 4 * row;
    memcpy(to, &scale, 4);
    for (int part = 0; part < p->parts; part++)
        memcpy(to + 4 * TILE_ROWS * (1 + part), &zero[part], 4);
    if (p->affine)
        memcpy(to + 4 * TILE_ROWS * (1 + p->parts), &sum, 4);
}

static ALWAYS_INLINE void pack_x(const struct panels *p, void *panel, const float *x, size_t stride, int rows, int k)
{
    uint8_t *group = panel;
    memset(panel, 0, rows < TILE_ROWS ? (size_t)((k + STEP - 1) / STEP) * x_group(p) : 0);
    for (int i = 0; i < k; i += STEP, group += x_group(p))
        for (int r = 0; r < rows; r++) {
            const float *at = x + (size_t)r * stride + i;
            if (k - i >= STEP) {
                pack_x_group(p, group, at, r);
            } else {
                float part[STEP] = {0};
                memcpy(part, at, (size_t)(k - i) * sizeof *at);
                pack_x_group(p, group, part, r);
            }
        }
}

/* ---- weights ---- */

/* Turns 16 rows' vectors of lanes into 16 lanes' vectors of rows. */
static ALWAYS_INLINE void transpose_bytes(__m512i rows[LANES])
{
    vec_transpose((__m512 *)rows);
}

/* 16 rows of a chunk of four blocks of 32, to groups `group` .. group + blocks - 1. */
static ALWAYS_INLINE void pack_chunk(const struct panels *p, const struct format_32 *f, uint8_t *group,
                                     const uint8_t *w, size_t row_bytes, int rows, const int blocks)
{
    __m512i q[2][LANES];
    __m512 d[LANES], m[LANES];
    const __m512i shift = _mm512_set1_epi8((char)(WEIGHT_ZERO - f->zero));
    for (int r = 0; r < LANES; r++) {
        struct unpacked_32 u = {.d = _mm512_setzero_ps(), .m = _mm512_setzero_ps()};
        u.q[0] = u.q[1] = _mm512_setzero_si512();
        if (r < rows)
            u = unpack_32(f, w + (size_t)r * row_bytes, blocks);
        q[0][r] = _mm512_add_epi8(u.q[0], shift);
        q[1][r] = _mm512_add_epi8(u.q[1], shift);
        d[r] = u.d;
        m[r] = u.m;
    }
    transpose_bytes(q[0]);
    transpose_bytes(q[1]);
    vec_transpose(d);
    if (p->affine)
        vec_transpose(m);
    for (int block = 0; block < blocks; block++, group += w_group(p)) {
        for (int quad = 0; quad < QUADS; quad++)
            _mm512_storeu_si512(group + quad * TILE_COLS * 4, q[quad / 4][4 * block + quad % 4]);
        _mm512_storeu_ps(group + TILE_COLS * STEP, d[4 * block]);
        if (p->affine)
            _mm512_storeu_ps(group + TILE_COLS * (STEP + 4), m[4 * block]);
    }
}

static ALWAYS_INLINE void pack_w_32(const struct panels *p, const struct format_32 *f, void *panel, const void *w,
                                    size_t row_bytes, int rows, int k)
{
    const int blocks = k / X8_BLOCK;
    for (int first = 0; first < TILE_COLS; first += LANES) {
        uint8_t *group = (uint8_t *)panel + first * 4;
        const uint8_t *at = (const uint8_t *)w + (size_t)first * row_bytes;
        int block = 0;
        for (; block + CHUNK_BLOCKS <= blocks; block += CHUNK_BLOCKS, group += CHUNK_BLOCKS * w_group(p))
            pack_chunk(p, f, group, at + block * f->bytes, row_bytes, rows - first, CHUNK_BLOCKS);
        if (block < blocks)
            pack_chunk(p, f, group, at + block * f->bytes, row_bytes, rows - first, blocks - block);
    }
}

/* 16 rows of a block of 256, to 8 groups. */
static ALWAYS_INLINE void pack_block(const struct panels *p, enum kind_k kind, uint8_t *to, const uint8_t *w,
                                     size_t row_bytes, int rows)
{
    __m512i q[4][LANES];
    __m512 scales[LANES];
    const __m512i shift = _mm512_set1_epi8((char)(kind == KIND_Q6_K ? WEIGHT_ZERO - 32 : WEIGHT_ZERO));
    for (int r = 0; r < LANES; r++) {
        struct unpacked_k u = {.scales = _mm512_setzero_ps()};
        for (int v = 0; v < 4; v++)
            u.q[v] = _mm512_setzero_si512();
        if (r < rows)
            u = unpack_k(kind, w + (size_t)r * row_bytes);
        for (int v = 0; v < 4; v++)
            q[v][r] = _mm512_add_epi8(u.q[v], shift);
        scales[r] = u.scales;
    }
    vec_transpose(scales);
    for (int v = 0; v < 4; v++) {
        transpose_bytes(q[v]);
        for (int lane = 0; lane < LANES; lane++) {
            const int group = kind == KIND_Q6_K ? 2 * v + lane / QUADS : v / 2 * 4 + v % 2 + lane / QUADS * 2;
            _mm512_storeu_si512(to + (size_t)group * w_group(p) + lane % QUADS * TILE_COLS * 4, q[v][lane]);
        }
    }
    for (int group = 0; group < 8; group++, to += w_group(p)) {
        uint8_t *tail = to + TILE_COLS * STEP;
        if (kind == KIND_Q6_K) {
            _mm512_storeu_ps(tail, scales[2 * group]);
            _mm512_storeu_ps(tail + TILE_COLS * 4, scales[2 * group + 1]);
        } else {
            _mm512_storeu_ps(tail, scales[group]);
            _mm512_storeu_ps(tail + TILE_COLS * 4, _mm512_sub_ps(_mm512_setzero_ps(), scales[8 + group]));
        }
    }
}

static ALWAYS_INLINE void pack_w_k(const struct panels *p, enum kind_k kind, void *panel, const void *w,
                                   size_t row_bytes, int rows, int k)
{
    for (int first = 0; first < TILE_COLS; first += LANES)
        for (int block = 0; block < k / BLOCK_K; block++)
            pack_block(p, kind, (uint8_t *)panel + (size_t)(block * 8) * w_group(p) + first * 4,
                       (const uint8_t *)w + (size_t)first * row_bytes + (size_t)block * block_k_bytes(kind), row_bytes,
                       rows - first);
}

/* ---- the tile ---- */

static ALWAYS_INLINE __m512i broadcast_4(const uint8_t *from)
{
    int32_t value;
    memcpy(&value, from, sizeof value);
    return _mm512_set1_epi32(value);
}

static ALWAYS_INLINE void tile_vectors(const struct panels *p, float *c, size_t c_stride, const uint8_t *x,
                                       const uint8_t *w, int k, bool accumulate, const int vectors)
{
    __m512 sum[TILE_ROWS][2];
#pragma GCC unroll 8
    for (int i = 0; i < TILE_ROWS; i++)
        sum[i][0] = sum[i][1] = _mm512_setzero_ps();

    for (; k > 0; k -= STEP, x += x_group(p), w += w_group(p)) {
        const uint8_t *x_tail = x + TILE_ROWS * STEP, *w_tail = w + TILE_COLS * STEP;
#pragma GCC unroll 2
        for (int part = 0; part < p->parts; part++) {
            __m512i whole[TILE_ROWS][2];
#pragma GCC unroll 8
            for (int i = 0; i < TILE_ROWS; i++)
                whole[i][0] = whole[i][1] = broadcast_4(x_tail + 4 * (TILE_ROWS * (1 + part) + i));
            for (int quad = part * QUADS / p->parts; quad < (part + 1) * QUADS / p->parts; quad++) {
                const __m512i w0 = _mm512_loadu_si512(w + quad * TILE_COLS * 4),
                              w1 = _mm512_loadu_si512(w + quad * TILE_COLS * 4 + 64);
#pragma GCC unroll 8
                for (int i = 0; i < TILE_ROWS; i++) {
                    const __m512i xi = broadcast_4(x + 4 * (quad * TILE_ROWS + i));
                    whole[i][0] = _mm512_dpbusd_epi32(whole[i][0], w0, xi);
                    if (vectors == 2)
                        whole[i][1] = _mm512_dpbusd_epi32(whole[i][1], w1, xi);
                }
            }
            const __m512 scale[2] = {_mm512_loadu_ps(w_tail + part * TILE_COLS * 4),
                                     _mm512_loadu_ps(w_tail + part * TILE_COLS * 4 + 64)};
#pragma GCC unroll 8
            for (int i = 0; i < TILE_ROWS; i++) {
                const __m512 xi = _mm512_castsi512_ps(broadcast_4(x_tail + 4 * i));
                for (int j = 0; j < vectors; j++)
                    sum[i][j] =
                        _mm512_fmadd_ps(_mm512_cvtepi32_ps(whole[i][j]), _mm512_mul_ps(xi, scale[j]), sum[i][j]);
            }
        }
        if (p->affine) {
            const uint8_t *minima = w_tail + p->parts * TILE_COLS * 4;
            const __m512 m[2] = {_mm512_loadu_ps(minima), _mm512_loadu_ps(minima + 64)};
#pragma GCC unroll 8
            for (int i = 0; i < TILE_ROWS; i++) {
                const __m512 xi = _mm512_castsi512_ps(broadcast_4(x_tail + 4 * (TILE_ROWS * (1 + p->parts) + i)));
                for (int j = 0; j < vectors; j++)
                    sum[i][j] = _mm512_fmadd_ps(xi, m[j], sum[i][j]);
            }
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < TILE_ROWS; i++, c += c_stride)
        for (int j = 0; j < vectors; j++) {
            float *to = c + j * LANES;
            _mm512_storeu_ps(to, accumulate ? _mm512_add_ps(_mm512_loadu_ps(to), sum[i][j]) : sum[i][j]);
        }
}

/* ---- the table ---- */

#define PANELS(name)                                                                                                   \
    static void pack_x_##name(void *panel, const float *x, size_t stride, int rows, int k)                             \
    {                                                                                                                  \
        pack_x(&panels_##name, panel, x, stride, rows, k);                                                             \
    }                                                                                                                  \
    static void tile_##name(float *c, size_t c_stride, const void *x, const void *w, int k, bool accumulate)           \
    {                                                                                                                  \
        tile_vectors(&panels_##name, c, c_stride, x, w, k, accumulate, 2);                                             \
    }                                                                                                                  \
    static void tile_half_##name(float *c, size_t c_stride, const void *x, const void *w, int k, bool accumulate)      \
    {                                                                                                                  \
        tile_vectors(&panels_##name, c, c_stride, x, w, k, accumulate, 1);                                             \
    }
PANELS(32)
PANELS(affine)
PANELS(16)

#define PACK_W(name, pack, panels, format)                                                                             \
    static void pack_w_##name(void *panel, const void *w, size_t row_bytes, int rows, int k)                           \
    {                                                                                                                  \
        pack(&panels, format, panel, w, row_bytes, rows, k);                                                           \
    }
PACK_W(q8_0, pack_w_32, panels_32, &format_q8_0)
PACK_W(q4_0, pack_w_32, panels_32, &format_q4_0)
PACK_W(q5_0, pack_w_32, panels_32, &format_q5_0)
PACK_W(q4_1, pack_w_32, panels_affine, &format_q4_1)
PACK_W(q5_1, pack_w_32, panels_affine, &format_q5_1)
PACK_W(q4_k, pack_w_k, panels_affine, KIND_Q4_K)
PACK_W(q5_k, pack_w_k, panels_affine, KIND_Q5_K)
PACK_W(q6_k, pack_w_k, panels_16, KIND_Q6_K)

#define GEMM(name, n_parts, is_affine)                                                                                 \
    .mr = TILE_ROWS, .nr = TILE_COLS, .k_step = STEP, .x_group = X_GROUP(n_parts, is_affine),                          \
    .w_group = W_GROUP(n_parts, is_affine), .rounding = ROUND_X8, .pack_x = pack_x_##name, .tile = tile_##name,        \
    .tile_half = tile_half_##name

static const struct gemm gemm_32 = {
    GEMM(32, 1, 0),
    .pack_w = {[TENSOR_Q8_0] = pack_w_q8_0, [TENSOR_Q4_0] = pack_w_q4_0, [TENSOR_Q5_0] = pack_w_q5_0},
};
static const struct gemm gemm_affine = {
    GEMM(affine, 1, 1),
    .pack_w = {[TENSOR_Q4_1] = pack_w_q4_1,
               [TENSOR_Q5_1] = pack_w_q5_1,
               [TENSOR_Q4_K] = pack_w_q4_k,
               [TENSOR_Q5_K] = pack_w_q5_k},
};
static const struct gemm gemm_16 = {
    GEMM(16, 2, 0),
    .pack_w = {[TENSOR_Q6_K] = pack_w_q6_k},
};

void avx512_vnni_init_gemm(struct kernels *k)
{
    static const struct gemm *const gemms[] = {&gemm_32, &gemm_affine, &gemm_16};
    for (int i = 0; i < 3; i++)
        for (int type = 0; type < TENSOR_TYPES; type++)
            if (gemms[i]->pack_w[type])
                k->gemm[type] = gemms[i];
}
