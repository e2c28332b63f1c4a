#!/usr/bin/python3
"""Ask the built program what the small models were trained for, and count right answers.

usage: check_small.py make WHAT REQUESTS.jsonl [--questions N] [--set NAME=VALUE]...
       tutti batch -m MODEL -i REQUESTS.jsonl -o ANSWERS.jsonl
       check_small.py score ANSWERS.jsonl [--beside OTHERS.jsonl]

WHAT is stars (for tutti-insertion-stars), insertion or recurrent.  The questions are fresh: seed 4,
where training has 1 and the measuring in PyTorch 3.  `score` prints right answers, forwards and
time by question kind; with --beside also how many texts are those of the other file.  `make stars`
needs PyTorch, the rest no package.
"""
import argparse
import collections
import json

import tasks
from common import Rng

SEED = 4
HOPS = (1, 2, 4, 6, 8)


def star_questions(n):
    import star_graphs
    for name, level in star_graphs.LEVELS.items():
        graphs = star_graphs.Source('cpu', SEED).draw(level, n)
        for prefix, path in zip(graphs.prefix.tolist(), graphs.path.tolist()):
            shown = [t for t in prefix if 0 <= t < star_graphs.NODES]
            yield name, ' '.join(map(str, shown)), ' '.join(str(t) for t in path if t >= 0), level.targets + 2


def chain(g, hops, letters='abcdefgh'):
    """Follow a permutation so many hops: (question, answer)."""
    to = list(letters)
    for i in range(len(to) - 1, 0, -1):
        j = g.below(i + 1)
        to[i], to[j] = to[j], to[i]
    start = at = g.choice(letters)
    for _ in range(hops):
        at = to[letters.index(at)]
    pairs = ' '.join('%s>%s' % pair for pair in zip(letters, to))
    return '%s ; from %s %d steps' % (pairs, start, hops), at


def modsum(g):
    """Running sums modulo 10."""
    digits, total, sums = [g.below(10) for _ in range(4 + g.below(29))], 0, []
    for d in digits:
        total = (total + d) % 10
        sums.append(total)
    return ''.join(map(str, digits)), ''.join(map(str, sums))


def task_questions(what, n):
    makers = [(name, name, tasks.MAKERS[name]) for name in ('sort', 'reverse', 'count')]
    if what == 'recurrent':
        makers = [('chain of %d' % hops, 'chain', lambda g, hops=hops: chain(g, hops)) for hops in HOPS]
        makers += [('modsum', 'modsum', modsum)]
        makers += [(name, name, tasks.MAKERS[name]) for name in ('add', 'sub', 'sort')]
    for kind, (name, task, make_one) in enumerate(makers):
        for i in range(n):
            question, answer = make_one(Rng(SEED << 40 ^ kind << 32 ^ i))
            yield name, '%s: %s =' % (task, question), answer, 48


def questions(what, n):
    """(kind, prompt, answer, tokens there is room for) of n questions of each kind."""
    return star_questions(n) if what == 'stars' else task_questions(what, n)


def value(text):
    try:
        return json.loads(text)
    except ValueError:
        return text


def make(args):
    chosen = {name: value(text) for name, text in (s.split('=', 1) for s in args.set)}
    plain = {name: chosen.pop(name) for name in ('temperature', 'top_p') if name in chosen}
    model = {'stars': 'tutti-insertion-stars', 'insertion': 'tutti-insertion', 'recurrent': 'tutti-recurrent'}
    with open(args.file, 'w') as f:
        for number, (kind, prompt, answer, room) in enumerate(questions(args.what, args.questions)):
            body = {'model': model[args.what], 'prompt': prompt, 'max_tokens': room, 'seed': 1, **plain,
                    **({'tutti': chosen} if chosen else {})}
            f.write(json.dumps({'custom_id': json.dumps([kind, number, prompt, answer]), 'method': 'POST',
                                'url': '/v1/completions', 'body': body}) + '\n')


def right(kind, prompt, answer, text):
    """Of `count` any expression that comes to the number is right."""
    if kind == 'count':
        return tasks.check('count', prompt[len('count: '):-len(' =')], text)
    return text == answer


def read(path):
    """{number: (kind, prompt, answer, body or None)}"""
    out = {}
    for line in open(path):
        record = json.loads(line)
        kind, number, prompt, answer = json.loads(record['custom_id'])
        good = not record['error'] and record['response']['status_code'] == 200
        out[number] = kind, prompt, answer, record['response']['body'] if good else None
    return out


def text_of(body):
    return body['choices'][0]['text'].strip() if body else None


def score(args):
    answers, others = read(args.file), read(args.beside) if args.beside else {}
    sums = collections.defaultdict(collections.Counter)
    for number, (kind, prompt, answer, body) in sorted(answers.items()):
        for s in (sums[kind], sums['all']):
            s['asked'] += 1
            if not body:
                continue
            s['right'] += right(kind, prompt, answer, text_of(body))
            s['same'] += number in others and text_of(others[number][3]) == text_of(body)
            s['tokens'] += body['usage']['completion_tokens']
            s['forwards'] += body['tutti']['nfe']
            s['core'] += body['tutti'].get('depth', {}).get('core_passes', 0)
            s['ms'] += body['tutti']['time']['run_ms']
    print('%-12s %6s %7s %8s %9s %11s %9s' % ('', 'asked', 'right %', 'tokens', 'forwards', 'core/token', 'ms/token')
          + ('  same text %' if others else ''))
    for kind, s in sums.items():
        tokens = max(1, s['tokens'])
        print('%-12s %6d %7.1f %8d %9d %11.2f %9.2f' % (
            kind, s['asked'], 100 * s['right'] / s['asked'], s['tokens'], s['forwards'], s['core'] / tokens,
            s['ms'] / tokens) + ('  %11.1f' % (100 * s['same'] / s['asked']) if others else ''))


def main():
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    sub = p.add_subparsers(dest='verb', required=True)
    m = sub.add_parser('make')
    m.add_argument('what', choices=('stars', 'insertion', 'recurrent'))
    m.add_argument('file')
    m.add_argument('--questions', type=int, default=1000, help='of each kind')
    m.add_argument('--set', action='append', default=[])
    s = sub.add_parser('score')
    s.add_argument('file')
    s.add_argument('--beside')
    args = p.parse_args()
    make(args) if args.verb == 'make' else score(args)


if __name__ == '__main__':
    main()
