/* What the checks of a card's operations share (checkcard.c), and the checks themselves. */
#ifndef WARD_TESTS_CUDA_CHECKS_H
#define WARD_TESTS_CUDA_CHECKS_H

#include "engine/backend.h"

extern struct backend *card;

/* ---- to the card and back (checkcard.c) -------------------------------------------------------------------------- */

/* `bytes` of the card's memory with what `host` holds, or zeros (NULL); until release_all. */
void *on_card(const void *host, size_t bytes);
struct tensor matrix_on_card(const struct tensor *t);
bool fetch(void *host, const void *at, size_t bytes);
void release_all(void);
float *random_floats(size_t n);
/* A card's floats against what is expected of them, each within its bound. */
bool compare(const char *what, const void *at, const double *expected, const double *bound, size_t n);

/* ---- products (check_products.c) --------------------------------------------------------------------------------- */

struct product {
    enum tensor_type type;
    int rows, cols, outputs;
    bool exact, many; /* many: on tensor cores */
};

/* The exact product of p's shape, and how far off a card's may be. */
void expect_product(const struct product *p, const float *x, const float *w, const float *bias, double *expected,
                    double *bound);
/* gelu_pytorch_tanh, of a value and of values with their bounds. */
double gelu(double x);
void activate(double *values, double *bound, size_t n);
/* What products need beside their results. */
struct scratch room_for_products(int rows, int cols, bool exact);
/* Room on the card for rows as the next products take them; and what has been left there. */
void *room_for_packed(int rows, int cols, bool exact);
bool check_packed(const char *what, const void *at, const double *expected, const double *bound, int rows, int cols,
                  bool exact);

/* ---- the checks, each by its name in checkcard.c ----------------------------------------------------------------- */

bool linear_f32(void);
bool linear_f16(void);
bool linear_bf16(void);
bool linear_q8_0(void);
bool linear_q4_0(void);
bool linear_q4_1(void);
bool linear_q5_0(void);
bool linear_q5_1(void);
bool linear_q4_k(void);
bool linear_q5_k(void);
bool linear_q6_k(void);
bool outcomes(void);
bool attention(void);
bool norms(void);
bool gated(void);
bool rotation(void);
bool preparing(void);
bool tables(void);
bool pooling(void);
bool choice(void);
bool drawing(void);
bool undrawn(void);
bool recording(void);
bool measuring(void); /* the kernels that measure a card do what they are timed for */

#endif
