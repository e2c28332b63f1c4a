/* ask.h - steps of small generators that make tokens in order, for tests: what is asked for, run
 * and committed. */
#ifndef TT_TEST_ASK_H
#define TT_TEST_ASK_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "models/generator.h"

enum { ASK_TOKENS = 16, ASK_CODES = 11 }; /* at most */

/* A step's results of one image: logits of its next tokens. */
typedef struct {
    int32_t slot[ASK_TOKENS];
    tt_draw draw[ASK_TOKENS];
    tt_row_stats stats[ASK_TOKENS];
    float logits[ASK_TOKENS * ASK_CODES];
    tt_generator_call call;
} asked;

/* For the tokens from the first hidden one up to `end`. */
static inline void ask_for(asked *a, tt_generator_state *st, int end, float cfg_scale)
{
    *a = (asked){0};
    a->call = (tt_generator_call){.state = st,
                                  .cfg_scale = cfg_scale,
                                  .guided = true,
                                  .slot = a->slot,
                                  .draw = a->draw,
                                  .stats = a->stats,
                                  .logits = a->logits};
    for (int p = st->known; p < end; p++)
        a->slot[a->call.wants++] = p;
    for (int i = 0; i < ASK_TOKENS; i++)
        a->draw[i] = (tt_draw){.top_p = 1, .target = -1};
}

/* What each asks for, in one step. */
static inline void run_asked(tt_generator *model, const asked *list, int n)
{
    tt_generator_call call[8];
    tt_err e = {0};
    for (int i = 0; i < n; i++)
        call[i] = list[i].call;
    if (tt_generator_step(model, call, n, &e))
        fail_msg("%s", e.text);
}

/* Commits what was asked for; `salt` makes other tokens of it. */
static inline void commit(const asked *a, int salt)
{
    int32_t id[ASK_TOKENS];
    tt_err e = {0};
    for (int i = 0; i < a->call.wants; i++)
        id[i] = (5 * a->slot[i] + 3 + salt) % ASK_CODES;
    if (tt_generator_commit(a->call.state, a->slot, id, a->call.wants, &e))
        fail_msg("%s", e.text);
}

#endif
