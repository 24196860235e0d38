/* Lossless speculation by prompt lookup: reports repeat phrases, of the question and of themselves, and a step of
 * several rows reads the weights as often as a step of one. What followed the last tokens when they occurred before is
 * the draft of what follows now. The model computes it together with the token that it knows, and each drafted token
 * that it would have chosen anyway is one for nothing. */
#ifndef WARD_ENGINE_SPECULATE_H
#define WARD_ENGINE_SPECULATE_H

#include "kernels/kernels.h"

enum { DRAFT_MOST = GEMV_MAX_N - 1 }; /* beside the token that is known */

/* When a draft is worth its rows, learned from what steps took and what came of drafts. */
struct speculator {
    double step_ms;     /* a step of one row; 0: not measured yet */
    double row_cost;    /* of a further row, in steps */
    double hit_rate[2]; /* of a drafted token: after a match of two tokens, of three */
    double spent_ms;    /* on all steps of this answer */
    double balance_ms;  /* what its drafts have gained, less what they have cost */
    int kind;           /* of match that the last draft rests on: which hit_rate */
    int n_drafted;      /* by it */
    int in_a_row;       /* steps with a draft since one of a single row was measured */
};

void speculator_init(struct speculator *s);
/* An answer begins: nothing is spent yet; what was learned stays. */
void speculator_begin(struct speculator *s);

/* Drafts at most `most` (<= DRAFT_MOST) tokens that may follow ids[0..n-1] into ids[n...], and returns how many: none
 * without an earlier occurrence of the last two tokens, or, unless `always`, where a draft is not expected to pay. The
 * token `never` is not drafted. */
int speculator_draft(struct speculator *s, int32_t *ids, int n, int most, bool always, int32_t never);
/* The step that computed the last draft, or none, took so long. */
void speculator_note_step(struct speculator *s, double ms);
/* Of the last draft so many tokens were right. */
void speculator_note_hits(struct speculator *s, int hits);

#endif
