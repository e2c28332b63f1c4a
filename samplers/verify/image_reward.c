/* image_reward.c - ImageReward (arXiv 2304.05977) as a verifier. */
#include <stdlib.h>
#include <string.h>

#include "models/image_reward.h"
#include "samplers/verify/pictures.h"
#include "tokenizers/text.h"

typedef struct {
    tt_verifier base; /* first: cast back */
    tt_reward *reward;
} judge;

/* Its pictures are normalised as CLIP's. */
static const float mean[3] = {0.48145466f, 0.4578275f, 0.40821073f};
static const float deviation[3] = {0.26862954f, 0.26130258f, 0.27577711f};

typedef struct {
    int32_t n, id[];
} prompt_ids;

static void reward_close(tt_verifier *v)
{
    judge *j = (judge *)v;
    tt_reward_close(j->reward);
    free(j);
}

static tt_status reward_open(tt_verifier **out, tt_stream *stream, const char *folder,
                             tt_weights_mode mode, tt_err *e)
{
    judge *j = calloc(1, sizeof *j);
    if (!j)
        return tt_fail(e, TT_ENOMEM, "no memory for a verifier");
    tt_status st = tt_reward_open(&j->reward, stream, folder, mode, e);
    if (st) {
        free(j);
        return st;
    }
    const tt_reward_info *about = tt_reward_about(j->reward);
    j->base = (tt_verifier){.stream = stream,
                            .info = {.parameters = about->parameters, .side = about->side}};
    *out = &j->base;
    return TT_OK;
}

/* The prompt's ids, cut off at the context as the released code does. */
static tt_status reward_prepare(tt_verifier *v, void **out, const char *text, tt_err *e)
{
    tt_ids ids = {0};
    size_t most = (size_t)tt_reward_about(((judge *)v)->reward)->context;
    tt_status st = tt_tok_encode(v->tok, text, strlen(text), TT_TOK_ADD_SPECIAL, &ids, e);
    size_t n = ids.count < most ? ids.count : most;
    prompt_ids *p = st ? NULL : malloc(sizeof *p + n * sizeof *p->id);
    if (!st && !p)
        st = tt_fail(e, TT_ENOMEM, "no memory for a prompt");
    if (!st) {
        p->n = (int32_t)n;
        if (n)
            memcpy(p->id, ids.id, n * sizeof *p->id);
        *out = p;
    }
    tt_ids_free(&ids);
    return st;
}

static tt_status reward_score(tt_verifier *v, const void *prompt, const tt_exhibit *x, int32_t n,
                              float *score, tt_err *e)
{
    judge *j = (judge *)v;
    const prompt_ids *p = prompt;
    tt_err local = {0};
    e = e ? e : &local;
    float *planes = tt_verify_planes(x, n, v->info.side, mean, deviation, e);
    if (!planes)
        return e->status;
    tt_status st = tt_reward_score(j->reward, score, planes, n, p->id, p->n, NULL, NULL, e);
    free(planes);
    return st;
}

static const char *const names[] = {"ImageReward", "image_reward", NULL};

const tt_verifier_def tt_verifier_image_reward = {
    .name = "image_reward",
    .summary = "how well a picture suits the prompt, learned from people's choices, about -2 to 2",
    .source = "ImageReward, arXiv 2304.05977",
    .architectures = names,
    .reads_prompt = true,
    .open = reward_open,
    .close = reward_close,
    .prepare = reward_prepare,
    .score = reward_score,
};
