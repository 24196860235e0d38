/* An NVIDIA card as a backend: its operations are the kernels of src/cuda/kernels. */
#include "engine/backend.h"

#include "cuda/card.h"
#include "engine/buffers.h"
#include "kernels/kernels.h"

#include <assert.h>
#include <stdlib.h>

_Static_assert((int)VECTOR_ROWS == (int)GEMV_MAX_N, "as many rows as the engine hands over at once");
_Static_assert(sizeof(struct choice) == sizeof(struct card_choice), "what kernels write is what the engine reads");
_Static_assert(sizeof(struct draw) == sizeof(struct card_draw), "what the engine writes is what kernels read");

/* 512 rows of 4,096 outputs in two parts. */
enum { SUMS_BYTES = 16 << 20 };

struct backend_cuda {
    struct backend base;
    struct card *card;
    void *choosing;    /* memory for choosing tokens, of all sessions */
    unsigned *arrived; /* [SPLIT_COUNTERS] of attention of few rows, of all sessions */
    bool quantized;    /* weights that take int8 have been placed */
    bool wgmma;        /* products of many rows go by Hopper's kernels */
    /* Rows that the last operation has left in `packed` for the linear maps after it. */
    struct {
        const float *x;
        const void *packed;
        int rows, parts; /* of bf16; 0: int8 */
    } ready;
};

static struct card *card_of(struct backend *be)
{
    return ((struct backend_cuda *)be)->card;
}

static unsigned blocks(size_t n, size_t of)
{
    return (unsigned)((n + of - 1) / of);
}

static int min_int(int a, int b)
{
    return a < b ? a : b;
}

#define LAUNCH(be, kernel, x, y, z, threads, shared, ...)                                                              \
    card_launch(card_of(be), kernel, (struct card_grid){x, y, z}, threads, shared, (void *[]){__VA_ARGS__})

/* ---- rows for linear maps ---------------------------------------------------------------------------------------- */

enum { X8_BYTES = sizeof(int32_t[4]) + sizeof(float[2]) }; /* a unit */

static struct card_bytes bytes_in(void *packed, int rows, int cols)
{
    const int units = card_units(cols);
    return (struct card_bytes){
        .q = packed, .scales = (float *)((int32_t *)packed + (size_t)rows * (size_t)units * 4), .units = units};
}

static void set_ready(struct backend *be, const float *x, const void *packed, int rows, int parts)
{
    struct backend_cuda *b = (struct backend_cuda *)be;
    card_lock(b->card); /* sessions of other threads come here, too */
    b->ready.x = x;
    b->ready.packed = packed;
    b->ready.rows = rows;
    b->ready.parts = parts;
    card_unlock(b->card);
}

/* Every operation says what it leaves: nothing, */
static void forget_ready(struct backend *be)
{
    set_ready(be, NULL, NULL, 0, 0);
}

/* with few rows for quantized weights `x` as int8 too, */
static struct card_bytes leave_bytes(struct backend *be, const float *x, int rows, int cols, struct next next)
{
    if (!next.packed || rows > VECTOR_ROWS || !((struct backend_cuda *)be)->quantized) {
        forget_ready(be);
        return (struct card_bytes){.q = NULL};
    }
    set_ready(be, x, next.packed, rows, 0);
    return bytes_in(next.packed, rows, cols);
}

/* or with many rows `x` as bf16, and not otherwise: at NULL, x is to be written. */
static struct card_packed leave_packed(struct backend *be, const float *x, int rows, int cols, struct next next)
{
    if (!next.packed || rows <= VECTOR_ROWS)
        return (struct card_packed){.at = NULL};
    const struct card_packed packed = {next.packed, card_units(cols), next.exact ? X_PARTS : X_WHOLE};
    set_ready(be, x, next.packed, rows, packed.parts);
    return packed;
}

/* The parts of x in `packed`, 0: it is there as int8, -1: it is not there. */
static int ready_parts(struct backend *be, const float *x, int rows, const void *packed)
{
    struct backend_cuda *b = (struct backend_cuda *)be;
    card_lock(b->card);
    const bool ready = b->ready.x && b->ready.x == x && b->ready.rows == rows && b->ready.packed == packed;
    const int parts = ready ? b->ready.parts : -1;
    card_unlock(b->card);
    return parts;
}

/* ---- memory ------------------------------------------------------------------------------------------------------ */

static void cuda_close(struct backend *be)
{
    card_release(card_of(be), ((struct backend_cuda *)be)->choosing);
    card_release(card_of(be), ((struct backend_cuda *)be)->arrived);
    pool_close(&be->pool);
    free(be);
}

static void cuda_used(struct backend *be, size_t *now, size_t *peak)
{
    card_used(card_of(be), now, peak);
}

static int cuda_alloc(struct backend *be, void **out, size_t bytes, const char *what, struct ward_error *err)
{
    return card_alloc(card_of(be), out, bytes, what, err);
}

static void cuda_release(struct backend *be, void *buffer)
{
    card_release(card_of(be), buffer);
}

static void cuda_write(struct backend *be, void *to, const void *from, size_t bytes)
{
    forget_ready(be);
    card_write(card_of(be), to, from, bytes);
}

static void cuda_read(struct backend *be, void *to, const void *from, size_t bytes)
{
    card_read(card_of(be), to, from, bytes);
}

static void cuda_copy(struct backend *be, void *to, const void *from, size_t bytes)
{
    forget_ready(be);
    card_copy(card_of(be), to, from, bytes);
}

static int cuda_finish(struct backend *be, struct ward_error *err)
{
    return card_finish(card_of(be), err);
}

static bool cuda_fall_back(struct backend *be)
{
    struct backend_cuda *b = (struct backend_cuda *)be;
    const bool had = b->wgmma;
    b->wgmma = false;
    return had;
}

static bool cuda_begin(struct backend *be, void **recording)
{
    forget_ready(be);
    return card_begin(card_of(be), recording);
}

static void cuda_end(struct backend *be, void **recording)
{
    card_end(card_of(be), recording);
}

static void cuda_forget(struct backend *be, void **recording)
{
    card_forget(card_of(be), recording);
}

/* ---- weights ----------------------------------------------------------------------------------------------------- */

static const enum card_format formats[TENSOR_TYPES] = {
    [TENSOR_F32] = CARD_F32,  [TENSOR_F16] = CARD_F16,  [TENSOR_BF16] = CARD_BF16, [TENSOR_Q8_0] = CARD_Q8,
    [TENSOR_Q4_0] = CARD_Q4,  [TENSOR_Q4_1] = CARD_Q8M, [TENSOR_Q5_0] = CARD_Q8,   [TENSOR_Q5_1] = CARD_Q8M,
    [TENSOR_Q4_K] = CARD_Q4K, [TENSOR_Q5_K] = CARD_Q5K, [TENSOR_Q6_K] = CARD_Q6K,
};

/* A placed matrix as kernels take it. */
static struct card_matrix matrix_of(const struct tensor *t)
{
    size_t end;
    return card_lay_out(t->data, (int)formats[t->type], t->rows, t->cols, &end);
}

static size_t cuda_placed_bytes(struct backend *be, const struct tensor *from)
{
    (void)be;
    size_t end;
    (void)card_lay_out(NULL, (int)formats[from->type], from->rows, from->cols, &end);
    return end;
}

/* The kernel that unpacks a type, and what it takes last: bytes of a float, or the kind of a block of 32. */
static enum card_kernel place_kernel(enum tensor_type type, int *argument)
{
    switch (type) {
    case TENSOR_Q8_0: *argument = FROM_Q8_0; return KERNEL_place_blocks_32;
    case TENSOR_Q4_0: *argument = FROM_Q4_0; return KERNEL_place_blocks_32;
    case TENSOR_Q4_1: *argument = FROM_Q4_1; return KERNEL_place_blocks_32;
    case TENSOR_Q5_0: *argument = FROM_Q5_0; return KERNEL_place_blocks_32;
    case TENSOR_Q5_1: *argument = FROM_Q5_1; return KERNEL_place_blocks_32;
    case TENSOR_Q4_K:
    case TENSOR_Q5_K: return KERNEL_place_blocks_k;
    case TENSOR_Q6_K: return KERNEL_place_q6_k;
    default: *argument = (int)tensor_bytes(type, 1); return KERNEL_place_floats;
    }
}

static void cuda_place(struct backend *be, void *at, const struct tensor *from)
{
    const size_t row_bytes = tensor_row_bytes(from);
    ((struct backend_cuda *)be)->quantized |= !tensor_is_float(from->type);
    if (tensor_is_float(from->type) && from->cols % ROW_STEP == 0) {
        card_write(card_of(be), at, from->data, (size_t)from->rows * row_bytes);
        return;
    }
    size_t end;
    struct card_matrix w = card_lay_out(at, (int)formats[from->type], from->rows, from->cols, &end);
    int argument = 0;
    const enum card_kernel kernel = place_kernel(from->type, &argument);
    const int most = row_bytes < CARD_PIECE ? (int)(CARD_PIECE / row_bytes) : 1;
    for (int first = 0; first < from->rows; first += most) {
        int rows = min_int(most, from->rows - first);
        /* The piece belongs to the kernel that follows it. */
        card_lock(card_of(be));
        void *piece = card_piece(card_of(be), tensor_row(from, first), (size_t)rows * row_bytes);
        LAUNCH(be, kernel, blocks((size_t)rows * (size_t)w.units, ROW_THREADS), 1, 1, ROW_THREADS, 0, &w, &piece,
               &first, &rows, &argument);
        card_unlock(card_of(be));
    }
}

/* ---- linear maps ------------------------------------------------------------------------------------------------- */

static size_t cuda_packed_size(struct backend *be, int rows, int cols, bool exact)
{
    (void)be;
    const size_t units = (size_t)card_units(cols), parts = exact ? X_PARTS : X_WHOLE;
    const size_t few = (size_t)min_int(rows, VECTOR_ROWS) * units * X8_BYTES;
    const size_t many = (size_t)rows * units * UNIT * parts * sizeof(uint16_t);
    return few > many ? few : many;
}

static size_t cuda_sums_size(struct backend *be, int rows)
{
    (void)be;
    return rows > VECTOR_ROWS ? SUMS_BYTES : 0;
}

/* Few rows are float32 as well. */
static size_t cuda_hand_size(struct backend *be, int rows, int cols)
{
    (void)be;
    return (size_t)min_int(rows, VECTOR_ROWS) * (size_t)cols * sizeof(float);
}

static bool is_quantized(const struct linear *map)
{
    return !tensor_is_float(map->w->type);
}

/* Maps that follow one another in one format are one launch. */
static void linear_few(struct backend *be, const float *x, int rows, const struct linear *maps, int n, void *packed)
{
    int cols = maps->w->cols;
    struct card_bytes x8 = bytes_in(packed, rows, cols);
    bool quantized = false;
    for (int i = 0; i < n; i++)
        quantized |= is_quantized(&maps[i]);
    if (quantized && ready_parts(be, x, rows, packed) != 0)
        LAUNCH(be, KERNEL_quantize_rows, blocks((size_t)x8.units, ROW_THREADS), (unsigned)rows, 1, ROW_THREADS, 0, &x8,
               &x, &cols);
    const int size = rows == 1 ? 0 : rows == 2 ? 1 : rows <= 4 ? 2 : 3;
    for (int i = 0; i < n;) {
        struct card_maps launch = {.n = 0};
        const int format = (int)formats[maps[i].w->type];
        const bool bytes = is_quantized(&maps[i]);
        unsigned total = 0;
        for (; i < n && launch.n < MAPS && (int)formats[maps[i].w->type] == format; i++) {
            launch.map[launch.n++] = (struct card_map){
                .w = matrix_of(maps[i].w), .out = maps[i].out, .bias = maps[i].bias, .first_block = (int)total};
            total += blocks((size_t)maps[i].w->rows, VECTOR_THREADS / 32 * VECTOR_OUTPUTS);
        }
        const void *input = bytes ? x8.q : (const void *)x, *scales = x8.scales;
        LAUNCH(be, (enum card_kernel)(KERNEL_vector_f32_1 + 4 * format + size), total, 1, 1, VECTOR_THREADS, 0, &launch,
               &input, &scales, &rows);
    }
}

/* Parts of x and of the weights: engine/backend.h's `exact`. What is quantized is bf16 at its best. */
static int x_parts(const struct linear *map)
{
    return map->exact && !is_quantized(map) ? X_PARTS : X_WHOLE;
}

/* A kind of tile: of so many rows and outputs, steps of so many values, blocks of a multiprocessor at a time. */
struct tile {
    enum card_kernel kernel; /* of the first format that it takes */
    int first_format, rows, outputs, depth, at_once;
    unsigned threads, shared;
};

static const struct tile large_tile = {KERNEL_matrix_f32, CARD_F32,       MATRIX_ROWS,    MATRIX_OUTPUTS,
                                       MATRIX_DEPTH,      MATRIX_AT_ONCE, MATRIX_THREADS, MATRIX_SHARED};
static const struct tile small_tile = {KERNEL_matrix_small_f32, CARD_F32,     SMALL_ROWS,
                                       SMALL_OUTPUTS,           MATRIX_DEPTH, SMALL_AT_ONCE,
                                       MATRIX_THREADS,          SMALL_SHARED};
static const struct tile wgmma_tile = {KERNEL_wgmma_f16, CARD_F16, WGMMA_ROWS,    WGMMA_OUTPUTS,
                                       WGMMA_DEPTH,      1,        WGMMA_THREADS, WGMMA_SHARED};

static const struct tile *tile_of(struct backend *be, int format, int rows)
{
    if (rows <= SMALL_ROWS)
        return &small_tile;
    return ((struct backend_cuda *)be)->wgmma && format >= wgmma_tile.first_format ? &wgmma_tile : &large_tile;
}

/* Among how many blocks the depth of each tile is divided, so that they fill the card; `room`: bytes for their sums,
 * which are added in a fixed order. */
static unsigned shares_of(struct backend *be, const struct tile *t, size_t tiles, size_t steps, size_t sums_bytes,
                          size_t room)
{
    enum { MOST = 8, LEAST_DEPTH = 256 };
    size_t shares = (size_t)card_info(card_of(be))->multiprocessors * (size_t)t->at_once / tiles;
    const size_t limits[] = {MOST, steps * (size_t)t->depth / LEAST_DEPTH, room / sums_bytes};
    for (int i = 0; i < 3; i++)
        shares = shares < limits[i] ? shares : limits[i];
    return shares > 1 ? (unsigned)shares : 1;
}

/* Maps of one format, whose tiles lie side by side: `wide` of them. */
static void multiply(struct backend *be, const struct tile *t, struct card_maps *maps, unsigned wide,
                     struct scratch scratch, int rows, int x_parts, int w_parts)
{
    const struct card_matrix *w = &maps->map[0].w;
    const int steps = w->units * UNIT / t->depth * (x_parts + w_parts - 1);
    const unsigned high = blocks((size_t)rows, (size_t)t->rows);
    struct card_parts parts = {scratch.sums, (int)wide * t->outputs, t->outputs};
    int shares = (int)shares_of(be, t, (size_t)wide * high, (size_t)steps,
                                (size_t)rows * (size_t)parts.width * sizeof *parts.sums,
                                scratch.sums ? cuda_sums_size(be, rows) : 0);
    LAUNCH(be, (enum card_kernel)((int)t->kernel + w->format - t->first_format), wide, high, (unsigned)shares,
           t->threads, t->shared, maps, &scratch.packed, &rows, &x_parts, &w_parts, &parts);
    if (shares > 1)
        LAUNCH(be, KERNEL_add_parts, blocks((size_t)parts.width / 4, ROW_THREADS), (unsigned)rows, 1, ROW_THREADS, 0,
               maps, &parts, &shares);
}

/* A map of many rows. `times`: factors of its outputs, or NULL. */
static struct card_map map_of(const struct linear *map, const float *times, unsigned first_tile)
{
    return (struct card_map){
        .w = matrix_of(map->w),
        .out = map->add ? map->add : map->out,
        .bias = map->bias,
        .first_block = (int)first_tile,
        .gelu = map->gelu,
        .times = times,
        .add = map->add != NULL,
        .packed = {map->next.packed, card_units(map->w->rows), map->next.exact ? X_PARTS : X_WHOLE},
        .heads = map->heads.at,
        .head_dim = map->heads.head_dim,
        .capacity = map->heads.capacity,
    };
}

/* Maps of many rows; those that follow one another in one format, and multiply the same parts, are one launch. */
static void linear_many(struct backend *be, const float *x, int rows, const struct linear *maps, int n,
                        const float *times, struct scratch scratch)
{
    int cols = maps->w->cols, units = card_units(cols), there = ready_parts(be, x, rows, scratch.packed);
    const bool ready = there > 0; /* x itself may be void: what is exact asks for its parts before, others take them */
    forget_ready(be);
    for (int i = 0; i < n;) {
        const int wanted = x_parts(&maps[i]), format = (int)formats[maps[i].w->type];
        int w_parts = wanted == X_PARTS && maps[i].w->type != TENSOR_BF16 ? X_PARTS : X_WHOLE;
        if (!ready && wanted != there) {
            there = wanted;
            LAUNCH(be, KERNEL_pack_rows, blocks((size_t)units * (UNIT / 2), ROW_THREADS), (unsigned)rows, 1,
                   ROW_THREADS, 0, &scratch.packed, &x, &cols, &units, &there);
        }
        assert(there >= wanted);
        const struct tile *const t = tile_of(be, format, rows);
        struct card_maps launch = {.n = 0};
        unsigned wide = 0;
        for (; i < n && launch.n < MAPS && (int)formats[maps[i].w->type] == format && x_parts(&maps[i]) == wanted;
             i++) {
            launch.map[launch.n++] = map_of(&maps[i], times, wide);
            /* What is packed is filled up by tiles that reach so far. */
            const int outputs = maps[i].next.packed ? card_units(maps[i].w->rows) * UNIT : maps[i].w->rows;
            wide += blocks((size_t)outputs, (size_t)t->outputs);
            if (maps[i].next.packed)
                set_ready(be, maps[i].out, maps[i].next.packed, rows, launch.map[launch.n - 1].packed.parts);
        }
        multiply(be, t, &launch, wide, scratch, rows, there, w_parts);
    }
}

/* Few rows go by matrix times vector, unless something is to be made of the product: that the kernels of many do. */
static bool are_plain(const struct linear *maps, int n)
{
    for (int i = 0; i < n; i++)
        if (maps[i].gelu || maps[i].add || maps[i].heads.at || maps[i].next.packed)
            return false;
    return true;
}

static void cuda_linear(struct backend *be, const float *x, int rows, const struct linear *maps, int n,
                        struct scratch scratch)
{
    if (rows <= VECTOR_ROWS && are_plain(maps, n))
        linear_few(be, x, rows, maps, n, scratch.packed);
    else
        linear_many(be, x, rows, maps, n, NULL, scratch);
}

static void cuda_gated(struct backend *be, const float *x, int rows, const struct linear gate_up[2],
                       struct scratch scratch)
{
    const struct linear *gate = &gate_up[0], *up = &gate_up[1];
    float *out = gate->out;
    const float *factors = up->out;
    int cols = gate->w->rows;
    if (rows <= VECTOR_ROWS) {
        linear_few(be, x, rows, gate_up, 2, scratch.packed);
        struct card_bytes bytes = leave_bytes(be, out, rows, cols, gate->next);
        size_t n = (size_t)rows * (size_t)cols;
        if (bytes.q)
            LAUNCH(be, KERNEL_gelu_multiply_bytes, blocks((size_t)bytes.units, 64), (unsigned)rows, 1, 64, 0, &out,
                   &out, &factors, &cols, &bytes);
        else
            LAUNCH(be, KERNEL_gelu_multiply, blocks(n, ROW_THREADS), 1, 1, ROW_THREADS, 0, &out, &out, &factors, &n);
        return;
    }
    const int there = ready_parts(be, x, rows, scratch.packed);
    linear_many(be, x, rows, up, 1, NULL, scratch);
    if (there > 0)
        set_ready(be, x, scratch.packed, rows, there);
    struct linear activated = *gate;
    activated.gelu = true;
    linear_many(be, x, rows, &activated, 1, factors, scratch);
}

/* ---- rows -------------------------------------------------------------------------------------------------------- */

static void cuda_embed(struct backend *be, float *out, const struct tensor *table, const int32_t *ids, int rows,
                       float scale)
{
    struct card_matrix w = matrix_of(table);
    forget_ready(be);
    if (rows)
        LAUNCH(be, KERNEL_embed, (unsigned)rows, 1, 1, ROW_THREADS, 0, &out, &w, &ids, &scale);
}

static void cuda_rms_norm(struct backend *be, float *out, const float *x, const float *weight, int rows, int cols,
                          float eps, struct next next)
{
    struct card_bytes bytes = leave_bytes(be, out, rows, cols, next);
    struct card_packed packed = leave_packed(be, out, rows, cols, next);
    LAUNCH(be, KERNEL_rms_norm, (unsigned)rows, 1, 1, ROW_THREADS, 0, &out, &x, &weight, &cols, &eps, &bytes, &packed);
}

static void cuda_add_rms_norm(struct backend *be, float *residual, float *x, const float *weight,
                              const float *next_weight, int rows, int cols, float eps, struct next next)
{
    if (!next_weight)
        next.packed = NULL;
    struct card_bytes bytes = leave_bytes(be, x, rows, cols, next);
    struct card_packed packed = leave_packed(be, x, rows, cols, next);
    LAUNCH(be, KERNEL_add_rms_norm, (unsigned)rows, 1, 1, ROW_THREADS, 0, &residual, &x, &weight, &next_weight, &cols,
           &eps, &bytes, &packed);
}

static void cuda_layer_norm(struct backend *be, float *out, const float *x, const float *weight, const float *bias,
                            int rows, int cols, float eps, struct next next)
{
    struct card_bytes bytes = leave_bytes(be, out, rows, cols, next);
    struct card_packed packed = leave_packed(be, out, rows, cols, next);
    LAUNCH(be, KERNEL_layer_norm, (unsigned)rows, 1, 1, ROW_THREADS, 0, &out, &x, &weight, &bias, &cols, &eps, &bytes,
           &packed);
}

static void cuda_add_table(struct backend *be, float *x, const struct tensor *table)
{
    struct card_matrix w = matrix_of(table);
    forget_ready(be);
    LAUNCH(be, KERNEL_add_table, (unsigned)table->rows, 1, 1, ROW_THREADS, 0, &x, &w);
}

static void cuda_pool(struct backend *be, float *out, const float *x, int side, int block, int cols)
{
    const unsigned squares = (unsigned)(side / block);
    forget_ready(be);
    LAUNCH(be, KERNEL_pool, squares * squares, 1, 1, ROW_THREADS, 0, &out, &x, &side, &block, &cols);
}

/* Memory for choosing the tokens of VECTOR_ROWS rows; returns how many bytes it has. */
static size_t choosing_in(void *memory, struct card_choice_part **parts, struct card_drawing *drawing)
{
    const struct buffer_request wanted[] = {
        {(void **)parts, VECTOR_ROWS * CHOICE_BLOCKS * sizeof **parts},
        {(void **)&drawing->sums, VECTOR_ROWS * CHOICE_BLOCKS * sizeof *drawing->sums},
        {(void **)&drawing->candidates, VECTOR_ROWS * DRAW_MOST * sizeof *drawing->candidates},
        {(void **)&drawing->bins, VECTOR_ROWS * DRAW_BINS * sizeof *drawing->bins},
        {(void **)&drawing->found, VECTOR_ROWS * sizeof *drawing->found},
    };
    return buffers_place(memory, wanted, sizeof wanted / sizeof *wanted);
}

static void cuda_choose(struct backend *be, struct choice *out, const float *logits, const struct draw *draws, int rows,
                        int n, float softcap)
{
    struct card_choice_part *parts;
    struct card_drawing drawing;
    (void)choosing_in(((struct backend_cuda *)be)->choosing, &parts, &drawing);
    forget_ready(be);
    card_lock(card_of(be));
    LAUNCH(be, KERNEL_choose_parts, CHOICE_BLOCKS, (unsigned)rows, 1, ROW_THREADS, 0, &parts, &logits, &n, &softcap);
    LAUNCH(be, KERNEL_choose_whole, 1, 1, 1, 32, 0, &out, &parts, &rows);
    if (draws) {
        LAUNCH(be, KERNEL_draw_parts, CHOICE_BLOCKS, (unsigned)rows, 1, ROW_THREADS, 0, &drawing, &out, &draws, &logits,
               &n, &softcap);
        LAUNCH(be, KERNEL_draw_gather, CHOICE_BLOCKS, (unsigned)rows, 1, ROW_THREADS, 0, &drawing, &out, &draws,
               &logits, &n, &softcap);
        LAUNCH(be, KERNEL_draw_whole, (unsigned)rows, 1, 1, DRAW_THREADS, 0, &out, &drawing, &draws, &logits, &n,
               &softcap);
    }
    card_unlock(card_of(be));
}

/* ---- attention --------------------------------------------------------------------------------------------------- */

static void cuda_store(struct backend *be, const struct heads *h)
{
    struct card_heads heads = {
        .q = h->q,
        .k = h->k,
        .v = h->v,
        .to_k = h->to->k,
        .to_v = h->to->v,
        .positions = h->positions,
        .q_norm = h->q_norm,
        .k_norm = h->k_norm,
        .cosine = h->cosine,
        .sine = h->sine,
        .n_heads = h->q_norm ? h->n_heads : 0,
        .head_dim = h->to->head_dim,
        .capacity = h->to->capacity,
        .eps = h->eps,
    };
    forget_ready(be);
    LAUNCH(be, KERNEL_store, (unsigned)(heads.n_heads + h->to->n_heads), (unsigned)h->rows, 1, ROW_THREADS / 2, 0,
           &heads);
}

/* Enough blocks for one row to fill the card twice: the same for any number of rows. */
static int splits(struct backend *be, int n_heads, int head_dim)
{
    const int blocks_of_split = (n_heads + SPLIT_HEADS - 1) / SPLIT_HEADS * split_slabs(head_dim);
    const int wanted = 2 * card_info(card_of(be))->multiprocessors / blocks_of_split;
    return wanted < 1 ? 1 : min_int(wanted, SPLIT_MOST);
}

/* Floats for a head of a row: its parts' sums, then their scales. */
static size_t part_floats(struct backend *be, int n_heads, int head_dim)
{
    return (size_t)split_slabs(head_dim) * (size_t)splits(be, n_heads, head_dim) * (size_t)(split_width(head_dim) + 2);
}

static size_t cuda_attention_size(struct backend *be, int rows, int n_heads, int head_dim)
{
    return (size_t)min_int(rows, VECTOR_ROWS) * (size_t)n_heads * part_floats(be, n_heads, head_dim) * sizeof(float);
}

/* The kernel for many rows of this head; NULL: none. */
static const struct flash_shape *flash_shape(struct backend *be, int head_dim)
{
    const int available = card_info(card_of(be))->shared_bytes;
    if (head_dim % 8)
        return NULL; /* rows of keys are not copied by 16 bytes */
    for (int i = 0; i < FLASH_SHAPES; i++)
        if (head_dim <= flash_shapes[i].head && flash_shared(&flash_shapes[i], available) <= available)
            return &flash_shapes[i];
    return NULL;
}

static void attend_many(struct backend *be, struct card_attention *a, const struct flash_shape *shape)
{
    const unsigned shared = (unsigned)flash_shared(shape, card_info(card_of(be))->shared_bytes);
    LAUNCH(be, (enum card_kernel)(KERNEL_flash_72 + (shape - flash_shapes)),
           blocks((size_t)a->rows, (size_t)shape->rows), (unsigned)a->n_heads, 1, (unsigned)shape->threads, shared, a);
}

/* VECTOR_ROWS at a time, or as many as there are counters for. `bytes`: where the result goes as int8, if it does. */
static void attend_few(struct backend *be, const struct card_attention *a, struct card_bytes *bytes)
{
    const int groups = split_groups(a->n_heads, a->n_kv_heads, a->head_dim);
    const int most = min_int(VECTOR_ROWS, SPLIT_COUNTERS / groups);
    const size_t width = (size_t)a->n_heads * (size_t)a->head_dim;
    for (int first = 0; first < a->rows; first += most) {
        struct card_attention part = *a;
        part.rows = min_int(most, a->rows - first);
        part.out = a->out + (size_t)first * width;
        if (a->out_bf16)
            part.out_bf16 = a->out_bf16 + (size_t)first * (size_t)(a->units * UNIT);
        part.q = a->q + (size_t)first * width;
        part.lo = a->lo + first;
        part.hi = a->hi + first;
        LAUNCH(be, KERNEL_attend_few, (unsigned)groups, (unsigned)part.rows, (unsigned)part.splits, SPLIT_THREADS,
               (unsigned)(SPLIT_HEADS * split_pitch(a->head_dim)) * sizeof(float), &part, bytes);
    }
}

static void cuda_attention(struct backend *be, const struct attention *a)
{
    float *const partial = a->scratch;
    struct card_attention c = {
        .out = a->out,
        .q = a->q,
        .k = a->k,
        .v = a->v,
        .rows = a->rows,
        .n_heads = a->n_heads,
        .n_kv_heads = a->n_kv_heads,
        .head_dim = a->head_dim,
        .capacity = a->capacity,
        .lo = a->lo,
        .hi = a->hi,
        .scale = a->scale,
        .partial = partial,
        .arrived = ((struct backend_cuda *)be)->arrived,
        .splits = splits(be, a->n_heads, a->head_dim),
    };
    const struct flash_shape *const shape = a->rows > VECTOR_ROWS ? flash_shape(be, a->head_dim) : NULL;
    const size_t width = (size_t)a->n_heads * (size_t)a->head_dim;
    /* A block writes the units of its head: whole ones, and none are to be filled up. */
    const bool whole = a->head_dim % UNIT == 0 && width % ROW_STEP == 0;
    struct card_bytes bytes = leave_bytes(be, a->out, a->rows, (int)width, whole ? a->next : (struct next){0});
    if (!a->next.exact) { /* else in two parts, from float32 */
        const struct card_packed packed = leave_packed(be, a->out, a->rows, (int)width, a->next);
        c.out_bf16 = packed.at;
        c.units = packed.units;
    }
    if (shape) {
        attend_many(be, &c, shape);
        return;
    }
    c.partial_scales = partial + (size_t)min_int(a->rows, VECTOR_ROWS) * (size_t)a->n_heads *
                                     (size_t)(split_slabs(a->head_dim) * c.splits * split_width(a->head_dim));
    attend_few(be, &c, &bytes);
}

static const struct backend_ops cuda_ops = {
    .close = cuda_close,
    .used = cuda_used,
    .alloc = cuda_alloc,
    .release = cuda_release,
    .write = cuda_write,
    .read = cuda_read,
    .copy = cuda_copy,
    .finish = cuda_finish,
    .fall_back = cuda_fall_back,
    .placed_bytes = cuda_placed_bytes,
    .place = cuda_place,
    .begin = cuda_begin,
    .end = cuda_end,
    .forget = cuda_forget,
    .embed = cuda_embed,
    .packed_size = cuda_packed_size,
    .sums_size = cuda_sums_size,
    .linear = cuda_linear,
    .hand_size = cuda_hand_size,
    .rms_norm = cuda_rms_norm,
    .add_rms_norm = cuda_add_rms_norm,
    .layer_norm = cuda_layer_norm,
    .gated = cuda_gated,
    .add_table = cuda_add_table,
    .store = cuda_store,
    .attention_size = cuda_attention_size,
    .attention = cuda_attention,
    .pool = cuda_pool,
    .choose = cuda_choose,
};

int backend_cuda_open(struct backend **out, int index, int threads, struct ward_error *err)
{
    *out = NULL;
    struct ward_error why = {0};
    struct card *card = card_open(index, &why);
    if (!card) {
        if (err)
            *err = why;
        return why.code;
    }
    struct backend_cuda *be = calloc(1, sizeof *be);
    if (!be)
        return error_no_memory(err, "the backend", sizeof *be);
    be->card = card;
    be->wgmma = card_info(card)->wgmma;
    be->base = (struct backend){
        .ops = &cuda_ops,
        .device = "cuda",
        .device_name = card_info(card)->name,
        .kernels = card_info(card)->kernels,
        .card = card_info(card)->index,
        .cache_type = TENSOR_F16,
        .encoder_type = TENSOR_F16,
        .keeps_work = true,
    };
    struct card_choice_part *parts;
    struct card_drawing drawing;
    void *arrived = NULL;
    int rc = pool_open(&be->base.pool, threads, err);
    if (!rc)
        rc = card_alloc(card, &be->choosing, choosing_in(NULL, &parts, &drawing), "the choice of tokens", err);
    if (!rc)
        rc = card_alloc(card, &arrived, SPLIT_COUNTERS * sizeof *be->arrived, "attention", err);
    be->arrived = arrived;
    if (rc) {
        cuda_close(&be->base);
        return rc;
    }
    be->base.threads = pool_threads(be->base.pool);
    *out = &be->base;
    return 0;
}

bool backend_cuda_load(void)
{
    return card_load_driver();
}
