/* cmd.h - the subcommands of the program, one file each (cmd_NAME.c).
 *
 * Each gets the command line from its own word on (argv[0] is then "tutti NAME", for messages)
 * and returns the exit status: 0 done, 1 failed with a sentence on stderr, 64 a usage error. */
#ifndef TT_CMD_H
#define TT_CMD_H

#define TT_VERSION "0.1.0"

int tt_cmd_serve(int argc, char **argv);
int tt_cmd_generate(int argc, char **argv);
int tt_cmd_batch(int argc, char **argv);
int tt_cmd_inspect(int argc, char **argv);
int tt_cmd_doctor(int argc, char **argv);
int tt_cmd_bench(int argc, char **argv);

#endif
