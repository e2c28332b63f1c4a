#!/usr/bin/python3
"""Recurrent depth: one token after the other against a wave, on the same questions to tutti-recurrent.

usage: depth.py [--questions N] [--device NAME] [--tutti PROGRAM] >TABLE.md
       depth.py --plot TABLE.md FILE.png

Every way of decoding answers the same questions, and continues the same beginnings of texts, through
`tutti batch`, one request at a time. Printed as a table for RESULTS.md: answers that are right, texts
that are those of the first way, core passes and forwards for a token of the answers (its end counts
as one; the prompt's own passes are included), time for a token, and processor time. The picture puts
accuracy against recurrences, as models/train/results.json has it, beside core passes for a token.
--plot needs python3-matplotlib, the rest no package.
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
TRAIN = os.path.join(HERE, '../../models/train')
sys.path.insert(0, TRAIN)
import check_small  # noqa: E402

MODEL = 'tutti-recurrent'
BEGINNINGS = ('And the LORD said', 'She was', 'He did not', 'The king of', 'And it came to pass', 'They were',
              'In the', 'The children', 'I will', 'And he went', 'The old man', 'Let us')
Way = collections.namedtuple('Way', 'name settings')
Figures = collections.namedtuple('Figures', 'right same core forwards ms seconds')


def ways():
    def way(sampler, name, **settings):
        return Way('%s, %s' % (sampler, name), {'sampler': sampler, **settings})
    for r in (12, 32, 8, 4, 2, 1):
        yield way('recurrent', 'r = %d' % r, recurrence=r)
    for inner in (4, 2, 1):
        for exit_ in (0.03, 0.1):
            yield way('forcing', "r' = %d, exit %g" % (inner, exit_), inner_recurrence=inner, exit_threshold=exit_)
    yield way('forcing', "r' = 2, exit 0.03, headway 2", inner_recurrence=2, exit_threshold=0.03, headway=2)
    yield way('forcing', "r' = 1, exit 0.1, prompt r = 4", inner_recurrence=1, exit_threshold=0.1, recurrence=4)
    yield way('self_speculative', 'draft r = 2', draft_recurrence=2)


def questions(each):
    asked = [q[:3] for q in check_small.questions('recurrent', each)]
    return asked + [('text', beginning, None) for beginning in BEGINNINGS]


def batch(args, asked, settings):
    """Bodies of the answers in the order asked, and the processor seconds of the whole run."""
    lines = [json.dumps({'custom_id': str(i), 'method': 'POST', 'url': '/v1/completions', 'body': {
        'model': MODEL, 'prompt': prompt, 'max_tokens': 48, 'temperature': 0, 'seed': 1, 'tutti': settings}})
        for i, (_, prompt, _) in enumerate(asked)]
    with tempfile.TemporaryDirectory() as folder:
        inside, outside = os.path.join(folder, 'in'), os.path.join(folder, 'out')
        with open(inside, 'w') as f:
            f.write(''.join(line + '\n' for line in lines))
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([args.tutti, 'batch', '-m', args.model, '--device', args.device, '--threads', '1', '--window',
                        '1', '-q', '-i', inside, '-o', outside], stderr=subprocess.PIPE)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        answers = {int(a['custom_id']): a['response'] for a in map(json.loads, open(outside))}
    for a in answers.values():
        if a['status_code'] != 200:
            sys.exit('%s: %s' % (settings, a['body']['error']['message']))
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return [answers[i]['body'] for i in range(len(asked))], spent


def figures(asked, bodies, first, spent):
    known = [check_small.text_of(b) == answer for (_, _, answer), b in zip(asked, bodies) if answer]
    same = sum(check_small.text_of(a) == check_small.text_of(b) for a, b in zip(bodies, first))
    tokens = sum(b['usage']['completion_tokens'] + (b['choices'][0]['finish_reason'] == 'stop') for b in bodies)
    total = lambda of: sum(of(b['tutti']) for b in bodies)
    return Figures(100 * sum(known) / len(known), 100 * same / len(bodies),
                   total(lambda t: t['depth']['core_passes']) / tokens, total(lambda t: t['nfe']) / tokens,
                   total(lambda t: t['time']['run_ms']) / tokens, spent)


def by_kind(asked, bodies, first):
    """Core passes for a token of each kind of question, and whether all texts are those of the first way."""
    out = {}
    for kind in dict.fromkeys(k for k, _, _ in asked):
        at = [i for i, q in enumerate(asked) if q[0] == kind]
        f = figures([(k, p, a or '-') for k, p, a in (asked[i] for i in at)], [bodies[i] for i in at],
                    [first[i] for i in at], 0)
        out[kind] = f.core
    return out


def row(w, f, kinds):
    return '| %s | %.1f | %.1f | %.2f | %.2f | %.2f | %.1f | %s |' % (
        w.name, f.right, f.same, f.core, f.forwards, f.ms, f.seconds, ' | '.join('%.1f' % c for c in kinds.values()))


def measure(args):
    asked, first = questions(args.questions), None
    for w in ways():
        bodies, spent = batch(args, asked, w.settings)
        if first is None:
            first = bodies
            kinds = list(dict.fromkeys(k for k, _, _ in asked))
            print('| way | right, % | same text, % | core passes a token | forwards a token | ms a token | CPU s | '
                  + ' | '.join(kinds) + ' |')
            print('|' + '---|' * (7 + len(kinds)))
        print(row(w, figures(asked, bodies, first, spent), by_kind(asked, bodies, first)), flush=True)
    print('\n%d questions and %d beginnings of texts, one at a time, device %s; the last columns are core passes a token.'
          % (len(asked) - len(BEGINNINGS), len(BEGINNINGS), args.device))


def read_rows(path):
    for line in open(path):
        cells = [c.strip() for c in line.strip().strip('|').split('|')]
        if len(cells) > 7 and cells[0].split(',')[0] in ('recurrent', 'forcing', 'self_speculative'):
            yield cells[0], float(cells[1]), float(cells[3])


def plot(table, path):
    import matplotlib
    matplotlib.use('Agg')
    from matplotlib import pyplot
    with open(os.path.join(TRAIN, 'results.json'), encoding='utf-8') as f:
        measured = json.load(f)['recurrent, right answers in % by recurrences']
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(12, 4.8))
    shown = [k for k in measured if k.startswith('chain') or k in ('modsum', 'add', 'sub', 'sort')]
    chains = [k for k in shown if k.startswith('chain')]
    for kind in shown:
        r = sorted(map(int, measured[kind]))
        style = {'color': pyplot.get_cmap('viridis')(chains.index(kind) / len(chains)),
                 'linestyle': '--' if int(kind.split()[-1]) > 8 else '-'} if kind in chains else {'linestyle': ':'}
        left.plot(r, [measured[kind][str(n)] for n in r], marker='.', label=kind, **style)
    left.set(xscale='log', xlabel='recurrences', ylabel='answers right, %', xticks=r, xticklabels=r,
             title='accuracy against depth (9 to 12 hops were never trained)')
    left.legend(fontsize=7, loc='center left', bbox_to_anchor=(1.01, 0.5))
    rows = list(read_rows(table))
    colours = {'recurrent': 'tab:blue', 'forcing': 'tab:orange', 'self_speculative': 'tab:green'}
    right.barh([r[0] for r in rows], [r[2] for r in rows], color=[colours[r[0].split(',')[0]] for r in rows])
    for i, (_, good, core) in enumerate(rows):
        right.text(core, i, ' %.1f, %.0f %% right' % (core, good), va='center', fontsize=7)
    right.set(xlabel='core passes a token', xlim=(0, 1.3 * max(r[2] for r in rows)),
              title='one after the other against a wave')
    right.tick_params(axis='y', labelsize=7)
    right.invert_yaxis()
    figure.tight_layout()
    figure.savefig(path, dpi=90)


def main():
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('--questions', type=int, default=12, help='of each kind')
    p.add_argument('--device', default='cpu')
    p.add_argument('--model', default=MODEL, help='its name, or a folder')
    p.add_argument('--tutti', default=os.path.join(HERE, '../../build/release/tutti'))
    p.add_argument('--plot', nargs=2, metavar=('TABLE.md', 'FILE.png'),
                   help='measure nothing; a picture of what was printed before')
    args = p.parse_args()
    plot(*args.plot) if args.plot else measure(args)


if __name__ == '__main__':
    main()
