/* main.c - `tutti COMMAND ...`: picks the subcommand, answers --version and --help. */
#include <argp.h>
#include <stdio.h>
#include <string.h>

#include "server/cmd.h"

typedef struct {
    const char *name;
    const char *title; /* argv[0] of the subcommand */
    int (*run)(int argc, char **argv);
    const char *summary;
} command;

#define COMMAND(word, text)                        \
    {                                              \
#word, "tutti " #word, tt_cmd_##word, text \
    }
static const command commands[] = {
    COMMAND(serve, "answer HTTP requests (OpenAI's REST interface) and show the demo page"),
    COMMAND(generate, "complete one prompt, fill holes, or answer one message"),
    COMMAND(batch, "answer a file of requests, one JSON object a line"),
    COMMAND(inspect, "what a model folder holds and needs; list families and samplers"),
    COMMAND(doctor, "what of this machine the program can use, and why not the rest"),
    COMMAND(bench, "how fast a model runs here, against what the device could do"),
};
enum { COMMANDS = sizeof commands / sizeof *commands };

static void usage(FILE *to)
{
    fprintf(to, "Usage: tutti COMMAND [OPTION...]\n"
                "Generation with diffusion and other non-autoregressive language models.\n\n");
    for (int i = 0; i < COMMANDS; i++)
        fprintf(to, "  %-9s %s\n", commands[i].name, commands[i].summary);
    fprintf(to, "\n`tutti COMMAND --help` lists its options, `tutti --version` the version.\n"
                "First steps: `tutti serve`, or `tutti generate --prompt \"...\"`.\n");
}

static const command *find(const char *name)
{
    for (int i = 0; i < COMMANDS; i++)
        if (!strcmp(commands[i].name, name))
            return &commands[i];
    return NULL;
}

static int run(const command *c, int argc, char **argv)
{
    char title[32];
    snprintf(title, sizeof title, "%s", c->title);
    argp_program_version = "tutti " TT_VERSION;
    argv[0] = title;
    return c->run(argc, argv);
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        usage(stderr);
        return 64;
    }
    const char *word = argv[1];
    const command *c = find(word);
    if (c)
        return run(c, argc - 1, argv + 1);
    if (!strcmp(word, "--version") || !strcmp(word, "-V") || !strcmp(word, "version"))
        return printf("tutti %s\n", TT_VERSION) < 0;
    if (!strcmp(word, "--help") || !strcmp(word, "-h") || !strcmp(word, "-?") ||
        !strcmp(word, "help")) {
        usage(stdout);
        return 0;
    }
    fprintf(stderr, "tutti: unknown command '%s'; `tutti --help` lists the commands\n", word);
    return 64;
}
