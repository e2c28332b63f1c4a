#!/usr/bin/python3
"""Train, export and measure tutti-insertion: short texts and three tasks by insertions.

usage: insertion_text.py PACK.jsonl.xz OUTDIR [--minutes M | --until T] [--out results.json]

A text is [CLS] [BOS] text, a task [CLS] question [BOS] answer.  Texts are WordNet's example
sentences and verses of at most 40 tokens.  Writes OUTDIR/tutti-insertion, the shipped folder.
"""
import collections
import json
import math
import os
import random

import torch
import torch.nn.functional as F

import drawn_tasks
import ilm
import loop
import packing
import small_tokenizer
import stars
from common import record
from export import write_json, write_model
from small_tokenizer import BOS, CLS, EOS, MASK, PAD, UNK, VOCAB

EXPORTED = 'tutti-insertion'
TASKS = ('sort', 'reverse', 'count')
TASK_SHARE = 0.3                 # of the samples, all tasks together
NET = ilm.Config(VOCAB, CLS, BOS, EOS, UNK, PAD, MASK, d_model=160, num_layers=5, nhead=5,
                 dim_feedforward=480, max_length=96)
PER_ROW, LENGTH = 8, 128         # samples packed into a row, its places
TRAIN, TEST = 1, 3
PROMPTS = ('The children the garden.', 'She the letter her mother.', 'insurance house.', 'king gold sword.')


class Samples:
    """Draws [n, slots] ids and kinds: 0 what is given, 1 what may be left out."""

    def __init__(self, texts, encoder, seed):
        self.texts, self.device = texts, loop.device()
        self.tasks = drawn_tasks.Tasks(encoder, self.device, seed)
        self.rand = self.tasks.rand

    def framed(self, ids, kinds):
        """[CLS] before all, [BOS] before the first slot of kind 1; the end token is left out."""
        n, width = ids.shape
        ids = ids.masked_fill(ids == EOS, -1)
        answer = kinds.argmax(1, keepdim=True)           # where the answer begins
        place = torch.arange(width + 2, device=ids.device).expand(n, -1)
        source = (place - 1 - (place > answer + 1).long()).clamp(min=0, max=width - 1)
        given = torch.full_like(ids[:, :1], 0)
        framed = torch.where(place == 0, given + CLS, torch.where(place == answer + 1, given + BOS,
                                                                  ids.gather(1, source)))
        return framed, (place > answer + 1).long()

    def draw(self, n):
        share = int(n * TASK_SHARE / len(TASKS))
        parts = [self.tasks.draw(task, share) for task in TASKS]
        text = self.texts.draw(self.rand, n - share * len(TASKS))
        parts.append((text, torch.ones_like(text)))
        parts = [self.framed(*part) for part in parts]
        width = max(ids.shape[1] for ids, _ in parts)
        order = self.rand(n).argsort()
        return (packing.widened([ids for ids, _ in parts], width, -1)[order],
                packing.widened([kinds for _, kinds in parts], width, 0)[order])


def batch(ids, kinds, rand):
    """Some of each sample's tokens of kind 1 left out, any number equally likely, then packed."""
    n = len(ids)
    loose = (ids >= 0) & (kinds == 1)
    missing = (rand(n, 1)[:, 0] * (loose.sum(1) + 1)).long()
    rank = rand(*ids.shape).masked_fill(~loose, 2.0).argsort(1).argsort(1)
    dropped = loose & (rank < missing[:, None])
    keep = (ids >= 0) & ~dropped
    p = packing.pack(ids.masked_fill(~keep, -1), [], PER_ROW, LENGTH)
    fits = ((p.place >= 0) | ~keep).all(1)
    last = torch.where(keep, torch.arange(ids.shape[1], device=ids.device), 0).cummax(1).values
    row = p.place.gather(1, last).clamp(min=0)           # of the last kept slot before each
    seq = torch.where(p.ids == CLS, torch.full_like(p.sample, n), p.sample).flatten()
    weight = dropped * fits[:, None] / (missing[:, None] + 1e-9)
    mask = torch.zeros(p.ids.shape[0], 1, LENGTH, LENGTH, device=ids.device).masked_fill(~p.same_sample(), -1e30)
    targets = min(n * 24, ids.numel())                   # most slots are none: those go
    chosen = (~dropped).flatten().to(torch.uint8).argsort(stable=True)[:targets]
    number = torch.arange(n, device=ids.device)[:, None].expand_as(ids)
    return ilm.Batch(p.ids.flatten(), ilm.Layout([(p.ids.shape[0], LENGTH, mask)], p.position.flatten()), seq,
                     p.place[:, 0].clamp(min=0), row.flatten()[chosen], ids.clamp(min=0).flatten()[chosen],
                     number.flatten()[chosen], weight.flatten().float()[chosen], fits.float())


def train(args, samples, clock):
    learner = loop.Learner(ilm.Insertion(NET), args, ilm.is_table)
    if args.compile:
        learner.model.pieces = tuple(torch.compile(f, dynamic=False) for f in ilm.PIECES)
    used = 0.0
    while True:
        b = batch(*samples.draw(args.samples), samples.rand)
        loss, token, stop = ilm.insertion_loss(learner.model, b, learner.dtype)
        learner.learn(loss, used, token=token, stop=stop, fits=b.counts.mean())
        more = clock.tick()
        used = min(1.0, clock.used())
        if clock.step % args.log_every == 0 or not more:
            print(json.dumps({'step': clock.step, 'used': round(used, 4), 'minutes': clock.minutes(),
                              **learner.report()}), flush=True)
        if clock.to_save() or not more:
            export(args.outdir, learner.mean_state(), args.tokenizer)
        if not more:
            return learner


def export(outdir, state, tokenizer):
    folder = os.path.join(outdir, EXPORTED)
    size = write_model(folder, stars.ilm_config(NET), state, {})
    write_json(os.path.join(folder, 'tokenizer.json'), small_tokenizer.cut(tokenizer))
    write_json(os.path.join(folder, 'tokenizer_config.json'),
               small_tokenizer.tokenizer_config(NET.max_length - 2, unk_token=small_tokenizer.SPECIALS[UNK]))
    write_json(os.path.join(folder, 'generation_config.json'),
               {'sampler': 'insertion', 'temperature': 1.0, 'top_p': 0.5})
    return folder, size


def ask(model, encoder, lines, threshold=0.9):
    """Greedy answers to questions: what stands after [BOS]."""
    rows = [[CLS] + encoder.encode(line) + [BOS] for line in lines]
    longest = max(map(len, rows))
    table = torch.tensor([r + [PAD] * (longest - len(r)) for r in rows], device=loop.device())
    ids, _ = ilm.write(model, table, (table != PAD).sum(1) - 1, NET.max_length, threshold, 48)
    return [encoder.decode([t for t in row[len(r):] if t != PAD]) for r, row in zip(rows, ids.tolist())]


def keywords(model, encoder, lines, threshold=0.9):
    """Greedy sentences around words that are given in their order; all places are open."""
    rows = [[CLS, BOS] + encoder.encode(line) for line in lines]
    longest = max(map(len, rows))
    table = torch.tensor([r + [PAD] * (longest - len(r)) for r in rows], device=loop.device())
    ids, _ = ilm.write(model, table, torch.ones(len(rows), device=table.device), NET.max_length, threshold, 40)
    return [encoder.decode([t for t in row if t != PAD]) for row in ids.tolist()]


@torch.no_grad()
def measure(model, encoder, texts, n):
    """Exact answers in %, and the loss on the validation side of the texts."""
    source, right = drawn_tasks.Tasks(encoder, loop.device(), TEST), {}
    for task in TASKS:
        ids, kinds = source.draw(task, n)
        lines = [encoder.decode([t for t, k in zip(*row) if t >= 0 and not k])
                 for row in zip(ids.tolist(), kinds.tolist())]
        answers = ask(model, encoder, lines)
        good = [drawn_tasks.check(*drawn_tasks.parse(line)[:2], answer[1:])
                for line, answer in zip(lines, answers)]
        right[task] = round(100 * sum(good) / n, 1)
    losses = []
    noise = torch.Generator(device=loop.device()).manual_seed(TEST)
    rand = lambda *shape: torch.rand(*shape, generator=noise, device=loop.device())
    framed = F.pad(texts.tokens.long(), (2, 0))
    framed[:, 0], framed[:, 1] = CLS, BOS
    kinds = torch.ones_like(framed)
    kinds[:, :2] = 0
    for at in range(0, len(framed) // PER_ROW * PER_ROW, 512):
        part = slice(at, min(at + 512, len(framed) // PER_ROW * PER_ROW))
        losses.append(ilm.insertion_loss(model, batch(framed[part], kinds[part], rand), torch.float32)[1:])
    token, stop = (torch.stack(x).mean().item() for x in zip(*losses))
    return {'questions of a task': n, 'tasks, right in %': right, 'validation texts': len(framed),
            'token loss, nats': round(token, 3), 'stop loss, nats': round(stop, 4)}


class Bigrams:
    """A naive judge of language: the mean log-probability of a text's tokens, each given the one
    before it, against that of unseen real texts."""

    def __init__(self, texts, held, backing=5.0):
        self.pairs, self.ones, self.backing = collections.Counter(), collections.Counter(), backing
        for row in texts.tokens.tolist():
            row = [BOS] + [t for t in row if t >= 0] + [EOS]
            self.pairs.update(zip(row, row[1:]))
            self.ones.update(row[1:])
        self.total, self.before = sum(self.ones.values()), collections.Counter()
        for (a, _), n in self.pairs.items():
            self.before[a] += n
        scores = sorted(self.score([t for t in row if t >= 0]) for row in held.tokens.tolist())
        self.least = scores[len(scores) // 20]           # one real text in twenty is worse

    def score(self, ids):
        row, total = [BOS] + list(ids) + [EOS], 0.0
        for a, b in zip(row, row[1:]):
            one = (self.ones[b] + 0.5) / (self.total + 0.5 * VOCAB)
            total += math.log((self.pairs[a, b] + self.backing * one) / (self.before[a] + self.backing))
        return total / (len(row) - 1)

    def accepts(self, text, encoder):
        return text.isascii() and self.score(encoder.encode(text)) >= self.least


def accepted(model, encoder, texts, held, n, seed=TEST):
    """Sentences written around two or three words of an unseen text, in %: those that the judge
    takes for language, and the words alone for comparison."""
    rng, lines = random.Random(seed), []
    for row in rng.sample(held.tokens.tolist(), len(held.tokens)):
        words = [w for w in encoder.decode([t for t in row if t >= 0]).split() if w.isalpha() and len(w) > 4]
        if len(words) >= 3 and len(lines) < n:
            chosen = sorted(rng.sample(range(len(words)), rng.randint(2, 3)))
            lines.append(' ' + ' '.join(words[i] for i in chosen))
    judge, written = Bigrams(texts, held), keywords(model, encoder, lines)
    percent = lambda those: round(100 * sum(judge.accepts(t, encoder) for t in those) / len(lines), 1)
    return {'sentences': len(lines), 'accepted': percent(written), 'the words alone': percent(lines),
            'examples': dict(zip([line.strip() for line in lines[:8]], written))}


def main():
    p = loop.options(__doc__.split('\n')[0], data=True)
    p.add_argument('--samples', type=int, default=2048, help='of a step')
    p.add_argument('--tokenizer', default=os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                                       '../demo/tutti-text/tokenizer.json'))
    p.add_argument('--questions', type=int, default=500, help='of each task, to measure with')
    p.add_argument('--sentences', type=int, default=200, help='around words, to measure with')
    args = p.parse_args()
    os.makedirs(args.outdir, exist_ok=True)
    torch.manual_seed(args.seed)
    encoder = small_tokenizer.Encoder(small_tokenizer.cut(args.tokenizer))
    texts = packing.Texts(args.pack, encoder, loop.device())
    print(len(texts.tokens), 'texts,', int((texts.tokens >= 0).sum()), 'tokens', flush=True)
    clock = loop.Clock(args)
    learner = train(args, Samples(texts, encoder, TRAIN), clock)
    folder, size = export(args.outdir, learner.mean_state(), args.tokenizer)
    print(folder, size, 'bytes of weights', flush=True)
    record(args.out, 'training insertion', {
        'parameters': learner.parameters(), 'steps': clock.step, 'samples': clock.step * args.samples,
        'texts': len(texts.tokens), 'minutes': clock.minutes(), 'losses': learner.report()})
    model = stars.read_model(folder, NET)
    held = packing.Texts(args.pack, encoder, loop.device(), validation=True)
    table = measure(model, encoder, held, args.questions)
    table['sentences around words'] = dict(zip(PROMPTS, keywords(model, encoder, PROMPTS)))
    table['sentences around words of unseen texts, in %'] = accepted(model, encoder, texts, held, args.sentences)
    record(args.out, 'insertion, text and tasks', table)
    print(json.dumps(table, indent=1), flush=True)


if __name__ == '__main__':
    main()
