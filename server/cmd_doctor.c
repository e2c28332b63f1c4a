/* cmd_doctor.c - `tutti doctor`: what of this machine the program can use, and why not the rest. */
#include <argp.h>
#include <cjson/cJSON.h>
#include <microhttpd.h>
#include <png.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <xxhash.h>

#include "kernels/base/cpu.h"
#include "server/cmd.h"
#include "server/options.h"
#include "tokenizers/libraries.h"

static const struct argp doctor_argp = {
    NULL, NULL, NULL, "What of this machine the program can use, and why not the rest.",
    NULL, NULL, NULL};

static void processor(void)
{
    tt_cpu_level level = tt_cpu_level_get();
    int cores = tt_cpu_cores();
    double memory = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE);
    printf("processor  %s, bfloat16 products: %s, int8 products: %s\n", tt_cpu_level_name(level),
           tt_cpu_has_bf16() ? "yes" : "no", tt_cpu_has_vnni() ? "yes" : "no");
    printf("cores      %d usable; operations use %d unless --threads says otherwise\n", cores,
           cores > 1 ? cores - 1 : 1);
    printf("memory     %.1f GB\n", memory / 1e9);
}

/* Text of several lines, each indented. */
static void indented(const char *text)
{
    for (const char *p = text; *p;) {
        size_t n = 0;
        while (p[n] && p[n] != '\n')
            n++;
        printf("  %.*s\n", (int)n, p);
        p += n + (p[n] == '\n');
    }
}

static bool backends(void)
{
    tt_buf report = {0};
    int working = tt_backend_report(&report);
    printf("backends   %d work\n", working);
    indented(tt_buf_text(&report));
    tt_buf_free(&report);
    return working > 0;
}

static bool models(void)
{
    tt_err err = {0};
    tt_model_place *place;
    size_t n;
    if (tt_models_dir_list(&place, &n, &err)) {
        printf("models     %s\n", err.text);
        return false;
    }
    printf("models     %zu found\n", n);
    for (size_t i = 0; i < n; i++)
        printf("  %s  %s\n", place[i].id, place[i].folder);
    if (n == 0)
        printf("  set TUTTI_MODELS to a folder of model folders, or give --model FOLDER\n");
    free(place);
    return n > 0;
}

static void libraries(void)
{
    tt_buf text = {0};
    tt_buf_printf(&text, "libmicrohttpd %s, cJSON %s, libpng %s, ", MHD_get_version(),
                  cJSON_Version(), png_get_libpng_ver(NULL));
    tt_tok_libraries(&text);
    unsigned xxh = XXH_versionNumber();
    tt_buf_printf(&text, ", xxHash %u.%u.%u", xxh / 10000, xxh / 100 % 100, xxh % 100);
    printf("libraries  %s\n", tt_buf_text(&text));
    tt_buf_free(&text);
}

int tt_cmd_doctor(int argc, char **argv)
{
    argp_parse(&doctor_argp, argc, argv, 0, NULL, NULL);
    printf("tutti      %s\n", TT_VERSION);
    processor();
    bool works = backends();
    works &= models();
    libraries();
    printf("%s\n", works ? "ready: try `tutti serve`" : "not ready: see above");
    return works ? 0 : 1;
}
