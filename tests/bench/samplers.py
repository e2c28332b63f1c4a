#!/usr/bin/python3
"""Quality against speed: every sampler, with every cache it has, on unseen prompts of tutti-text.

usage: samplers.py [--device D] [--prompts FILE] [--questions N] [--only TEXT] [--tutti PROGRAM] >TABLE.md
       samplers.py --collect PACK.jsonl.xz N >PROMPTS.json
       samplers.py --plot TABLE.md FILE.png

Every way of decoding answers the same prompts through one `tutti serve`, all prompts at once: N
questions, on which a program judges, and texts of the validation side to be continued (--collect
takes them from the pack that models/train/text_extract.py makes), on which the guide does: the
perplexity it gives to what was written. Printed as a table for RESULTS.md: answers found right,
perplexity, forwards an answer took (the guide's included), tokens placed by a forward, tokens a
second. The first way runs once beforehand to warm up. A combination that the program refuses is
listed with its words. --plot needs python3-matplotlib, the rest no package.
"""
import argparse
import collections
import concurrent.futures
import json
import math
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, '../../models/train'))
import tasks  # noqa: E402

MODEL, GUIDE, ROOM = 'tutti-text', 'tutti-text-guide', 48
SOURCES = 'wn-cards', 'wn-sentences', 'kjv', 'sotu', 'austen', 'moby', 'jargon'
CACHES = 'prefix', 'dual', 'free', 'dkv', 'vicinity'
Way = collections.namedtuple('Way', 'sampler what cache settings')
Figures = collections.namedtuple('Figures', 'exact perplexity forwards rate speed')


# ---- the ways -----------------------------------------------------------------------------

def way(sampler, what, cache=None, **settings):
    if cache:
        settings['cache'] = cache
    return Way(sampler, what, cache or 'none', {**settings, 'sampler': sampler})


def blocks_and(sampler, name, values, plain, whole=None):
    """In blocks of 8 and, with the values `whole` (or the same), in one block; every cache in blocks
    of 8 with the value `plain`."""
    for block in (8, ROOM):
        for value in values if block == 8 else whole or values:
            yield way(sampler, '%s %g, blocks of %d' % (name, value, block), **{name: value, 'block_length': block})
    for cache in CACHES:
        yield way(sampler, '%s %g, blocks of 8' % (name, plain), cache, **{name: plain, 'block_length': 8})


def ways():
    yield from blocks_and('low_confidence', 'steps', (48, 24, 12), 12, (48, 24, 12))
    yield from blocks_and('threshold', 'threshold', (0.99, 0.9, 0.7, 0.5), 0.9)
    yield from blocks_and('factor', 'factor', (0.5, 1, 2), 1)
    for steps in (24, 12):
        yield way('infill', 'steps %d' % steps, steps=steps)
    yield from blocks_and('dream', 'steps', (24, 12), 12, (12,))
    yield way('dream_fast', 'steps 12, threshold 0.9', steps=12)
    for cache in CACHES:
        yield way('dream_fast', 'threshold 0.9, blocks of 8', cache, block_length=8)
    for rule in ('deterministic', 'topk', 'topk_relative'):
        yield way('guided', rule, guide=GUIDE, guide_rule=rule, guide_chunk=ROOM)
    for ratio in (0.25, 0.1):
        yield way('guided', 'topk_relative %g of 5' % ratio, guide=GUIDE, guide_ratio=ratio, guide_k=5,
                  guide_chunk=ROOM)
    for cache in CACHES:
        yield way('guided', 'topk_relative', cache, guide=GUIDE, guide_chunk=ROOM)
    yield way('guided', 'topk_relative 0.1 of 5', 'free', guide=GUIDE, guide_ratio=0.1, guide_k=5,
              guide_chunk=ROOM)
    for sampler in ('entropy_bound', 'klass', 'hierarchy', 'credit', 'slowfast', 'wino'):
        yield way(sampler, 'blocks of 8', block_length=8)
        yield way(sampler, 'one block', block_length=ROOM)
        for cache in CACHES:
            yield way(sampler, 'blocks of 8', cache, block_length=8)
    for sampler in ('ddpm', 'analytic'):
        for steps in (48, 12):
            yield way(sampler, 'steps %d' % steps, steps=steps)
    for scale in (0.5, 1):
        yield way('threshold', 'threshold 0.9, blocks of 8, cfg_scale %g' % scale, block_length=8,
                  cfg_scale=scale)
        yield way('low_confidence', 'steps 12, blocks of 8, cfg_scale %g' % scale, steps=12,
                  block_length=8, cfg_scale=scale)
    yield way('threshold', 'threshold 0.9, blocks of 8, cfg_scale 0.5', 'dual', block_length=8, cfg_scale=0.5)


# ---- asking -------------------------------------------------------------------------------

def questions(n):
    each = -(-n // len(tasks.NAMED))
    by_task = [[(task, q) for q, _ in tasks.samples(task, 2, 0, each)] for task in tasks.NAMED]
    return [pair for turn in zip(*by_task) for pair in turn][:n]


def collect(pack, n):
    """Beginnings of n validation texts, sources in turn: heads of entries, prose cut at a space, at
    most 24 words."""
    import records
    from common import read_pack
    found = {source: [] for source in SOURCES}
    for record in read_pack(pack):
        if record['v'] and len(found.get(record['s'], [0] * n)) < n:
            sample = next(iter(records.record_samples(record, ())))
            begin = ''.join(sample.segments[:sample.spans[0][0]])
            if 2 <= len(begin.split()) <= 24:
                found[record['s']].append(begin.rstrip())
    turns = [text for i in range(n) for source in SOURCES for text in found[source][i:i + 1]]
    json.dump(turns[:n], sys.stdout, indent=0)


class Server:
    """A `tutti serve` of its own; the port is in its first lines."""

    def __init__(self, program, device):
        self.process = subprocess.Popen(
            [program, 'serve', '--port', '0', '--device', device, '--model', MODEL, '--model', GUIDE,
             '--max-running', '128', '--max-queue', '4096'], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            text=True)
        self.url = None
        for line in self.process.stdout:
            self.url = self.url or next(iter(re.findall(r'http://127[.0-9]*:[0-9]+', line)), None)
            if line.startswith('ready'):
                return
        sys.exit('%s serve: does not start' % program)

    def post(self, path, body):
        ask = urllib.request.Request(self.url + path, json.dumps(body).encode(),
                                     {'Content-Type': 'application/json'})
        try:
            return json.load(urllib.request.urlopen(ask, timeout=600))
        except urllib.error.HTTPError as e:
            return json.load(e)

    def stop(self):
        self.process.terminate()
        self.process.wait()


def complete(server, prompts, settings):
    """One answer for each prompt, of requests that run side by side; and the seconds it took."""
    parts = [prompts[i:i + 64] for i in range(0, len(prompts), 64)]
    bodies = [{'model': MODEL, 'prompt': part, 'max_tokens': ROOM, 'seed': 1, 'tutti': settings}
              for part in parts]
    begin = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(len(bodies)) as pool:
        answers = list(pool.map(lambda body: server.post('/v1/completions', body), bodies))
    return answers, time.monotonic() - begin


def logprobs(server, texts):
    """(log-probability, tokens) of each text under the guide."""
    a = server.post('/v1/likelihood', {'model': GUIDE, 'text': texts, 'method': 'exact'})
    if 'error' in a:
        sys.exit(a['error']['message'])
    return [(d['logprob'], len(d['tokens'])) for d in a['data']]


def perplexity(server, texts, known, answers):
    """exp of the mean loss per token, of what the answers add to the texts."""
    sum_, tokens = 0, 0
    full = [t + a for t, a in zip(texts, answers)]
    for (before, m), (whole, n) in zip(known, logprobs(server, full) if full else []):
        sum_ += whole - before
        tokens += n - m
    return math.exp(-sum_ / tokens) if tokens > 0 else math.nan


def measure(server, asked, texts, known, settings):
    """Figures, or the words of a refusal."""
    prompts = ['%s: %s =' % q for q in asked] + texts
    answers, seconds = complete(server, prompts, settings)
    for a in answers:
        if 'error' in a:
            return a['error']['message']
    said = [c['text'] for a in answers for c in a['choices']]
    right = sum(tasks.check(*q, text.strip()) for q, text in zip(asked, said))
    forwards = sum(a['tutti']['nfe'] for a in answers)
    tokens = sum(a['usage']['completion_tokens'] for a in answers)
    return Figures(100 * right / len(asked), perplexity(server, texts, known, said[len(asked):]),
                   forwards / len(prompts), tokens / forwards, tokens / seconds)


# ---- telling ------------------------------------------------------------------------------

def row(w, f):
    return '| %s | %s | %s | %.1f | %.1f | %.1f | %.2f | %.0f |' % (
        w.sampler, w.what, w.cache, f.exact, f.perplexity, f.forwards, f.rate, f.speed)


def read_rows(path):
    """(sampler, whether with a cache, right, perplexity, tokens a forward, tokens a second) of each row."""
    for line in open(path):
        cells = [c.strip() for c in line.strip().strip('|').split('|')]
        if len(cells) == 8 and cells[2] in ('none', *CACHES):
            yield (cells[0], cells[2] != 'none', *map(float, (cells[3], cells[4], cells[6], cells[7])))


def plot(table, path):
    import matplotlib
    matplotlib.use('Agg')
    from matplotlib import pyplot
    rows = list(read_rows(table))
    figure, axes = pyplot.subplots(2, 2, figsize=(12, 8.4), sharex='col', sharey='row')
    for number, sampler in enumerate(dict.fromkeys(r[0] for r in rows)):
        for cached, marker in ((False, 'o'), (True, 'x')):
            mine = [r for r in rows if r[:2] == (sampler, cached)]
            label = sampler + (', with a cache' if cached else '')
            for line, quality in zip(axes, (2, 3)):
                for ax, speed in zip(line, (4, 5)):
                    if mine:
                        ax.plot([r[speed] for r in mine], [r[quality] for r in mine], marker, alpha=0.8,
                                color=pyplot.get_cmap('tab20')(number % 20), label=label)
    axes[0][0].set(ylabel='task answers right, %')
    axes[1][0].set(ylabel='perplexity of continued texts (guide)', xlabel='tokens placed by a forward')
    axes[1][1].set(xlabel='tokens a second')
    for ax in axes.flat:
        ax.set_xscale('log')
        ax.xaxis.set_minor_formatter(matplotlib.ticker.LogFormatter(minor_thresholds=(2, 0.5)))
        ax.tick_params(which='both', labelsize=7)
        ax.grid(alpha=0.3, which='both')
    for ax in axes[1]:
        ax.set_yscale('log')
    figure.tight_layout(rect=(0, 0, 0.83, 1))
    figure.legend(*axes[0][1].get_legend_handles_labels(), fontsize=7, loc='center right')
    figure.savefig(path, dpi=80)


def tell(server, args):
    asked = questions(args.questions)
    texts = json.load(open(args.prompts)) if args.prompts else []
    known = logprobs(server, texts) if texts else []
    todo = [w for w in ways() if args.only in w.sampler]
    refused = []
    measure(server, asked, texts, known, todo[0].settings)
    print('| sampler | how | cache | right, % | perplexity | forwards | tokens a forward | tokens/s |')
    print('|---|---|---|---|---|---|---|---|')
    for w in todo:
        f = measure(server, asked, texts, known, w.settings)
        if isinstance(f, str):
            refused.append('%s, cache %s: %s' % (w.sampler, w.cache, f))
        else:
            print(row(w, f), flush=True)
    print('\n%d questions, %d texts.' % (len(asked), len(texts)))
    print(''.join('Refused: %s\n' % words for words in refused), end='')


def main():
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('--questions', type=int, default=256)
    p.add_argument('--prompts', metavar='FILE', help='texts to continue, as --collect prints them')
    p.add_argument('--collect', nargs=2, metavar=('PACK', 'N'), help='print the prompts of N texts')
    p.add_argument('--plot', nargs=2, metavar=('TABLE.md', 'FILE.png'),
                   help='measure nothing; a picture of what was printed before')
    p.add_argument('--only', default='', help='samplers whose name holds this')
    p.add_argument('--device', default='auto')
    p.add_argument('--tutti', default=os.path.join(HERE, '../../build/release/tutti'))
    args = p.parse_args()
    if args.plot:
        return plot(*args.plot)
    if args.collect:
        return collect(args.collect[0], int(args.collect[1]))
    server = Server(args.tutti, args.device)
    try:
        tell(server, args)
    finally:
        server.stop()


if __name__ == '__main__':
    main()
