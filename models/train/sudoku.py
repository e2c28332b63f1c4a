#!/usr/bin/python3
"""Train, export and measure tutti-sudoku: a masked model that fills the cells of a grid in any order.

usage: sudoku.py OUTDIR [--minutes M] [--puzzles N] [--out results.json]

The puzzles come from sudoku_gen.c, built here.  A sequence is the 81 cells by rows; the token of a
digit is the digit, that of an empty cell, the mask, is 0.  The network is LLaDA's with a learned
vector per cell instead of rotary positions.  Writes OUTDIR/tutti-sudoku, the shipped folder.
"""
import os
import subprocess
import tempfile
import time

import torch

from common import record
from export import llada_config, load_model, write_json, write_model
from model import Config, Llada
from train import Trainer, options

CELLS, EMPTY = 81, 0
NET = Config(d_model=160, n_layers=8, n_heads=5, mlp_hidden_size=424, vocab_size=10,
             max_sequence_length=CELLS, rope=False)
EXPORTED = 'tutti-sudoku'
CLUES = 24, 40                  # of training puzzles
RANDOM_SHARE = 0.3              # of sequences: any cells empty, so that any grid can be made up
BARE_SHARE = 0.2                # of the others: nothing but the clues is known
TRAIN, TEST = 1, 3              # seeds
SETS = {'26 to 45 clues': (26, 45, 50), '26 clues': (26, 26, 500), '30 clues': (30, 30, 500),
        '35 clues': (35, 35, 500)}           # least, most, puzzles of each number
PASSES = {'one cell a pass': CELLS, '32 passes': 32, '16 passes': 16, '8 passes': 8, '4 passes': 4,
          '2 passes': 2, '1 pass': 1}


# ---- puzzles ------------------------------------------------------------------------------

def build_generator():
    """The generator's path; it goes away with the returned folder."""
    folder = tempfile.TemporaryDirectory()
    program = os.path.join(folder.name, 'sudoku_gen')
    source = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'sudoku_gen.c')
    subprocess.run([os.environ.get('CC', 'cc'), '-O2', '-o', program, source], check=True)
    return program, folder


def generate(jobs):
    """Puzzles and solutions, [n, 81] uint8 each, of (count, seed, part, least, most) jobs, which run
    side by side."""
    program, folder = build_generator()
    running = [subprocess.Popen([program, *map(str, job)], stdout=subprocess.PIPE) for job in jobs]
    lines = b''.join(p.communicate()[0] for p in running)
    if any(p.returncode for p in running):
        raise RuntimeError('sudoku_gen failed')
    folder.cleanup()
    table = torch.frombuffer(bytearray(lines), dtype=torch.uint8).view(-1, 2 * CELLS + 2)
    digits = torch.where(table == ord('.'), table * 0, table - ord('0'))
    return digits[:, :CELLS].clone(), digits[:, CELLS + 1:-1].clone()


def training_puzzles(n, processes):
    return generate([(n // processes, TRAIN, part, *CLUES) for part in range(processes)])


def test_puzzles(least, most, each):
    return generate([(each, TEST, clues, clues, clues) for clues in range(least, most + 1)])


class Puzzles:
    """Endless sequences from a stock of puzzles: each draw relabels the digits, moves bands, rows,
    stacks and columns, and turns the grid over its diagonal half of the time."""

    def __init__(self, puzzles, solutions, rows, device, seed):
        self.clue = (puzzles > 0).to(device)
        self.solution = solutions.to(device)
        self.rows, self.device = rows, device
        self.noise = torch.Generator(device=device).manual_seed(seed)

    def rand(self, *shape):
        return torch.rand(*shape, generator=self.noise, device=self.device)

    def lines(self, n):
        """[n, 9] a new order of the rows (or columns): the three bands, and the rows in each."""
        within = self.rand(n, 3, 3).argsort(2)
        return (self.rand(n, 3).argsort(1)[:, :, None] * 3 + within).flatten(1)

    def draw(self, n):
        """Solutions [n, 81] and which of their cells are clues."""
        pick = (self.rand(n) * len(self.clue)).long()
        cells = self.lines(n)[:, :, None] * 9 + self.lines(n)[:, None, :]
        turned = (self.rand(n) < 0.5)[:, None, None]
        cells = torch.where(turned, cells.transpose(1, 2), cells).flatten(1)
        digit = torch.nn.functional.pad(self.rand(n, 9).argsort(1) + 1, (1, 0))
        solution = digit.gather(1, self.solution[pick].long().gather(1, cells))
        return solution, self.clue[pick].gather(1, cells)

    def batch(self):
        """(spoilt ids, targets, loss weights, hidden cells) of one training step."""
        n = self.rows // CELLS
        solution, clue = self.draw(n)
        level = ((torch.arange(n, device=self.device) + self.rand(1)) / n)[self.rand(n).argsort()]
        anywhere = self.rand(n) < RANDOM_SHARE
        level = torch.where(~anywhere & (self.rand(n) < BARE_SHARE), torch.ones_like(level), level)
        hidden = (self.rand(n, CELLS) < level[:, None]) & (anywhere[:, None] | ~clue)
        return torch.where(hidden, solution * 0 + EMPTY, solution), solution, hidden.float(), hidden.sum()


# ---- the shipped folder -------------------------------------------------------------------

def tokenizer_json():
    """One token a cell; 0, _ and * may stand for an empty one, and blanks and frames are left out."""
    replace = lambda pattern, content: {'type': 'Replace', 'pattern': {'Regex': pattern}, 'content': content}
    return {'version': '1.0', 'truncation': None, 'padding': None, 'added_tokens': [],
            'normalizer': {'type': 'Sequence', 'normalizers': [replace('[0_*]', '.'),
                                                               replace(r'[\s|+-]', '')]},
            'pre_tokenizer': {'type': 'Split', 'pattern': {'Regex': '[.1-9]'}, 'behavior': 'Isolated',
                              'invert': False},
            'post_processor': None, 'decoder': {'type': 'Fuse'},
            'model': {'type': 'WordLevel', 'vocab': {c: i for i, c in enumerate('.123456789')},
                      'unk_token': '<unk>'}}


def export_sudoku(outdir):
    folder = os.path.join(outdir, EXPORTED)
    state = torch.load(os.path.join(outdir, 'mean.pt'), map_location='cpu')
    print(folder, write_model(folder, llada_config(NET, {'mask_token_id': EMPTY}), state),
          'bytes of weights', flush=True)
    write_json(os.path.join(folder, 'tokenizer.json'), tokenizer_json())
    write_json(os.path.join(folder, 'tokenizer_config.json'),
               {'tokenizer_class': 'PreTrainedTokenizerFast', 'mask_token': '.', 'model_max_length': CELLS,
                'clean_up_tokenization_spaces': False})
    write_json(os.path.join(folder, 'generation_config.json'), {'block_length': CELLS})
    return folder


# ---- measuring ----------------------------------------------------------------------------

@torch.no_grad()
def solve(model, grids, passes=None, threshold=None, temperature=0, generator=None):
    """Fill the empty cells of grids [n, 81]; returns the grids and the passes each took.

    With `passes`, every pass fills an even share of what is empty, the most certain cells first;
    with `threshold`, all cells at least so certain, and the most certain one anyway."""
    grids = grids.long().clone()
    used = torch.zeros(len(grids), device=grids.device)
    left = passes
    while (grids == EMPTY).any():
        logits = model(grids).float()
        logits[..., EMPTY] = -torch.inf
        noise = -torch.empty_like(logits).exponential_(generator=generator).log() if temperature else 0
        digit = (logits + temperature * noise).argmax(-1)
        empty = grids == EMPTY
        sure = logits.softmax(-1).gather(-1, digit[..., None])[..., 0].masked_fill(~empty, -1)
        quota = -(-empty.sum(1) // left) if passes else empty.any(1).long()
        take = empty & (sure.argsort(dim=1, descending=True, stable=True).argsort(dim=1) < quota[:, None])
        if threshold:
            take |= empty & (sure >= threshold)
        grids = torch.where(take, digit, grids)
        used += empty.any(1)
        left = max(1, left - 1) if passes else None
    return grids, used


def valid(grids):
    """Whether rows, columns and boxes hold every digit once: the judge of grids made up."""
    boxes = grids.view(-1, 3, 3, 3, 3).transpose(2, 3).reshape(-1, 9, 9)
    units = torch.cat((grids.view(-1, 9, 9), grids.view(-1, 9, 9).transpose(1, 2), boxes), 1)
    return (units.sort(2).values == torch.arange(1, 10, device=grids.device)).all(2).all(1)


def accuracy(model, puzzles, solutions):
    """{way of decoding: grids right in %, passes}"""
    ways = {name: {'passes': n} for name, n in PASSES.items()}
    ways.update({'threshold %s' % t: {'threshold': t} for t in (0.99, 0.9)})
    table = {}
    for name, how in ways.items():
        got, used = solve(model, puzzles, **how)
        right = (got == solutions).all(1).float().mean().item()
        cells = (got == solutions)[puzzles == EMPTY].float().mean().item()
        table[name] = {'grids': round(100 * right, 1), 'cells': round(100 * cells, 2),
                       'passes': round(used.mean().item(), 1)}
    return table


def made_up(model, device, n=500):
    """Grids made up from nothing at temperature 1: valid ones in %, by passes."""
    generator, out = torch.Generator(device=device).manual_seed(TEST), {}
    for name in ('one cell a pass', '16 passes', '4 passes'):
        empty = torch.zeros(n, CELLS, dtype=torch.long, device=device)
        grids, _ = solve(model, empty, PASSES[name], temperature=1, generator=generator)
        out[name] = round(100 * valid(grids).float().mean().item(), 1)
    return out


def measure(model, device, share=1.0):
    for name, (least, most, each) in SETS.items():
        puzzles, solutions = (t.to(device) for t in test_puzzles(least, most, max(1, int(each * share))))
        yield 'sudoku, ' + name, {'puzzles': len(puzzles), **accuracy(model, puzzles, solutions.long())}
    yield 'sudoku, valid grids made up from nothing', made_up(model, device, max(1, int(500 * share)))


def main():
    p = options(__doc__.split('\n')[0], rows=1328 * CELLS, data=False)
    p.add_argument('--out', default='results.json')
    p.add_argument('--puzzles', type=int, default=480000, help='of training')
    p.add_argument('--processes', type=int, default=max(1, (os.cpu_count() or 1) * 3 // 4))
    p.add_argument('--test-share', type=float, default=1.0, help='of the test puzzles')
    args = p.parse_args()
    os.makedirs(args.outdir, exist_ok=True)
    torch.manual_seed(args.seed)
    began = time.time()
    stock = training_puzzles(args.puzzles, args.processes)
    print('%d puzzles in %.0f s' % (len(stock[0]), time.time() - began), flush=True)
    trainer = Trainer(args, Llada(NET), lambda device, seed, rank: Puzzles(
        *stock, args.rows, device, seed * 1000 + rank).batch)
    began = time.time()
    trainer.run()
    spent = time.time() - began
    model = load_model(export_sudoku(args.outdir), trainer.device)
    record(args.out, 'training sudoku', {
        'parameters': sum(w.numel() for w in model.parameters()), 'steps': trainer.step,
        'grids': trainer.rows // CELLS, 'puzzles in stock': len(stock[0]), 'minutes': round(spent / 60, 2)})
    for name, table in measure(model, trainer.device, args.test_share):
        record(args.out, name, table)
        print('%s: %s' % (name, table), flush=True)


if __name__ == '__main__':
    main()
