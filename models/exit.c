/* exit.c - see exit.h. Probabilities are float32 logits' softmax, summed in double. */
#include "models/exit.h"

#include <math.h>
#include <string.h>

#include "models/decider.h"

static int32_t argmax(const float *x, int64_t n)
{
    int64_t best = 0;
    for (int64_t i = 1; i < n; i++)
        if (x[i] > x[best])
            best = i;
    return (int32_t)best;
}

/* ln sum exp x. */
static double log_sum(const float *x, int64_t n)
{
    double max = x[argmax(x, n)], sum = exp(x[0] - max);
    for (int64_t i = 1; i < n; i++)
        sum += exp(x[i] - max);
    return max + log(sum);
}

/* --- on states --- */

static double latent_diff(tt_exit_memory *m, const tt_exit_sight *s)
{
    (void)m;
    return s->moved;
}

static double cosine(tt_exit_memory *m, const tt_exit_sight *s)
{
    (void)m;
    return s->turned;
}

/* --- on the distribution of the last row --- */

/* Before the first check the entropy counts as 100. */
static double entropy_diff(tt_exit_memory *m, const tt_exit_sight *s)
{
    double norm = log_sum(s->logits, s->vocab), entropy = 0;
    double before = m->checks ? m->entropy : 100;
    for (int64_t i = 0; i < s->vocab; i++) {
        double p = exp(s->logits[i] - norm);
        entropy -= p * log(p + 1e-10);
    }
    m->entropy = entropy;
    return fabs(entropy - before);
}

/* KL(before || now), log-probabilities of the check before kept in m->row; before the first check
 * the distribution counts as uniform. */
static double kl(tt_exit_memory *m, const tt_exit_sight *s)
{
    double norm = log_sum(s->logits, s->vocab), sum = 0, flat = -log((double)s->vocab);
    for (int64_t i = 0; i < s->vocab; i++) {
        double before = m->checks ? m->row[i] : flat, now = s->logits[i] - norm;
        sum += exp(before) * (before - now);
        m->row[i] = (float)now;
    }
    return sum;
}

/* The same after probabilities below a tenth of the largest became 1 / vocab and all were divided
 * by their sum. */
static double minp_kl(tt_exit_memory *m, const tt_exit_sight *s)
{
    double norm = log_sum(s->logits, s->vocab), flat = 1 / (double)s->vocab, total = 0, sum = 0;
    double least = 0.1 * exp(s->logits[argmax(s->logits, s->vocab)] - norm);
    for (int64_t i = 0; i < s->vocab; i++) {
        double p = exp(s->logits[i] - norm);
        total += p < least ? flat : p;
    }
    for (int64_t i = 0; i < s->vocab; i++) {
        double p = exp(s->logits[i] - norm);
        double before = m->checks ? m->row[i] : log(flat);
        double now = log((p < least ? flat : p) / total);
        sum += exp(before) * (before - now);
        m->row[i] = (float)now;
    }
    return sum;
}

static double argmax_stability(tt_exit_memory *m, const tt_exit_sight *s)
{
    int32_t now = argmax(s->logits, s->vocab);
    m->count = m->checks && now == m->argmax ? m->count + 1 : 0;
    m->argmax = now;
    return m->count;
}

/* --- learned --- */

static double learned(tt_exit_memory *m, const tt_exit_sight *s)
{
    (void)m;
    return tt_decider_continue(s->decider, s->latent, s->logits, s->vocab);
}

static const tt_exit_rule rules[] = {
    {.name = "none", .summary = "always run all recurrences"},
    {.name = "latent-diff",
     .summary = "the states move less than the threshold, relative to their norm",
     .threshold = 0.03, .needs = TT_EXIT_STATES, .value = latent_diff},
    {.name = "cosine",
     .summary = "the states turn less than the threshold (1 - cosine)",
     .threshold = 1e-3, .needs = TT_EXIT_STATES, .value = cosine},
    {.name = "entropy-diff",
     .summary = "the entropy of the next token changes less than the threshold, in nats",
     .threshold = 1e-3, .needs = TT_EXIT_LOGITS, .value = entropy_diff},
    {.name = "kl",
     .summary = "the distribution of the next token moves less than the threshold, in nats",
     .threshold = 1e-3, .needs = TT_EXIT_LOGITS, .value = kl},
    {.name = "minp-kl",
     .summary = "the likely part of that distribution moves less than the threshold",
     .threshold = 1e-5, .needs = TT_EXIT_LOGITS, .value = minp_kl},
    {.name = "argmax-stability",
     .summary = "the most likely next token stays the same for so many checks",
     .threshold = 5, .needs = TT_EXIT_LOGITS, .rising = true, .value = argmax_stability},
    {.name = "learned",
     .summary = "the checkpoint's own decider gives going on less probability than the threshold",
     .threshold = 0.9, .needs = TT_EXIT_LOGITS | TT_EXIT_LATENT, .value = learned},
};

enum { RULES = sizeof rules / sizeof *rules };

const tt_exit_rule *const *tt_exit_all(void)
{
    static const tt_exit_rule *const list[] = {&rules[0], &rules[1], &rules[2], &rules[3],
                                               &rules[4], &rules[5], &rules[6], &rules[7], NULL};
    _Static_assert(sizeof list / sizeof *list == RULES + 1, "every rule is listed");
    return list;
}

const tt_exit_rule *tt_exit_find(const char *name)
{
    for (int i = 0; i < RULES; i++)
        if (!strcmp(rules[i].name, name))
            return &rules[i];
    return NULL;
}
