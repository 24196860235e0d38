#include "fuzz.h"

#include "../unit/folder.h"
#include "base/utf8.h"

/* ---- checks ------------------------------------------------------------------------------------------------------ */

void fuzz_fail(const char *file, int line, const char *what)
{
    fprintf(stderr, "%s:%d: does not hold: %s\n", file, line, what);
    abort();
}

void fuzz_check_result(int rc, const struct ward_error *err)
{
    REQUIRE(rc <= 0);
    if (rc) {
        REQUIRE(err->code == rc);
        REQUIRE(err->text[0]);
        REQUIRE(memchr(err->text, 0, sizeof err->text));
    }
}

static bool within(int64_t value, int64_t low, int64_t high)
{
    return value >= low && value <= high;
}

void fuzz_check_config(const struct model_config *c)
{
    const struct text_config *t = &c->text;
    const struct vision_config *v = &c->vision;
    REQUIRE(t->hidden_size > 0 && t->intermediate_size > 0 && t->sliding_window > 0 && t->max_positions > 0);
    REQUIRE(within(t->n_layers, 1, CONFIG_MAX_LAYERS) && t->n_heads > 0 && t->n_kv_heads > 0 && t->vocab_size > 0);
    REQUIRE(t->n_heads % t->n_kv_heads == 0 && t->head_dim > 0 && t->head_dim % 2 == 0);
    REQUIRE(t->query_pre_attn_scalar > 0 && t->rms_norm_eps > 0 && t->final_softcap >= 0);
    REQUIRE(t->rope_global.theta > 1 && t->rope_global.factor > 0);
    REQUIRE(t->rope_sliding.theta > 1 && t->rope_sliding.factor > 0);
    REQUIRE(within(c->n_eos, 0, CONFIG_MAX_EOS));
    if (!v->n_layers) {
        REQUIRE(c->image_tokens == 0 && c->image_token == -1);
        return;
    }
    REQUIRE(within(v->n_layers, 1, CONFIG_MAX_LAYERS) && v->hidden_size > 0 && v->intermediate_size > 0);
    REQUIRE(v->n_heads > 0 && v->hidden_size % v->n_heads == 0 && v->n_channels == 3);
    REQUIRE(v->patch_size > 0 && v->image_size > 0 && v->image_size % v->patch_size == 0);
    const int side = v->image_size / v->patch_size;
    int root = 0;
    while (root * root < c->image_tokens)
        root++;
    REQUIRE(root > 0 && root * root == c->image_tokens && side % root == 0);
    REQUIRE(c->image_token >= 0);
    for (int i = 0; i < 3; i++)
        REQUIRE(c->image.std[i] > 0);
}

/* ---- inputs ------------------------------------------------------------------------------------------------------ */

void fuzz_split(struct fuzz_parts *parts, const uint8_t *data, size_t size)
{
    const size_t length = strlen(FUZZ_SEPARATOR);
    *parts = (struct fuzz_parts){0};
    for (size_t i = 0; i < FUZZ_MAX_PARTS && size; i++) {
        const uint8_t *end = i + 1 < FUZZ_MAX_PARTS ? memmem(data, size, FUZZ_SEPARATOR, length) : NULL;
        const size_t n = end ? (size_t)(end - data) : size, step = end ? n + length : n;
        if (n) {
            parts->data[i] = malloc(n);
            REQUIRE(parts->data[i]);
            memcpy(parts->data[i], data, n);
        }
        parts->size[i] = n;
        data += step;
        size -= step;
    }
}

void fuzz_parts_free(struct fuzz_parts *parts)
{
    for (size_t i = 0; i < FUZZ_MAX_PARTS; i++)
        free(parts->data[i]);
}

/* ---- files ------------------------------------------------------------------------------------------------------- */

static struct folder folder;

static void remove_folder(void)
{
    folder_close(&folder);
}

const char *fuzz_folder(void)
{
    if (!folder.path[0]) {
        folder_open(&folder);
        atexit(remove_folder);
    }
    return folder.path;
}

void fuzz_folder_put(const char *name, const void *data, size_t size)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", fuzz_folder(), name);
    if (size)
        folder_write(&folder, name, data, size);
    else if (remove(path) && errno != ENOENT)
        folder_fail("remove", path);
}

/* ---- the tokenizer ----------------------------------------------------------------------------------------------- */

const struct tokenizer *fuzz_tokenizer(void)
{
    static struct tokenizer *tokenizer;
    struct ward_error err;
    if (!tokenizer && tokenizer_open(&tokenizer, "tests/vectors/models/f16", &err)) {
        fprintf(stderr, "run this in the folder of the repository: %s\n", err.text);
        exit(1);
    }
    return tokenizer;
}

struct text {
    char *at;
    size_t length;
};

/* The bytes that a piece stands for: -1, or the one byte of <0x0A>. */
static int byte_of(const char *piece, size_t length)
{
    char copy[7] = {0}, digits[3];
    unsigned byte;
    int end = 0;
    if (length != 6)
        return -1;
    memcpy(copy, piece, length);
    const bool form = sscanf(copy, "<0x%2[0-9A-Fa-f]>%n", digits, &end) == 1 && end == 6;
    return form && sscanf(digits, "%2x", &byte) == 1 ? (int)byte : -1;
}

static void append_run(struct text *out, const uint8_t *run, size_t n)
{
    const bool whole = utf8_valid(run, n) == n;
    for (size_t i = 0; i < n; i++) {
        memcpy(out->at + out->length, whole ? (const char *)&run[i] : "\xef\xbf\xbd", whole ? 1 : 3);
        out->length += whole ? 1 : 3;
    }
}

/* The decoder once more, as plainly as can be: all at once, run after run. */
static struct text decode_plainly(const struct tokenizer *t, const struct ids *ids, bool special)
{
    size_t room = 1, n_run = 0, length;
    for (size_t i = 0; i < ids->n; i++) {
        tokenizer_piece(t, ids->at[i], &length);
        room += length;
    }
    struct text out = {malloc(room * 3), 0};
    uint8_t *run = malloc(ids->n + 1);
    REQUIRE(out.at && run);
    for (size_t i = 0; i < ids->n; i++) {
        const char *piece = tokenizer_piece(t, ids->at[i], &length);
        if (!length || (!special && tokenizer_is_special(t, ids->at[i])))
            continue;
        const int byte = byte_of(piece, length);
        if (byte >= 0) {
            run[n_run++] = (uint8_t)byte;
            continue;
        }
        append_run(&out, run, n_run);
        n_run = 0;
        for (size_t k = 0; k < length;) {
            const bool mark = length - k >= 3 && !memcmp(piece + k, "\xe2\x96\x81", 3);
            out.at[out.length++] = mark ? ' ' : piece[k];
            k += mark ? 3 : 1;
        }
    }
    append_run(&out, run, n_run);
    free(run);
    return out;
}

/* Token by token, holding back no more than max_run bytes; all of it must be there, or whole characters at least. */
static void check_stream(const struct tokenizer *t, const struct ids *ids, bool special, size_t max_run,
                         const struct text *expected)
{
    struct decoder decoder;
    size_t at = 0, length;
    struct ward_error err;
    REQUIRE(!decoder_open(&decoder, t, max_run, special, &err));
    for (size_t i = 0; i <= ids->n; i++) {
        const char *text = i < ids->n ? decoder_push(&decoder, ids->at[i], &length) : decoder_finish(&decoder, &length);
        REQUIRE(text[length] == '\0');
        REQUIRE(utf8_valid((const uint8_t *)text, length) == length);
        if (max_run < ids->n)
            continue;
        REQUIRE(length <= expected->length - at);
        REQUIRE(!memcmp(text, expected->at + at, length));
        at += length;
    }
    REQUIRE(max_run < ids->n || at == expected->length);
    decoder_close(&decoder);
}

static void check_decoding(const struct tokenizer *t, const struct ids *ids, bool special)
{
    struct text plain = decode_plainly(t, ids, special), text;
    struct ward_error err;
    REQUIRE(!tokenizer_decode(t, ids->at, ids->n, special, &text.at, &text.length, &err));
    REQUIRE(text.length == plain.length);
    REQUIRE(!memcmp(text.at, plain.at, text.length));
    check_stream(t, ids, special, ids->n, &text);
    check_stream(t, ids, special, 3, &text);
    free(plain.at);
    free(text.at);
}

void fuzz_use_tokenizer(const struct tokenizer *t, const uint8_t *text, size_t size)
{
    static const enum tokenize_mode modes[] = {TOKENIZE_SPECIAL, TOKENIZE_PLAIN};
    for (int m = 0; m < 2; m++) {
        struct ids ids = {0};
        struct ward_error err = {0};
        const int rc = tokenizer_encode(t, (const char *)text, size, modes[m], &ids, &err);
        fuzz_check_result(rc, &err);
        REQUIRE((rc == 0) == (utf8_valid(text, size) == size));
        for (size_t i = 0; i < ids.n; i++) {
            REQUIRE(ids.at[i] >= 0 && ids.at[i] < tokenizer_size(t));
            REQUIRE(modes[m] != TOKENIZE_PLAIN || !tokenizer_is_control(t, ids.at[i]));
        }
        if (!rc) {
            check_decoding(t, &ids, false);
            check_decoding(t, &ids, true);
        }
        ids_free(&ids);
    }
}
