#!/usr/bin/python3
"""Ask the built program what the small models were trained for, and count right answers.

usage: check_small.py make WHAT REQUESTS.jsonl [--questions N] [--set NAME=VALUE]...
       tutti batch -m MODEL -i REQUESTS.jsonl -o ANSWERS.jsonl
       check_small.py score ANSWERS.jsonl [--beside OTHERS.jsonl]

WHAT is stars (for tutti-insertion-stars), insertion or recurrent.  The questions are fresh: seed 4,
where training has 1 and the measuring in PyTorch 3.  `score` prints right answers, forwards and
time by question kind; with --beside also how many texts are those of the other file.  `make` needs
PyTorch, `score` does not.
"""
import argparse
import collections
import json

SEED = 4
HOPS = (1, 2, 4, 6, 8)


def star_questions(n):
    import star_graphs
    for name, level in star_graphs.LEVELS.items():
        graphs = star_graphs.Source('cpu', SEED).draw(level, n)
        for prefix, path in zip(graphs.prefix.tolist(), graphs.path.tolist()):
            shown = [t for t in prefix if 0 <= t < star_graphs.NODES]
            yield name, ' '.join(map(str, shown)), ' '.join(str(t) for t in path if t >= 0), level.targets + 2


def task_questions(names, n, tokenizer, room):
    import drawn_tasks
    import small_tokenizer
    encoder = small_tokenizer.Encoder(small_tokenizer.cut(tokenizer))
    tasks = drawn_tasks.Tasks(encoder, 'cpu', SEED)
    for name, task, hops in names:
        tasks.hops = hops
        ids, kinds = tasks.draw(task, n)
        for row in zip(ids.tolist(), kinds.tolist()):
            text = ['', '']
            for kind in (0, 1):
                text[kind] = encoder.decode([t for t, k in zip(*row) if t >= 0 and k == kind])
            yield name, text[0], text[1].strip(), room


def questions(what, n, tokenizer):
    if what == 'stars':
        return star_questions(n)
    names = [(name, name, (1, 8)) for name in ('sort', 'reverse', 'count')]
    if what == 'recurrent':
        names = [('chain of %d' % h, 'chain', (h, h)) for h in HOPS]
        names += [(name, name, (1, 8)) for name in ('modsum', 'add', 'sub', 'sort')]
    return task_questions(names, n, tokenizer, 48)


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
        for number, (kind, prompt, answer, room) in enumerate(questions(args.what, args.questions, args.tokenizer)):
            body = {'model': model[args.what], 'prompt': prompt, 'max_tokens': room, 'seed': 1, **plain,
                    **({'tutti': chosen} if chosen else {})}
            f.write(json.dumps({'custom_id': json.dumps([kind, number, prompt, answer]), 'method': 'POST',
                                'url': '/v1/completions', 'body': body}) + '\n')


def right(kind, prompt, answer, text):
    if kind == 'count':
        import drawn_tasks
        return drawn_tasks.check(*drawn_tasks.parse(prompt)[:2], text)
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
    m.add_argument('--tokenizer', default='../demo/tutti-text/tokenizer.json')
    s = sub.add_parser('score')
    s.add_argument('file')
    s.add_argument('--beside')
    args = p.parse_args()
    make(args) if args.verb == 'make' else score(args)


if __name__ == '__main__':
    main()
