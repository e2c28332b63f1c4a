/* replay.c - replays golden folders:  replay [--device D] [--case GLOB] [--weights bf16] DIR...
 *
 * With --weights bf16 the tensors of masked-diffusion models alone, to 2e-2: tokens of traces,
 * chosen by a hair at times, are those of float32, and so is what a layer with experts makes by
 * itself. Other families are refused.
 *
 * A folder's golden.json names its family; a folder may also just hold such folders. Ends with
 * "N passed, N failed". */
#include "tests/golden/bench.h"
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

static const struct {
    const char *family;
    tt_replayer *replay; /* NULL: its folders are replayed one by one */
} families[] = {
#define FAMILY(id, name) {name, tt_replay_##id},
    TT_REPLAYS(FAMILY){"masked-diffusion", NULL},
    {"search", NULL},
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
    bool rounded = bench_weights != TT_WEIGHTS_F32;
    if (i < n && families[i].replay && rounded && strncmp(family, "masked-diffusion/", 17)) {
        printf("FAIL %s: family '%s' is replayed in float32 alone\n", dir, family);
        t->failed++;
    } else if (i < n && families[i].replay) {
        families[i].replay(dir, t->glob, t->device, &t->passed, &t->failed);
    } else if (i == n) {
        printf("FAIL %s: family '%s' is not known to this build\n", dir, family);
        t->failed++;
    }
    if (t->passed > before_passed || t->failed > before_failed)
        printf("%s (%s): %d passed, %d failed\n", dir, family, t->passed - before_passed,
               t->failed - before_failed);
    free(family);
    return 1 + replay_inside(dir, t);
}

static int usage(void)
{
    fprintf(stderr, "usage: replay [--device D] [--case GLOB] [--weights bf16] DIR...\n");
    return 2;
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
        } else if (!strcmp(argv[i], "--weights") && i + 1 < argc && !strcmp(argv[i + 1], "bf16")) {
            i++;
            bench_weights = TT_WEIGHTS_BF16;
            bench_tolerance = 2e-2;
            t.glob = "tensors";
        } else if (argv[i][0] == '-') {
            return usage();
        } else {
            dirs++;
            if (!replay_folder(argv[i], &t)) {
                printf("FAIL %s: no golden.json in or below it\n", argv[i]);
                t.failed++;
            }
        }
    }
    if (!dirs)
        return usage();
    printf("%d passed, %d failed\n", t.passed, t.failed);
    return t.failed || !t.passed;
}
