/* Sudoku puzzles with one solution, and their solutions.
 *
 *   cc -O2 -o sudoku_gen sudoku_gen.c
 *   sudoku_gen COUNT SEED PART LEAST MOST
 *
 * Writes COUNT lines, each the puzzle's 81 cells by rows ('.' is empty), a space and the solution.
 * The clues of each puzzle are a number drawn from LEAST..MOST. A puzzle is a random complete grid
 * from which cells are taken in random order as long as the solution stays the only one; one that
 * cannot get down to its number is thrown away. (SEED, PART) name a stream of random numbers. */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CELLS = 81, ALL = 0x3fe, PATIENCE = 20000 };

typedef struct {
    unsigned char cell[CELLS];     /* 0: empty */
    unsigned row[9], col[9], box[9]; /* digits used, bit d for digit d */
} board;

typedef struct {
    board b;
    int found, wanted;
    long patience; /* cells that may still be tried */
    bool shuffle;
    unsigned char solution[CELLS];
} search;

static uint64_t state;

static uint64_t random64(void) /* splitmix64 */
{
    uint64_t z = state += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

static int below(int n) { return (int)((random64() >> 33) % (uint64_t)n); }

static void mix(unsigned char *list, int n)
{
    for (int i = n - 1; i > 0; i--) {
        int j = below(i + 1);
        unsigned char kept = list[i];
        list[i] = list[j];
        list[j] = kept;
    }
}

static int box_of(int cell) { return cell / 27 * 3 + cell % 9 / 3; }

static void put(board *b, int cell, int digit)
{
    b->cell[cell] = (unsigned char)digit;
    b->row[cell / 9] |= 1u << digit;
    b->col[cell % 9] |= 1u << digit;
    b->box[box_of(cell)] |= 1u << digit;
}

static void take(board *b, int cell)
{
    unsigned bit = 1u << b->cell[cell];
    b->cell[cell] = 0;
    b->row[cell / 9] &= ~bit;
    b->col[cell % 9] &= ~bit;
    b->box[box_of(cell)] &= ~bit;
}

static unsigned possible(const board *b, int cell)
{
    return ALL & ~(b->row[cell / 9] | b->col[cell % 9] | b->box[box_of(cell)]);
}

/* The empty cell with the fewest possible digits; -1 when the board is full. */
static int narrowest(const board *b)
{
    int best = -1, least = 10;
    for (int i = 0; i < CELLS && least > 1; i++) {
        int n = b->cell[i] ? 10 : __builtin_popcount(possible(b, i));
        if (n < least) {
            least = n;
            best = i;
        }
    }
    return best;
}

/* Depth first until `wanted` solutions were found or the patience is used up. */
static void descend(search *s)
{
    int cell = narrowest(&s->b), n = 0;
    if (cell < 0) {
        if (!s->found++)
            memcpy(s->solution, s->b.cell, CELLS);
        return;
    }
    unsigned open = possible(&s->b, cell);
    unsigned char digit[9];
    for (int d = 1; d <= 9; d++)
        if (open >> d & 1)
            digit[n++] = (unsigned char)d;
    if (s->shuffle)
        mix(digit, n);
    for (int i = 0; i < n && s->found < s->wanted && --s->patience > 0; i++) {
        put(&s->b, cell, digit[i]);
        descend(s);
        take(&s->b, cell);
    }
}

static void random_grid(unsigned char *grid)
{
    search s;
    do {
        s = (search){.wanted = 1, .patience = PATIENCE, .shuffle = true};
        descend(&s);
    } while (!s.found);
    memcpy(grid, s.solution, CELLS);
}

static bool has_one_solution(const unsigned char *puzzle)
{
    search s = {.wanted = 2, .patience = PATIENCE};
    for (int i = 0; i < CELLS; i++)
        if (puzzle[i])
            put(&s.b, i, puzzle[i]);
    descend(&s);
    return s.found == 1 && s.patience > 0;
}

static bool make_puzzle(unsigned char *puzzle, const unsigned char *grid, int clues)
{
    unsigned char order[CELLS];
    int left = CELLS;
    for (int i = 0; i < CELLS; i++)
        order[i] = (unsigned char)i;
    mix(order, CELLS);
    memcpy(puzzle, grid, CELLS);
    for (int i = 0; i < CELLS && left > clues; i++) {
        puzzle[order[i]] = 0;
        if (has_one_solution(puzzle))
            left--;
        else
            puzzle[order[i]] = grid[order[i]];
    }
    return left == clues;
}

static void print(const unsigned char *cell, char end)
{
    for (int i = 0; i < CELLS; i++)
        putchar(cell[i] ? '0' + cell[i] : '.');
    putchar(end);
}

int main(int argc, char **argv)
{
    long count = argc == 6 ? atol(argv[1]) : 0;
    int least = argc == 6 ? atoi(argv[4]) : 0, most = argc == 6 ? atoi(argv[5]) : 0;
    if (count < 1 || least < 17 || most < least || most > CELLS) {
        fprintf(stderr, "usage: sudoku_gen COUNT SEED PART LEAST MOST\n"
                        "17 <= LEAST <= MOST <= 81 clues\n");
        return 2;
    }
    state = strtoull(argv[2], NULL, 0);
    state = random64() + strtoull(argv[3], NULL, 0);
    state = random64();
    while (count > 0) {
        unsigned char grid[CELLS], puzzle[CELLS];
        random_grid(grid);
        if (!make_puzzle(puzzle, grid, least + below(most - least + 1)))
            continue;
        print(puzzle, ' ');
        print(grid, '\n');
        count--;
    }
    return 0;
}
