/* How weights lie in a card's memory, and what its kernels take: shared by the host (C) and the kernels (CUDA C++).
 *
 * Files hold blocks that are not aligned. On the card the parts of a matrix lie in planes of their own, each aligned, so
 * that every thread of a warp loads its 16 values at once, next to its neighbour's. A unit is 16 values of a row; rows
 * are filled up with zeros to a multiple of 64 values. Nothing is rounded and, but for the filling, nothing grows; Q5_0
 * becomes Q8 and Q4_1, Q5_1 become Q8M, which are seldom seen. */
#ifndef WARD_CUDA_LAYOUT_H
#define WARD_CUDA_LAYOUT_H

#include <stddef.h>
#include <stdint.h>

enum {
    UNIT = 16,       /* values */
    ROW_STEP = 64,   /* rows are filled up to a multiple of so many values */
    PLANE_ALIGN = 256,
    VECTOR_ROWS = 8, /* rows of x that go by matrix times vector: GEMV_MAX_N */
    MAPS = 3,        /* linear maps of one launch */
};

enum card_format {
    CARD_F32,
    CARD_F16,
    CARD_BF16,
    CARD_Q8,  /* d q: int8; d float16 for 2 units */
    CARD_Q8M, /* d q + m: int8; d, m float16 for 2 units */
    CARD_Q4,  /* d (q - 8): 4 bits; d float16 for 2 units */
    CARD_Q4K, /* d s q - dmin m: 4 bits; a header for 16 units */
    CARD_Q5K, /* the same, with a fifth bit */
    CARD_Q6K, /* d s (q - 32): 4 bits and 2 above them; s int8 for a unit, d float16 for 16 */
    CARD_FORMATS,
};

/* The files' blocks of 32. */
enum card_block { FROM_Q8_0, FROM_Q4_0, FROM_Q4_1, FROM_Q5_0, FROM_Q5_1 };

/* Bytes of each plane. low: a unit's floats, int8 or halves of bytes. Halves: byte b of word w holds the values 8w + b
 * (low half) and 8w + 4 + b (high half). high: bits above the low four, value i's at bit i (Q5K) or 2i (Q6K). */
struct card_planes {
    int low, high;        /* of a unit */
    int scale, per_scale; /* of a scale, and the units that share it; 0: none */
    int super, per_super; /* of what stands above the scales */
};

#ifdef __cplusplus
constexpr /* kernels take from it what they are compiled for */
#else
static const
#endif
    struct card_planes card_planes[CARD_FORMATS] = {
    /* CARD_F32 */ {64, 0, 0, 1, 0, 1},
    /* CARD_F16 */ {32, 0, 0, 1, 0, 1},
    /* CARD_BF16 */ {32, 0, 0, 1, 0, 1},
    /* CARD_Q8 */ {16, 0, 2, 2, 0, 1},
    /* CARD_Q8M */ {16, 0, 4, 2, 0, 1},
    /* CARD_Q4 */ {8, 0, 2, 2, 0, 1},
    /* CARD_Q4K */ {8, 0, 0, 1, 16, 16},
    /* CARD_Q5K */ {8, 2, 0, 1, 16, 16},
    /* CARD_Q6K */ {8, 4, 1, 1, 2, 16},
};

/* The header of 16 units of Q4K and Q5K. Scale s and minimum m of units 2g and 2g + 1: the low four bits in the halves of
 * low[g], the two above them in bits 4g, 4g + 1 (s) and 4g + 2, 4g + 3 (m) of high. */
struct card_super {
    uint16_t d, dmin; /* float16 */
    uint8_t low[8];
    uint32_t high;
};

struct card_matrix {
    const uint8_t *low, *high, *scale, *super;
    int format, rows, cols, units; /* units of a row */
};

static inline int card_units(int cols)
{
    return (cols + ROW_STEP - 1) / ROW_STEP * (ROW_STEP / UNIT);
}

/* The planes of a matrix that begins at `at`, and where they end. */
static inline struct card_matrix card_lay_out(const void *at, int format, int rows, int cols, size_t *end)
{
    const struct card_planes *p = &card_planes[format];
    const size_t units = (size_t)card_units(cols), n = (size_t)rows;
    const size_t sizes[4] = {
        n * units * (size_t)p->low,
        n * units * (size_t)p->high,
        n * (units / (size_t)p->per_scale) * (size_t)p->scale,
        n * (units / (size_t)p->per_super) * (size_t)p->super,
    };
    const uint8_t *starts[4];
    size_t offset = 0;
    for (int i = 0; i < 4; i++) {
        starts[i] = (const uint8_t *)at + offset;
        offset += (sizes[i] + PLANE_ALIGN - 1) / PLANE_ALIGN * PLANE_ALIGN;
    }
    *end = offset;
    struct card_matrix m;
    m.low = starts[0];
    m.high = starts[1];
    m.scale = starts[2];
    m.super = starts[3];
    m.format = format;
    m.rows = rows;
    m.cols = cols;
    m.units = (int)units;
    return m;
}

/* Where rows go as bf16, as the kernels of matrices take x: [rows][parts][16 units], filled up with zeros; at NULL:
 * nowhere. */
struct card_packed {
    uint16_t *at;
    int units, parts; /* X_WHOLE, X_PARTS */
};

/* One map of a launch: out [rows][w.rows] = x w^T + bias. Of many rows more may be made of it, in this order. */
struct card_map {
    struct card_matrix w;
    float *out;
    const float *bias; /* or NULL */
    int first_block;   /* of the launch; of many rows: its first tile among those of a row of tiles */
    int gelu;
    const float *times;        /* [rows][w.rows] factors, or NULL */
    int add;                   /* to what `out` holds */
    struct card_packed packed; /* or there instead */
    uint16_t *heads;           /* or there, as float16 [heads][capacity][head_dim], row r in slot r; NULL: no */
    int head_dim, capacity;
};

struct card_maps {
    struct card_map map[MAPS];
    int n;
};

/* Rows of x as the kernels of matrices take them. */
enum {
    X_WHOLE = 1, /* bf16 */
    X_PARTS = 2, /* bf16 and what it left, in bf16: 16 bits of a float's 24 */
};

/* Sums of products whose depth is divided among blocks: [shares][rows][width]. */
struct card_parts {
    float *sums;
    int width, tile; /* the outputs of all maps, each filled up to whole tiles; of a tile */
};

struct card_attention {
    float *out;         /* [rows][n_heads * head_dim] */
    uint16_t *out_bf16; /* [rows][units * UNIT] or here as bf16, filled up with zeros; NULL: float32 to out */
    int units;
    const float *q;
    const uint16_t *k, *v; /* float16 [n_kv_heads][capacity][head_dim] */
    int rows, n_heads, n_kv_heads, head_dim, capacity;
    const int *lo, *hi; /* [rows] */
    float scale;
    /* Of few rows, whose positions are divided into `splits`. With slabs = split_slabs, width = split_width: */
    float *partial;        /* [rows][n_heads][slabs][splits][width] sums */
    float *partial_scales; /* [rows][n_heads][slabs][splits][2] the largest score and the sum of weights */
    unsigned *arrived;     /* [rows][split_groups] parts that are done; 0 between the launches */
    int splits;
};

/* Where a row also goes as int8, for products with quantized weights; q NULL: nowhere. */
struct card_bytes {
    int32_t *q;    /* [rows][units][4] value i of a unit in byte i % 4 of word i / 4: about scale * q_i */
    float *scales; /* [rows][units][2] the scale, and the scale times the sum of the q */
    int units;
};

/* As struct heads of engine/backend.h. */
struct card_heads {
    float *q, *k;
    const float *v;
    uint16_t *to_k, *to_v; /* float16 [n_kv_heads][capacity][head_dim] */
    const int *positions;
    const float *q_norm, *k_norm;
    const float *cosine, *sine;
    int n_heads, head_dim, capacity; /* n_heads 0: no norms */
    float eps;
};

struct card_choice { /* of engine/backend.h */
    int32_t id;
    float logit;
    double log_sum;
};

struct card_choice_part {
    float logit;
    int32_t id;
    double sum; /* of exp(x - logit) */
};

/* How a token is drawn: of engine/sample.h. */
struct card_draw {
    double number;
    float temperature;
    int top_k;
    float top_p, min_p;
};

/* Memory for drawing; `bins` and `found` are zero between draws. */
struct card_drawing {
    double *sums;         /* [rows][CHOICE_BLOCKS] */
    uint64_t *candidates; /* [rows][DRAW_MOST] */
    int *bins;            /* [rows][DRAW_BINS] */
    int *found;           /* [rows] candidates, of which the first DRAW_MOST are there */
};

enum {
    ROW_THREADS = 256,    /* of a block that takes a row */
    VECTOR_THREADS = 128, /* of matrix times vector: each warp takes VECTOR_OUTPUTS rows of the weights */
    VECTOR_OUTPUTS = 2,
    MATRIX_THREADS = 128,
    MATRIX_ROWS = 128,    /* of x in a tile */
    MATRIX_OUTPUTS = 128, /* rows of the weights in a tile */
    MATRIX_AT_ONCE = 2,   /* blocks of a multiprocessor */
    SMALL_ROWS = 64,      /* the same of small tiles */
    SMALL_OUTPUTS = 64,
    SMALL_AT_ONCE = 4,
    MATRIX_DEPTH = 32,    /* values of a step */
    MATRIX_STAGES = 3,
    MATRIX_SHARED = MATRIX_STAGES * (MATRIX_ROWS + MATRIX_OUTPUTS) * MATRIX_DEPTH * 2,
    SMALL_SHARED = MATRIX_STAGES * (SMALL_ROWS + SMALL_OUTPUTS) * MATRIX_DEPTH * 2,
    WGMMA_THREADS = 256,
    WGMMA_ROWS = 256,     /* a tile of Hopper's kernels: 1152 outputs of 4096 rows are 128 of them */
    WGMMA_OUTPUTS = 144,
    WGMMA_DEPTH = 64,
    WGMMA_STAGES = 4,
    WGMMA_SHARED = WGMMA_STAGES * (WGMMA_ROWS + WGMMA_OUTPUTS) * WGMMA_DEPTH * 2 + 1024,
    SPLIT_THREADS = 128,
    SPLIT_KEYS = 32,      /* keys of a step of attention of few rows: 8 for each warp */
    SPLIT_HEADS = 2,      /* query heads of a block, which share keys */
    SPLIT_WIDTH = 256,    /* dimensions of its values */
    SPLIT_MOST = 64,      /* parts of a row */
    SPLIT_COUNTERS = 1 << 14,
    FLASH_KEYS = 64,      /* keys of a step of attention of many rows */
    FLASH_WITHOUT_COPIES = 64 << 10, /* what a block can have on cards that lack asynchronous copies (sm_75) */
    CHOICE_BLOCKS = 64,   /* parts of a row of logits */
    MEASURE_THREADS = 256,
    MEASURE_SUMS = 8,     /* independent products of a warp */
    MEASURE_GROUP_PRODUCTS = 8, /* of a warpgroup, one after the other */
    DRAW_BINS = 4096,
    DRAW_MOST = 2048,     /* tokens that are sorted */
    DRAW_THREADS = 1024,
};

/* Attention of few rows. Heads of more than SPLIT_WIDTH dimensions are several slabs. Macros, for host and card. */
#define split_slabs(head_dim) (((head_dim) + SPLIT_WIDTH - 1) / SPLIT_WIDTH)
#define split_width(head_dim) ((head_dim) < SPLIT_WIDTH ? (head_dim) : SPLIT_WIDTH)
#define split_pitch(head_dim) (((head_dim) + 7) / 8 * 8) /* of queries in shared memory */
#define split_pairs(n_heads, n_kv_heads) (((n_heads) / (n_kv_heads) + SPLIT_HEADS - 1) / SPLIT_HEADS)
#define split_groups(n_heads, n_kv_heads, head_dim)                                                                    \
    ((n_kv_heads) * split_pairs(n_heads, n_kv_heads) * split_slabs(head_dim))

/* Attention of many rows. Heads are filled up with zeros to one of these: head, tiles of 16 rows for a warp, warps that
 * share the rows, warps that share the keys, slots of FLASH_KEYS keys or values in shared memory. */
#define FLASH_KERNELS(F) F(72, 2, 4, 1, 4) F(128, 1, 4, 1, 3) F(256, 1, 2, 4, 3)

struct flash_shape {
    int head, rows, threads, slots; /* rows, threads: of a block */
};
#define FLASH_SHAPE(head, tiles, row_warps, key_warps, slots)                                                          \
    {head, 16 * tiles * row_warps, 32 * row_warps * key_warps, slots},
static const struct flash_shape flash_shapes[] = {FLASH_KERNELS(FLASH_SHAPE)};
#undef FLASH_SHAPE
enum { FLASH_SHAPES = sizeof flash_shapes / sizeof *flash_shapes };
/* On a card that has so much for a block. Where copies do not overlap two slots do. */
static inline int flash_shared(const struct flash_shape *shape, int available)
{
    return (available > FLASH_WITHOUT_COPIES ? shape->slots : 2) * FLASH_KEYS * shape->head * 2;
}

/* Those that Hopper's kernels take; float32 is bound to be slow. */
#define CARD_WGMMA_NAMES(F) F(f16) F(bf16) F(q8) F(q8m) F(q4) F(q4k) F(q5k) F(q6k)
#define CARD_FORMAT_NAMES(F) F(f32) F(f16) F(bf16) F(q8) F(q8m) F(q4) F(q4k) F(q5k) F(q6k)

#endif
