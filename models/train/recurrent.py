#!/usr/bin/python3
"""Train, export and measure tutti-recurrent: a recurrent-depth model of tasks and short text.

usage: recurrent.py PACK.jsonl.xz OUTDIR [--minutes M | --until T] [--out results.json]

Every step draws its number of recurrences, as the paper does.  Measured is the share of right
answers against the recurrences, for following a chain of 1 to 12 hops (8 at most in training) and
for the other tasks.  Writes OUTDIR/tutti-recurrent, the shipped folder.
"""
import json
import math
import os
import random

import torch
import torch.nn.functional as F

import drawn_tasks
import loop
import packing
import raven
import small_tokenizer
from common import record
from export import write_json, write_model
from small_tokenizer import EOS, PAD, VOCAB
from train import weighted_loss
from weights import import_tensors, read_safetensors

EXPORTED = 'tutti-recurrent'
NET = raven.Config(VOCAB)
PER_ROW, LENGTH = 3, 128         # samples packed into a row, its places
# Shares of the samples; 'chains' has four questions about one permutation.
SHARES = {'chain': 0.14, 'chains': 0.18, 'modsum': 0.14, 'add': 0.08, 'sub': 0.08, 'sort': 0.12}
QUESTIONS = 4
CHAIN_WEIGHT = 4.0               # an answer of one token among many others
HARDEST_FROM = 0.25              # share of the time after which chains have all their hops
MOST = 40                        # recurrences of a training step, at most
TRAIN, TEST = 1, 3
RECURRENCES = (1, 2, 4, 8, 16, 32)


class Samples:
    """Draws packed rows: tasks and, for the rest of the samples, texts."""

    def __init__(self, texts, encoder, seed):
        device = loop.device()
        self.texts = texts
        self.tasks = drawn_tasks.Tasks(encoder, device, seed)
        self.chains = drawn_tasks.Tasks(encoder, device, seed + 1000, questions=QUESTIONS)
        self.rand = self.tasks.rand

    def hops(self, used):
        most = 2 + round((drawn_tasks.HOPS - 2) * min(1.0, used / HARDEST_FROM))
        self.tasks.hops = self.chains.hops = 1, most

    def text(self, n):
        """Half of the texts begin with the end token, as a text does that has no prompt."""
        ids = self.texts.draw(self.rand, n)
        start = torch.where(self.rand(n, 1) < 0.5, torch.full_like(ids[:, :1], EOS),
                            torch.full_like(ids[:, :1], -1))
        return torch.cat((start, ids, torch.full_like(start, EOS)), 1)

    def draw(self, n):
        """(ids, loss weights) of n samples in random order, [n, slots] each."""
        parts = []
        for name, share in SHARES.items():
            source = self.chains if name == 'chains' else self.tasks
            ids, kinds = source.draw(name.rstrip('s') if name == 'chains' else name, int(n * share))
            weight = kinds.float()
            if name.startswith('chain'):
                weight = torch.where(ids == EOS, weight, weight * CHAIN_WEIGHT)
            parts.append((ids, weight))
        ids = self.text(n - sum(len(p[0]) for p in parts))
        weight = torch.ones_like(ids, dtype=torch.float32)
        weight[:, 0] = 0
        parts.append((ids, weight))
        width = max(ids.shape[1] for ids, _ in parts)
        order = self.rand(n).argsort()
        return (packing.widened([ids for ids, _ in parts], width, -1)[order],
                packing.widened([w for _, w in parts], width, 0.0)[order])


def sight_of(model, p, dtype):
    """Every place sees its own sample up to itself."""
    length = p.ids.shape[1]
    before = torch.ones(length, length, dtype=torch.bool, device=p.ids.device).tril()
    mask = torch.zeros(p.ids.shape[0], 1, length, length, dtype=dtype, device=p.ids.device)
    return model.sight(p.position, mask.masked_fill(~(p.same_sample() & before), -1e30))


def batch(ids, weight):
    """Packed rows, targets and weights: what follows in the same sample."""
    p = packing.pack(ids, [weight], PER_ROW, LENGTH)
    follows = F.pad((p.sample[:, 1:] == p.sample[:, :-1]) & (p.ids[:, 1:] != PAD), (0, 1))
    target = F.pad(p.ids[:, 1:], (0, 1))
    weights = F.pad(p.extra[0][:, 1:], (0, 1)) * follows
    return p, target.flatten(), weights.flatten()


def draw_recurrences(rng, c, sigma=0.5):
    """Poisson-lognormal, around c.mean_recurrence."""
    rate = math.exp(rng.gauss(math.log(c.mean_recurrence) - sigma * sigma / 2, sigma))
    count, product, limit = 0, rng.random(), math.exp(-rate)
    while product > limit:
        count, product = count + 1, product * rng.random()
    return min(MOST, count + 1)


def train(args, samples, clock):
    model = raven.Raven(NET)
    learner = loop.Learner(model, args, raven.is_table)
    loss_of = weighted_loss
    if args.compile:
        model.pieces = tuple(torch.compile(f, dynamic=False) for f in raven.PIECES)
        loss_of = torch.compile(weighted_loss, dynamic=False)
    used, rng = 0.0, random.Random(args.seed)
    while True:
        samples.hops(used)
        p, target, weights = batch(*samples.draw(args.rows * PER_ROW))
        recurrences = draw_recurrences(rng, NET)
        hidden = model.train_states(p.ids.flatten(), sight_of(model, p, learner.dtype), recurrences, learner.dtype)
        loss = loss_of(hidden.to(learner.dtype), model.transformer.wte.weight, target, weights) / weights.sum()
        learner.learn(loss, used)
        more = clock.tick()
        used = min(1.0, clock.used())
        if clock.step % args.log_every == 0 or not more:
            quick = right(learner.model, samples.tasks, 'chain', 256, (8,), hops=(4, 4), dtype=learner.dtype)
            print(json.dumps({'step': clock.step, 'used': round(used, 4), 'minutes': clock.minutes(),
                              **learner.report(), 'chain of 4': quick[8]}), flush=True)
        if clock.to_save() or not more:
            export(args.outdir, learner.mean_state(), args.tokenizer)
        if not more:
            return learner


def export(outdir, state, tokenizer):
    folder = os.path.join(outdir, EXPORTED)
    config = raven.raven_config(NET, bos_token_id=None, eos_token_id=EOS, pad_token_id=PAD)
    size = write_model(folder, config, state, {})
    write_json(os.path.join(folder, 'tokenizer.json'), small_tokenizer.cut(tokenizer))
    write_json(os.path.join(folder, 'tokenizer_config.json'), small_tokenizer.tokenizer_config(NET.block_size))
    write_json(os.path.join(folder, 'generation_config.json'),
               {'sampler': 'forcing', 'temperature': 0, 'inner_recurrence': 2, 'exit_threshold': 0.03})
    return folder, size


def read_model(folder):
    """The network of a shipped folder, with its rounded weights in float32."""
    model = raven.Raven(NET)
    tensors = read_safetensors(os.path.join(folder, 'model.safetensors'))
    model.load_state_dict(import_tensors(tensors, {}))
    return model.to(loop.device()).eval()


# ---- measuring ----------------------------------------------------------------------------

@torch.no_grad()
def each_recurrence(model, p, recurrences, dtype=torch.float32):
    """Yields (r, normalised states behind the coda) for every r of `recurrences`."""
    compiled, model.pieces = model.pieces, raven.PIECES   # other shapes are not worth compiling
    sight = sight_of(model, p, dtype)
    e = model.prelude(p.ids.flatten(), sight, dtype)
    noise = torch.Generator(device=e.device).manual_seed(TEST)
    s = model.fresh(len(e), noise)
    for r in range(1, max(recurrences) + 1):
        s = model.core(s, e, sight, dtype)
        if r in recurrences:
            yield r, model.head(s, sight, dtype)
    model.pieces = compiled


def right(model, tasks, name, n, recurrences, hops=None, dtype=torch.float32):
    """{r: right answers in %}.  Greedy decoding is right if every token of the answer is the
    likeliest behind the right ones before it, so one pass tells."""
    kept = tasks.hops
    tasks.hops = hops or kept
    ids, kinds = tasks.draw(name, n)
    tasks.hops = kept
    p = packing.pack(ids, [kinds], 1, int((ids >= 0).sum(1).max()) // 8 * 8 + 8)
    asked = p.extra[0][:, 1:] == 1
    where = F.pad(asked, (0, 1)).flatten()
    target = p.ids[:, 1:][asked]
    row = torch.arange(n, device=ids.device)[:, None].expand_as(asked)[asked]
    table = {}
    for r, h in each_recurrence(model, p, recurrences, dtype):
        wrong = (model.scores(h[where]).argmax(-1) != target).float()
        bad = torch.zeros(n, device=ids.device).index_add(0, row, wrong)
        table[r] = round(100 * (bad == 0).float().mean().item(), 1)
    return table


def text_losses(model, texts, recurrences, most=1024):
    """{r: nats a token} of the validation side's texts."""
    ids = F.pad(texts.tokens[:most].long(), (1, 1), value=-1)
    ids[:, 0] = ids[:, -1] = EOS
    p = packing.pack(ids, [], 1, ids.shape[1] // 8 * 8 + 8)
    alive = F.pad(p.ids[:, 1:] != PAD, (0, 1)).flatten()
    target = F.pad(p.ids[:, 1:], (0, 1)).flatten()[alive]
    return {r: round(F.cross_entropy(model.scores(h[alive]), target).item(), 3)
            for r, h in each_recurrence(model, p, recurrences)}


def measure(model, encoder, texts, n, recurrences=RECURRENCES):
    tasks = drawn_tasks.Tasks(encoder, loop.device(), TEST)
    for hops in range(1, 13):
        yield 'chain of %d' % hops, right(model, tasks, 'chain', n, recurrences, (hops, hops))
    for name in ('modsum', 'add', 'sub', 'sort'):
        yield name, right(model, tasks, name, n, recurrences)
    yield 'text, nats a token', text_losses(model, texts, recurrences)


def main():
    p = loop.options(__doc__.split('\n')[0], data=True)
    p.add_argument('--rows', type=int, default=256, help='of %d places, of a step' % LENGTH)
    p.add_argument('--tokenizer', default=os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                                       '../demo/tutti-text/tokenizer.json'))
    p.add_argument('--questions', type=int, default=1000, help='of each task, to measure with')
    args = p.parse_args()
    os.makedirs(args.outdir, exist_ok=True)
    torch.manual_seed(args.seed)
    encoder = small_tokenizer.Encoder(small_tokenizer.cut(args.tokenizer))
    texts = packing.Texts(args.pack, encoder, loop.device())
    clock = loop.Clock(args, first_steps=16)
    learner = train(args, Samples(texts, encoder, TRAIN), clock)
    folder, size = export(args.outdir, learner.mean_state(), args.tokenizer)
    print(folder, size, 'bytes of weights', flush=True)
    record(args.out, 'training recurrent', {
        'parameters': learner.parameters(), 'steps': clock.step, 'samples': clock.step * args.rows * PER_ROW,
        'places': clock.step * args.rows * LENGTH, 'minutes': clock.minutes(), 'losses': learner.report()})
    held = packing.Texts(args.pack, encoder, loop.device(), validation=True)
    table = {'questions of a row': args.questions}
    for name, row in measure(read_model(folder), encoder, held, args.questions):
        table[name] = row
        print(name, row, flush=True)
        record(args.out, 'recurrent, right answers in % by recurrences', table)


if __name__ == '__main__':
    main()
