/* The audit log: what is written can be read by whom it is for, and no change to it goes unseen. The attacks are made
 * on the bytes of small logs; each test says how many it made. */
#include "audit_log.h"

#include "audit/checkpoint.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- the tree and its heads -------------------------------------------------------------------------------------- */

/* The leaves and roots by which implementations of RFC 6962 are compared. */
static void test_tree(void **state)
{
    static const char *const leaves[] = {"", "00", "10", "2021", "3031", "40414243", "5051525354555657",
                                         "606162636465666768696a6b6c6d6e6f"};
    static const char *const roots[] = {
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    };
    struct audit_tree tree = {0};
    (void)state;
    for (size_t i = 0; i < 8; i++) {
        uint8_t bytes[1 + 16] = {0}, leaf[AUDIT_HASH], root[AUDIT_HASH];
        char digits[2 * AUDIT_HASH + 1];
        const size_t n = strlen(leaves[i]) / 2;
        assert_true(audit_unhex(bytes + 1, n, leaves[i], 2 * n));
        audit_hash(leaf, bytes, 1 + n);
        audit_tree_add(&tree, leaf);
        audit_tree_root(&tree, root);
        audit_hex(digits, root, AUDIT_HASH);
        assert_string_equal(digits, roots[i]);
    }
}

static void test_checkpoint(void **state)
{
    struct log log;
    struct audit_checkpoint made = {.size = 12345678901}, read;
    struct ward_error err;
    char text[AUDIT_CHECKPOINT_ROOM], changed[AUDIT_CHECKPOINT_ROOM + 64];
    uint8_t seed[AUDIT_KEY], key[AUDIT_KEY];
    struct audit_ratchet ratchet;
    (void)state;
    log_open(&log);
    memset(seed, 7, sizeof seed);
    memset(&ratchet, 7, sizeof ratchet);
    audit_ratchet_key(&ratchet, audit_for_signing, seed); /* a seed whose public key is at hand */
    audit_ratchet_public(&ratchet, key);
    audit_checkpoint_origin(made.origin, log.anchor);
    memset(made.root, 0x5a, AUDIT_HASH);
    audit_checkpoint_sign(text, &made, seed);
    const size_t n = strlen(text);
    assert_int_equal(audit_checkpoint_parse(&read, text, n, "note", &err), 0);
    assert_string_equal(read.origin, made.origin);
    assert_true(read.size == made.size);
    assert_memory_equal(read.root, made.root, AUDIT_HASH);
    assert_true(audit_checkpoint_is_signed(&read, text, n, key));
    assert_false(audit_checkpoint_is_signed(&read, text, n, log.anchor));
    /* A witness's line before ours is passed over. */
    const char *lines = strstr(text, "\n\n") + 2;
    snprintf(changed, sizeof changed, "%.*s\xe2\x80\x94 witness.example AAAA\n%s", (int)(lines - text), text, lines);
    assert_true(audit_checkpoint_is_signed(&read, changed, strlen(changed), key));
    for (size_t i = 0; i < n; i++)
        for (int bit = 0; bit < 8; bit++) {
            memcpy(changed, text, n + 1);
            changed[i] = (char)(changed[i] ^ 1 << bit);
            if (audit_checkpoint_parse(&read, changed, n, "note", &err) == 0)
                if (audit_checkpoint_is_signed(&read, changed, n, key))
                    fail_msg("bit %d of byte %zu of %zu was flipped unseen: %s", bit, i, n, changed);
        }
    log_close(&log);
}

/* ---- who can read ------------------------------------------------------------------------------------------------ */

struct seen {
    int begins, ends, sealed, removed;
    int64_t last;
};

static int on_record(void *user, struct audit_record *record, struct ward_error *err)
{
    struct seen *seen = user;
    (void)err;
    seen->sealed += record->sealed;
    if (!audit_type_is_encrypted(record->frame->type))
        return 0;
    if (!record->document) {
        seen->removed += !record->sealed;
        return 0;
    }
    if (record->frame->type == AUDIT_BEGIN) {
        assert_true(json_integer(json_get(json_root(record->document), "number"), 0, 1000, &seen->last));
        seen->begins++;
    } else {
        assert_true(json_string_is(json_get(json_root(record->document), "outcome"), "stop"));
        seen->ends++;
    }
    return 0;
}

static int read_with(const struct log *log, const struct audit_auditor *auditor, struct seen *seen,
                     struct ward_error *err)
{
    struct audit_summary summary;
    *seen = (struct seen){0};
    return audit_read_records(log->dir, log->anchor, auditor, on_record, seen, &summary, err);
}

static void test_reading(void **state)
{
    struct log log;
    struct seen seen;
    struct ward_error err;
    struct audit_auditor stranger;
    (void)state;
    log_open(&log);
    log_add_uses(&log, 3, "a");
    log_rotate(&log);
    log_add_uses(&log, 2, "b");
    assert_int_equal(read_with(&log, &log.auditor, &seen, &err), 0);
    assert_int_equal(seen.begins, 5);
    assert_int_equal(seen.ends, 5);
    assert_int_equal(seen.last, 1);
    audit_auditor_make(&stranger);
    assert_int_equal(read_with(&log, &stranger, &seen, &err), WARD_EINVAL);
    assert_int_equal(seen.begins, 0);
    assert_non_null(strstr(err.text, "opens none"));
    log_close(&log);
}

static void test_new_auditor(void **state)
{
    struct log log;
    struct seen seen;
    struct ward_error err;
    struct audit_auditor second;
    struct audit_header header = {.n_auditors = 1};
    struct audit_writer *writer;
    (void)state;
    log_open(&log);
    log_add_uses(&log, 2, "a");
    audit_auditor_make(&second);
    memcpy(header.auditors[0].public_key, second.public_key, AUDIT_KEY);
    assert_int_equal(audit_writer_open(&writer, log.dir, &err), 0);
    assert_int_equal(audit_rotate(writer, &header, &err), 0);
    audit_writer_close(&writer);
    log_add_uses(&log, 3, "b");
    log_rotate(&log); /* the new auditor stays */
    log_add_uses(&log, 4, "c");
    assert_int_equal(read_with(&log, &log.auditor, &seen, &err), 0);
    assert_int_equal(seen.begins, 2);
    assert_int_equal(seen.sealed, 14);
    assert_int_equal(read_with(&log, &second, &seen, &err), 0);
    assert_int_equal(seen.begins, 7);
    assert_int_equal(seen.sealed, 4);
    log_close(&log);
}

/* What the thief of the machine finds opens nothing that was written before he came. */
static void test_stolen_state(void **state)
{
    struct log log;
    struct audit_state stolen;
    struct ward_error err;
    size_t size, at[32], n_text;
    int fd, tried = 0;
    char *text;
    (void)state;
    log_open(&log);
    log_add_uses(&log, 4, "a");
    assert_int_equal(audit_state_open(&fd, log.dir, false, &err), 0);
    assert_int_equal(audit_state_read(&stolen, fd, log.dir, &err), 0);
    close(fd);
    uint8_t *bytes = log_read(&log, "00000001.log", &size);
    const size_t n = log_frames(bytes, size, at, 32);
    assert_int_equal(n, 9);
    for (int step = 0; step < 100; step++) { /* and what grows from it neither */
        for (size_t i = 1; i < n; i++, tried++)
            assert_false(audit_frame_open(bytes + at[i], bytes + at[i] + AUDIT_HEAD, at[i + 1] - at[i] - AUDIT_HEAD,
                                          &stolen.content, &text, &n_text));
        audit_ratchet_step(&stolen.content, audit_for_content);
    }
    print_message("# %d records tried with the keys of a stolen machine, none opened\n", tried);
    free(bytes);
    log_close(&log);
}

static int give_passphrase(char out[AUDIT_PASSPHRASE_LIMIT], const char *name, struct ward_error *err)
{
    (void)name, (void)err;
    strcpy(out, "correct horse");
    return 0;
}

static int give_another(char out[AUDIT_PASSPHRASE_LIMIT], const char *name, struct ward_error *err)
{
    (void)name, (void)err;
    strcpy(out, "battery staple");
    return 0;
}

static void test_key_file(void **state)
{
    struct audit_auditor made, read;
    struct ward_error err;
    char *text;
    (void)state;
    assert_int_equal(audit_start(&err), 0);
    audit_auditor_make(&made);
    made.has_anchor = true;
    memset(made.anchor, 3, AUDIT_KEY);
    assert_int_equal(audit_key_text(&text, &made, NULL, &err), 0);
    assert_int_equal(audit_key_parse(&read, text, strlen(text), "key", NULL, &err), 0);
    assert_memory_equal(&read, &made, sizeof made);
    free(text);
    assert_int_equal(audit_key_text(&text, &made, "correct horse", &err), 0);
    assert_int_equal(audit_key_parse(&read, text, strlen(text), "key", give_passphrase, &err), 0);
    assert_memory_equal(&read, &made, sizeof made);
    assert_int_equal(audit_key_parse(&read, text, strlen(text), "key", give_another, &err), WARD_EINVAL);
    assert_int_equal(audit_key_parse_public(&read, text, strlen(text), "key", &err), 0);
    assert_memory_equal(read.public_key, made.public_key, AUDIT_KEY);
    char *memory = strstr(text, "268435456"); /* a file may not ask for the machine's memory */
    assert_non_null(memory);
    memcpy(memory, "999999999", 9);
    assert_int_equal(audit_key_parse(&read, text, strlen(text), "key", give_passphrase, &err), WARD_EINVAL);
    memcpy(memory, "2e9      ", 9);
    assert_int_equal(audit_key_parse(&read, text, strlen(text), "key", give_passphrase, &err), WARD_EFORMAT);
    free(text);
}

/* ---- attacks ----------------------------------------------------------------------------------------------------- */

static void test_every_bit(void **state)
{
    struct log log;
    struct ward_error err;
    size_t size;
    (void)state;
    log_open(&log);
    log_add_uses(&log, 1, "a");
    uint8_t *bytes = log_read(&log, "00000001.log", &size);
    assert_int_equal(log_verify_bytes(&log, bytes, size, NULL, &err), 0);
    for (size_t i = 0; i < size; i++)
        for (int bit = 0; bit < 8; bit++) {
            bytes[i] ^= (uint8_t)(1 << bit);
            if (log_verify_bytes(&log, bytes, size, NULL, &err) == 0)
                fail_msg("bit %d of byte %zu was flipped unseen", bit, i);
            bytes[i] ^= (uint8_t)(1 << bit);
        }
    print_message("# %zu bits flipped, each seen\n", 8 * size);
    free(bytes);
    log_close(&log);
}

/* Builds a segment of frames in another order: order[i] is the index of the frame at place i. */
static size_t compose(uint8_t *out, const uint8_t *bytes, const size_t at[], const size_t order[], size_t n)
{
    size_t size = AUDIT_MAGIC;
    memcpy(out, bytes, AUDIT_MAGIC);
    for (size_t i = 0; i < n; i++) {
        const size_t length = at[order[i] + 1] - at[order[i]];
        memcpy(out + size, bytes + at[order[i]], length);
        size += length;
    }
    return size;
}

static void test_dropped_repeated_moved(void **state)
{
    struct log log;
    struct ward_error err;
    size_t size, at[32], order[64];
    int dropped = 0, repeated = 0, moved = 0;
    (void)state;
    log_open(&log);
    log_add_uses(&log, 4, "a");
    log_rotate(&log); /* closed: its end is known */
    uint8_t *bytes = log_read(&log, "00000001.log", &size), *out = malloc(2 * size);
    const size_t n = log_frames(bytes, size, at, 32);
    assert_int_equal(n, 10);
    for (size_t k = 0; k + 1 < n; k++, dropped++) { /* one dropped; the last is truncation, below */
        for (size_t i = 0; i + 1 < n; i++)
            order[i] = i + (i >= k);
        assert_int_not_equal(log_verify_bytes(&log, out, compose(out, bytes, at, order, n - 1), NULL, &err), 0);
    }
    for (size_t k = 0; k < n; k++)
        for (size_t place = 0; place <= n; place++, repeated++) { /* one repeated, at every place */
            for (size_t i = 0; i <= n; i++)
                order[i] = i < place ? i : i == place ? k : i - 1;
            assert_int_not_equal(log_verify_bytes(&log, out, compose(out, bytes, at, order, n + 1), NULL, &err), 0);
        }
    for (size_t a = 0; a < n; a++)
        for (size_t b = a + 1; b < n; b++, moved++) { /* two exchanged */
            for (size_t i = 0; i < n; i++)
                order[i] = i == a ? b : i == b ? a : i;
            assert_int_not_equal(log_verify_bytes(&log, out, compose(out, bytes, at, order, n), NULL, &err), 0);
        }
    print_message("# %d dropped, %d repeated, %d exchanged, each seen\n", dropped, repeated, moved);
    free(out);
    free(bytes);
    log_close(&log);
}

/* Records of another log (another machine's) in place of ours, with and without its head. */
static void test_spliced(void **state)
{
    struct log log, other;
    struct ward_error err;
    size_t size, other_size, at[32], other_at[32];
    int spliced = 0;
    (void)state;
    log_open(&log);
    log_open(&other);
    log_add_uses(&log, 4, "a");
    log_add_uses(&other, 4, "a");
    uint8_t *bytes = log_read(&log, "00000001.log", &size);
    uint8_t *foreign = log_read(&other, "00000001.log", &other_size), *out = malloc(2 * (size + other_size));
    const size_t n = log_frames(bytes, size, at, 32), m = log_frames(foreign, other_size, other_at, 32);
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < m; k++) {
            for (int tail = 0; tail < 2; tail++, spliced++) { /* one record of it, or all from there on */
                const size_t end = tail ? other_size : other_at[k + 1];
                size_t length = at[i];
                memcpy(out, bytes, length);
                memcpy(out + length, foreign + other_at[k], end - other_at[k]);
                length += end - other_at[k];
                if (!tail) {
                    memcpy(out + length, bytes + at[i + 1], size - at[i + 1]);
                    length += size - at[i + 1];
                }
                assert_int_not_equal(log_verify_bytes(&log, out, length, NULL, &err), 0);
            }
        }
    /* All of it: only the anchor tells. */
    struct audit_reader reader = {0};
    assert_int_equal(audit_read_segment(&reader, foreign, other_size, "foreign", &err), 0);
    audit_reader_clear(&reader);
    assert_int_not_equal(log_verify_bytes(&log, foreign, other_size, NULL, &err), 0);
    print_message("# %d splices, each seen\n", spliced + 1);
    free(out);
    free(bytes);
    free(foreign);
    log_close(&log);
    log_close(&other);
}

/* The checkpoint's comparison, as ward audit verify makes it: does the log still hold what it was made of? */
struct comparison {
    struct audit_reader *reader;
    uint64_t size;
    uint8_t root[AUDIT_HASH];
    bool good;
};

static int compare(void *user, const struct audit_entry *entry, struct ward_error *err)
{
    struct comparison *c = user;
    uint8_t root[AUDIT_HASH];
    (void)err;
    if (entry->frame->seq + 1 == c->size) {
        audit_tree_root(&c->reader->summary.tree, root);
        c->good = !memcmp(root, c->root, AUDIT_HASH);
    }
    return 0;
}

static void test_truncated(void **state)
{
    struct log log;
    struct ward_error err;
    struct audit_summary whole, summary;
    size_t size, seen = 0, by_checkpoint = 0, by_state = 0;
    (void)state;
    log_open(&log);
    log_add_uses(&log, 2, "a");
    assert_int_equal(log_verify(&log, true, &whole, &err), 0);
    struct comparison c = {.size = whole.tree.n};
    audit_tree_root(&whole.tree, c.root);
    uint8_t *bytes = log_read(&log, "00000001.log", &size);
    for (size_t n = 0; n < size; n++) {
        log_write(&log, "00000001.log", bytes, n);
        by_state += log_verify(&log, true, NULL, &err) != 0; /* the writer's state is beside it */
        if (log_verify_bytes(&log, bytes, n, &summary, &err)) {
            seen++;
            continue;
        }
        /* At the end of a record: nothing in the file tells, and verify says so. A checkpoint does. */
        struct audit_reader reader = {.anchor = log.anchor, .on_entry = compare, .user = &c};
        c.reader = &reader;
        c.good = false;
        assert_int_equal(audit_read_segment(&reader, bytes, n, "cut", &err), 0);
        audit_reader_clear(&reader);
        assert_false(c.good);
        assert_false(summary.closed);
        by_checkpoint++;
    }
    assert_int_equal(seen + by_checkpoint, size);
    assert_int_equal(by_checkpoint, 4);
    assert_int_equal(by_state, size);
    print_message("# cut at %zu offsets: %zu seen at once, %zu with a later checkpoint; with the writer's state %zu\n",
                  size, seen, by_checkpoint, by_state);
    free(bytes);
    log_close(&log);
}

/* Whole segments cut, taken away, or closed ones opened again. */
static void test_segments(void **state)
{
    struct log log;
    struct ward_error err;
    size_t sizes[4], at[32];
    uint8_t *bytes[4];
    char path[400], away[400];
    const char *const names[] = {"00000001.log", "00000002.log", "00000003.log"};
    int attacks = 0;
    (void)state;
    log_open(&log);
    log_add_uses(&log, 1, "a");
    log_rotate(&log);
    log_add_uses(&log, 1, "b");
    log_rotate(&log);
    log_add_uses(&log, 1, "c");
    assert_int_equal(log_verify(&log, true, NULL, &err), 0);
    snprintf(away, sizeof away, "%s/away", log.folder.path);
    for (int i = 0; i < 3; i++, attacks++) {
        bytes[i] = log_read(&log, names[i], &sizes[i]);
        log_path(path, &log, names[i]);
        assert_int_equal(rename(path, away), 0);
        assert_int_not_equal(log_verify(&log, true, NULL, &err), 0);
        assert_int_equal(rename(away, path), 0);
    }
    for (int i = 0; i < 2; i++, attacks += 2) {
        const size_t n = log_frames(bytes[i], sizes[i], at, 32);
        log_write(&log, names[i], bytes[i], at[n - 1]); /* without its closing record */
        assert_int_not_equal(log_verify(&log, true, NULL, &err), 0);
        log_write(&log, names[i], bytes[1 - i], sizes[1 - i]); /* another's content under its name */
        assert_int_not_equal(log_verify(&log, true, NULL, &err), 0);
        log_write(&log, names[i], bytes[i], sizes[i]);
    }
    log_write(&log, "00000009.log", bytes[0], sizes[0]);
    assert_int_not_equal(log_verify(&log, true, NULL, &err), 0);
    log_path(path, &log, "00000009.log");
    unlink(path);
    log_write(&log, "notes.log", bytes[0], sizes[0]);
    assert_int_not_equal(log_verify(&log, true, NULL, &err), 0);
    log_path(path, &log, "notes.log");
    unlink(path);
    /* What retention would leave, but that no record tells of. */
    memcpy(bytes[0], audit_magic_pruned, AUDIT_MAGIC);
    const size_t n = log_frames(bytes[0], sizes[0], at, 32);
    uint8_t *cut = malloc(sizes[0]);
    size_t size = at[1];
    memcpy(cut, bytes[0], size);
    for (size_t i = 1; i < n; i++) {
        const size_t keep = i + 1 < n ? AUDIT_HEAD : at[i + 1] - at[i];
        memcpy(cut + size, bytes[0] + at[i], keep);
        size += keep;
    }
    log_write(&log, names[0], cut, size);
    assert_int_not_equal(log_verify(&log, true, NULL, &err), 0);
    assert_non_null(strstr(err.text, "retention"));
    print_message("# %d attacks on whole segments, each seen\n", attacks + 3);
    free(cut);
    for (int i = 0; i < 3; i++)
        free(bytes[i]);
    log_close(&log);
}

/* CVE-2023-31439: a verifier that takes an old record which was sealed again with a newer key. The thief has the state
 * and writes the past anew from record `from` on, with the keys that he has. */
static size_t reseal(uint8_t *out, const uint8_t *bytes, const size_t at[], size_t n, size_t from,
                     struct audit_state thief, bool evolve)
{
    size_t size = at[from];
    uint8_t prev[AUDIT_HASH];
    struct ward_error err;
    memcpy(out, bytes, size);
    for (size_t i = from; i < n; i++) {
        struct audit_frame frame;
        uint8_t *made;
        size_t n_made;
        assert_true(audit_frame_get(&frame, bytes + at[i]));
        if (i > from)
            memcpy(frame.prev, prev, AUDIT_HASH);
        assert_int_equal(audit_frame_make(&frame, "{\"outcome\":\"stop\",\"number\":7}", 29, &thief.content,
                                          &thief.signing, &made, &n_made, &err), 0);
        memcpy(out + size, made, n_made);
        size += n_made;
        audit_leaf(prev, made);
        free(made);
        if (evolve) {
            audit_ratchet_step(&thief.content, audit_for_content);
            audit_ratchet_step(&thief.signing, audit_for_signing);
        }
    }
    return size;
}

static void test_resealed(void **state)
{
    struct log log;
    struct ward_error err;
    struct audit_state thief;
    size_t size, at[32];
    int fd, forged = 0;
    (void)state;
    log_open(&log);
    log_add_uses(&log, 4, "a");
    assert_int_equal(audit_state_open(&fd, log.dir, false, &err), 0);
    assert_int_equal(audit_state_read(&thief, fd, log.dir, &err), 0);
    close(fd);
    uint8_t *bytes = log_read(&log, "00000001.log", &size), *out = malloc(2 * size);
    const size_t n = log_frames(bytes, size, at, 32);
    for (size_t from = 1; from < n; from++)
        for (int evolve = 0; evolve < 2; evolve++, forged++) {
            const size_t length = reseal(out, bytes, at, n, from, thief, evolve);
            assert_int_not_equal(log_verify_bytes(&log, out, length, NULL, &err), 0);
            assert_non_null(strstr(err.text, "signature"));
        }
    print_message("# %d forgeries with the newest key, each seen\n", forged);
    free(out);
    free(bytes);
    log_close(&log);
}

/* The whole folder as it was some time ago, writer and all: it verifies, until a later checkpoint is held against it.
 * Written on from there, nothing is encrypted twice with one key and nonce. */
static void test_rolled_back(void **state)
{
    struct log log;
    struct ward_error err;
    struct audit_summary later, now;
    size_t size, state_size, new_size, at[32], new_at[32];
    (void)state;
    log_open(&log);
    log_add_uses(&log, 2, "before");
    uint8_t *bytes = log_read(&log, "00000001.log", &size);
    uint8_t *secret = log_read(&log, "writer/state", &state_size);
    log_add_uses(&log, 2, "later");
    assert_int_equal(log_verify(&log, true, &later, &err), 0);
    uint8_t *first = log_read(&log, "00000001.log", &new_size);
    log_frames(first, new_size, at, 32);
    /* The log alone rolled back: the state tells, and nothing more is added. */
    log_write(&log, "00000001.log", bytes, size);
    struct audit_writer *writer;
    assert_int_not_equal(log_verify(&log, true, NULL, &err), 0);
    assert_int_not_equal(audit_writer_open(&writer, log.dir, &err), 0);
    assert_non_null(strstr(err.text, "records were removed"));
    /* Both. */
    log_write(&log, "writer/state", secret, state_size);
    assert_int_equal(log_verify(&log, true, &now, &err), 0);
    assert_true(now.tree.n < later.tree.n); /* which the checkpoint says */
    log_add_uses(&log, 2, "another");
    uint8_t *second = log_read(&log, "00000001.log", &new_size);
    log_frames(second, new_size, new_at, 32);
    assert_int_equal(log_verify(&log, true, &now, &err), 0);
    assert_true(now.tree.n == later.tree.n);
    assert_memory_not_equal(&now.tree.roots, &later.tree.roots, sizeof now.tree.roots);
    for (size_t i = 5; i < 9; i++) /* the same key, another nonce */
        assert_memory_not_equal(first + at[i] + AUDIT_HEAD, second + new_at[i] + AUDIT_HEAD, AUDIT_NONCE);
    free(bytes);
    free(secret);
    free(first);
    free(second);
    log_close(&log);
}

/* ---- retention --------------------------------------------------------------------------------------------------- */

static void test_pruned(void **state)
{
    struct log log;
    struct ward_error err;
    struct audit_writer *writer;
    struct audit_summary before, after;
    struct seen seen;
    size_t size, smaller;
    (void)state;
    log_open(&log);
    log_add_uses(&log, 3, "a secret");
    log_rotate(&log);
    log_add_uses(&log, 3, "b");
    log_rotate(&log);
    log_add_uses(&log, 1, "c");
    assert_int_equal(log_verify(&log, true, &before, &err), 0);
    free(log_read(&log, "00000001.log", &size));
    assert_int_equal(audit_writer_open(&writer, log.dir, &err), 0);
    assert_int_equal(audit_prune(writer, 3, &err), WARD_EINVAL); /* the open one */
    assert_int_equal(audit_prune(writer, 1, &err), 0);
    assert_int_equal(log_verify(&log, true, &after, &err), 0);
    assert_true(after.pruned == 1 && after.tree.n == before.tree.n + 1);
    assert_int_equal(audit_prune(writer, 2, &err), 0);
    audit_writer_close(&writer);
    assert_int_equal(log_verify(&log, true, &after, &err), 0);
    assert_true(after.pruned == 2);
    free(log_read(&log, "00000001.log", &smaller));
    assert_true(smaller < size);
    assert_int_equal(read_with(&log, &log.auditor, &seen, &err), 0);
    assert_int_equal(seen.begins, 1);
    assert_int_equal(seen.removed, 12);
    log_close(&log);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tree),
        cmocka_unit_test(test_checkpoint),
        cmocka_unit_test(test_reading),
        cmocka_unit_test(test_new_auditor),
        cmocka_unit_test(test_stolen_state),
        cmocka_unit_test(test_key_file),
        cmocka_unit_test(test_every_bit),
        cmocka_unit_test(test_dropped_repeated_moved),
        cmocka_unit_test(test_spliced),
        cmocka_unit_test(test_truncated),
        cmocka_unit_test(test_segments),
        cmocka_unit_test(test_resealed),
        cmocka_unit_test(test_rolled_back),
        cmocka_unit_test(test_pruned),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
