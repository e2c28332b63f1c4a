/* replay.h - families of golden folders and the functions that replay them.
 *
 * A replayer runs every case of one folder whose name matches the glob and adds to the counts. A
 * case, sampler or parameter it does not know counts as failed: nothing is skipped in silence. */
#ifndef TT_REPLAY_H
#define TT_REPLAY_H

/* Each returns 0, or -1 when the folder could not be read at all (already counted as failed). */
int tt_replay_text_tokenizers(const char *dir, const char *case_glob, int *passed, int *failed);
int tt_replay_llada(const char *dir, const char *case_glob, const char *device, int *passed,
                    int *failed);
int tt_replay_guided(const char *dir, const char *case_glob, const char *device, int *passed,
                     int *failed);
int tt_replay_dream(const char *dir, const char *case_glob, const char *device, int *passed,
                    int *failed);
int tt_replay_llada_moe(const char *dir, const char *case_glob, const char *device, int *passed,
                        int *failed);
int tt_replay_llada2_moe(const char *dir, const char *case_glob, const char *device, int *passed,
                         int *failed);
int tt_replay_mdlm(const char *dir, const char *case_glob, const char *device, int *passed,
                   int *failed);
int tt_replay_enat(const char *dir, const char *case_glob, const char *device, int *passed,
                   int *failed);

#endif
