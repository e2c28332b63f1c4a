#!/usr/bin/python3
"""Quality against speed: every sampler, with every cache it has, on tutti-text's unseen task questions.

usage: samplers.py [--questions N] [--only TEXT] [--tutti PROGRAM] >TABLE.md
       samplers.py --plot TABLE.md FILE.png

Every way of decoding answers the same questions through `tutti batch` on one thread. Printed as a
table for RESULTS.md: answers that a program finds right, forwards an answer took (the guide's
included), tokens placed by a forward, and processor time, so that other work on the machine does not
count; what starting and loading take is measured beforehand and left out. A combination that the
program refuses is listed with its words. --plot needs python3-matplotlib, the rest no package.
"""
import argparse
import collections
import json
import os
import resource
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, '../../models/train'))
import tasks  # noqa: E402

MODEL, GUIDE, ROOM = 'tutti-text', 'tutti-text-guide', 48
CACHES = 'prefix', 'dual', 'free', 'dkv', 'vicinity'
Way = collections.namedtuple('Way', 'sampler what cache settings')
Figures = collections.namedtuple('Figures', 'exact forwards rate seconds')


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
    yield from blocks_and('low_confidence', 'steps', (24, 12), 12, (12,))
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
    for sampler in ('entropy_bound', 'klass', 'hierarchy', 'credit', 'slowfast', 'wino'):
        yield way(sampler, 'blocks of 8', block_length=8)
        yield way(sampler, 'one block', block_length=ROOM)
        yield way(sampler, 'blocks of 8', 'auto', block_length=8)
    for sampler in ('ddpm', 'analytic'):
        yield way(sampler, 'steps 12', steps=12)


# ---- asking -------------------------------------------------------------------------------

def questions(each):
    return [(task, question) for task in tasks.NAMED
            for question, _ in tasks.samples(task, 2, 0, each)]


def request(number, task, question, settings):
    body = {'model': MODEL, 'prompt': '%s: %s =' % (task, question), 'max_tokens': ROOM, 'seed': 1,
            'tutti': settings}
    return json.dumps({'custom_id': str(number), 'method': 'POST', 'url': '/v1/completions', 'body': body})


def batch(program, lines):
    """The answers by number, and the processor seconds of the whole run."""
    with tempfile.TemporaryDirectory() as folder:
        asked, answered = os.path.join(folder, 'in'), os.path.join(folder, 'out')
        with open(asked, 'w') as f:
            f.write(''.join(line + '\n' for line in lines))
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([program, 'batch', '-m', MODEL, '--guide', GUIDE, '--threads', '1', '-q', '-i', asked,
                        '-o', answered], stderr=subprocess.PIPE)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        answers = [json.loads(line) for line in open(answered)]
    if len(answers) != len(lines):
        sys.exit('%s batch: %d answers to %d requests' % (program, len(answers), len(lines)))
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {int(a['custom_id']): a['response'] for a in answers}, spent


def measure(program, asked, settings, idle):
    """Figures, or the words of a refusal."""
    answers, spent = batch(program, [request(i, *q, settings) for i, q in enumerate(asked)])
    for answer in answers.values():
        if answer['status_code'] != 200:
            return answer['body']['error']['message']
    bodies = [answers[i]['body'] for i in range(len(asked))]
    right = sum(tasks.check(*q, b['choices'][0]['text'].strip()) for q, b in zip(asked, bodies))
    forwards = sum(b['tutti']['nfe'] for b in bodies)
    tokens = sum(b['usage']['completion_tokens'] for b in bodies)
    return Figures(100 * right / len(asked), forwards / len(asked), tokens / forwards,
                   (spent - idle) / len(asked))


# ---- telling ------------------------------------------------------------------------------

def row(w, f):
    return '| %s | %s | %s | %.1f | %.1f | %.2f | %.1f |' % (
        w.sampler, w.what, w.cache, f.exact, f.forwards, f.rate, 1000 * f.seconds)


def read_rows(path):
    """(sampler, whether with a cache, right, tokens a forward, answers a second) of each row printed."""
    for line in open(path):
        cells = [c.strip() for c in line.strip().strip('|').split('|')]
        if len(cells) == 7 and cells[2] in ('none', 'auto', *CACHES):
            yield cells[0], cells[2] != 'none', float(cells[3]), float(cells[5]), 1000 / float(cells[6])


def plot(table, path):
    import matplotlib
    matplotlib.use('Agg')
    from matplotlib import pyplot
    rows = list(read_rows(table))
    figure, axes = pyplot.subplots(1, 2, figsize=(11, 4.6), sharey=True)
    for number, sampler in enumerate(dict.fromkeys(r[0] for r in rows)):
        for cached, marker in ((False, 'o'), (True, 'x')):
            mine = [r for r in rows if r[:2] == (sampler, cached)]
            label = sampler + (', with a cache' if cached else '')
            for ax, speed in zip(axes, (3, 4)):
                if mine:
                    ax.plot([r[speed] for r in mine], [r[2] for r in mine], marker, alpha=0.8,
                            color=pyplot.get_cmap('tab20')(number % 20), label=label)
    axes[0].set(xlabel='tokens placed by a forward', ylabel='answers right, %')
    axes[1].set(xlabel='answers a second of processor time')
    for ax in axes:
        ax.set_xscale('log')
        ax.grid(alpha=0.3)
    axes[1].legend(fontsize=7, loc='center left', bbox_to_anchor=(1.01, 0.5))
    figure.tight_layout()
    figure.savefig(path, dpi=90)


def main():
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('--questions', type=int, default=6, help='of each of the %d tasks' % len(tasks.NAMED))
    p.add_argument('--plot', nargs=2, metavar=('TABLE.md', 'FILE.png'),
                   help='measure nothing; a picture of what was printed before')
    p.add_argument('--only', default='', help='samplers whose name holds this')
    p.add_argument('--tutti', default=os.path.join(HERE, '../../build/release/tutti'))
    args = p.parse_args()
    if args.plot:
        return plot(*args.plot)
    asked = questions(args.questions)
    _, idle = batch(args.tutti, [])
    refused = []
    print('| sampler | how | cache | right, % | forwards | tokens a forward | ms an answer |')
    print('|---|---|---|---|---|---|---|')
    for w in ways():
        if args.only in w.sampler:
            f = measure(args.tutti, asked, w.settings, idle)
            if isinstance(f, str):
                refused.append('%s, cache %s: %s' % (w.sampler, w.cache, f))
            else:
                print(row(w, f), flush=True)
    print('\n%d questions, %.2f s of start and loading left out.' % (len(asked), idle))
    print(''.join('Refused: %s\n' % words for words in refused), end='')


if __name__ == '__main__':
    main()
