/* replay.c - replays golden folders:  replay [--device D] [--case GLOB] DIR...
 *
 * A folder's golden.json names its family; a folder may also just hold such folders. Ends with
 * "N passed, N failed". */
#include "tests/golden/replay.h"

#include <cjson/cJSON.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

typedef struct {
    const char *device, *glob;
    int passed, failed;
} totals;

static void text_tokenizers(const char *dir, totals *t)
{
    tt_replay_text_tokenizers(dir, t->glob, &t->passed, &t->failed);
}

static void llada(const char *dir, totals *t)
{
    tt_replay_llada(dir, t->glob, t->device, &t->passed, &t->failed);
}

static void dream(const char *dir, totals *t)
{
    tt_replay_dream(dir, t->glob, t->device, &t->passed, &t->failed);
}

static void guided(const char *dir, totals *t)
{
    tt_replay_guided(dir, t->glob, t->device, &t->passed, &t->failed);
}

static void llada_moe(const char *dir, totals *t)
{
    tt_replay_llada_moe(dir, t->glob, t->device, &t->passed, &t->failed);
}

static void llada2_moe(const char *dir, totals *t)
{
    tt_replay_llada2_moe(dir, t->glob, t->device, &t->passed, &t->failed);
}

static void mdlm(const char *dir, totals *t)
{
    tt_replay_mdlm(dir, t->glob, t->device, &t->passed, &t->failed);
}

static void enat(const char *dir, totals *t)
{
    tt_replay_enat(dir, t->glob, t->device, &t->passed, &t->failed);
}

static void container(const char *dir, totals *t)
{
    (void)dir; /* its folders are replayed one by one */
    (void)t;
}

static const struct {
    const char *family;
    void (*replay)(const char *dir, totals *t);
} families[] = {
    {"text-tokenizers", text_tokenizers},
    {"masked-diffusion", container},
    {"masked-diffusion/llada", llada},
    {"masked-diffusion/dream", dream},
    {"masked-diffusion/guided", guided},
    {"masked-diffusion/llada_moe", llada_moe},
    {"masked-diffusion/llada2_moe", llada2_moe},
    {"masked-diffusion/mdlm", mdlm},
    {"enat", enat},
};

/* The family named by DIR/golden.json, or NULL. To be freed. */
static char *family_dup(const char *dir)
{
    char path[4096], text[4096];
    snprintf(path, sizeof path, "%s/golden.json", dir);
    FILE *f = fopen(path, "rb");
    if (!f)
        return NULL;
    size_t n = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    text[n] = '\0';
    cJSON *root = cJSON_Parse(text);
    const cJSON *name = cJSON_GetObjectItemCaseSensitive(root, "family");
    char *family = strdup(cJSON_IsString(name) ? name->valuestring : "(golden.json is broken)");
    cJSON_Delete(root);
    return family;
}

static int replay_folder(const char *dir, totals *t);

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static int replay_inside(const char *dir, totals *t)
{
    struct dirent **list;
    int found = 0, n = scandir(dir, &list, NULL, by_name);
    for (int i = 0; i < n; i++) {
        char path[4096];
        struct stat st;
        snprintf(path, sizeof path, "%s/%s", dir, list[i]->d_name);
        if (list[i]->d_name[0] != '.' && !stat(path, &st) && S_ISDIR(st.st_mode))
            found += replay_folder(path, t);
        free(list[i]);
    }
    if (n >= 0)
        free(list);
    return found;
}

/* Returns how many golden folders were found in and below dir. */
static int replay_folder(const char *dir, totals *t)
{
    char *family = family_dup(dir);
    if (!family)
        return replay_inside(dir, t);
    size_t i = 0, n = sizeof families / sizeof *families;
    while (i < n && strcmp(families[i].family, family))
        i++;
    int before_passed = t->passed, before_failed = t->failed;
    if (i < n) {
        families[i].replay(dir, t);
    } else {
        printf("FAIL %s: family '%s' is not known to this build\n", dir, family);
        t->failed++;
    }
    if (t->passed > before_passed || t->failed > before_failed)
        printf("%s (%s): %d passed, %d failed\n", dir, family, t->passed - before_passed,
               t->failed - before_failed);
    free(family);
    return 1 + replay_inside(dir, t);
}

int main(int argc, char **argv)
{
    totals t = {.device = "cpu", .glob = "*"};
    int dirs = 0;
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--device") && i + 1 < argc) {
            t.device = argv[++i];
        } else if (!strcmp(argv[i], "--case") && i + 1 < argc) {
            t.glob = argv[++i];
        } else if (argv[i][0] == '-') {
            fprintf(stderr, "usage: replay [--device D] [--case GLOB] DIR...\n");
            return 2;
        } else {
            dirs++;
            if (!replay_folder(argv[i], &t)) {
                printf("FAIL %s: no golden.json in or below it\n", argv[i]);
                t.failed++;
            }
        }
    }
    if (!dirs) {
        fprintf(stderr, "usage: replay [--device D] [--case GLOB] DIR...\n");
        return 2;
    }
    printf("%d passed, %d failed\n", t.passed, t.failed);
    return t.failed || !t.passed;
}
