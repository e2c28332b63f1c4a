/* replay.h - families of golden folders and the functions that replay them.
 *
 * A replayer runs every case of one folder whose name matches the glob and adds to the counts. A
 * case, sampler or parameter it does not know counts as failed: nothing is skipped in silence. */
#ifndef TT_REPLAY_H
#define TT_REPLAY_H

/* Function and family as golden.json names it. */
#define TT_REPLAYS(X)                                \
    X(text_tokenizers, "text-tokenizers")            \
    X(llada, "masked-diffusion/llada")               \
    X(dream, "masked-diffusion/dream")               \
    X(guided, "masked-diffusion/guided")             \
    X(llada_moe, "masked-diffusion/llada_moe")       \
    X(llada2_moe, "masked-diffusion/llada2_moe")     \
    X(mdlm, "masked-diffusion/mdlm")                 \
    X(insertion, "insertion-lm")                     \
    X(raven, "recurrent-depth")                      \
    X(restok, "restok")                              \
    X(enat, "enat")                                  \
    X(comit, "comit")                                \
    X(verifiers, "search/verifiers")                 \
    X(clip, "search/clip")                           \
    X(imagereward, "search/imagereward")             \
    X(flexar, "search/flexar")                       \
    X(flextok, "search/flextok")

/* Returns 0, or -1 when the folder could not be read at all (already counted as failed). */
typedef int tt_replayer(const char *dir, const char *case_glob, const char *device, int *passed,
                        int *failed);

#define DECLARE(id, family) tt_replayer tt_replay_##id;
TT_REPLAYS(DECLARE)
#undef DECLARE

#endif
