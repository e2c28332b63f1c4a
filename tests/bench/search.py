#!/usr/bin/python3
"""Does searching pay, and with which tokens? Images of held-out captions by best-of-N, beam and lookahead.

usage: search.py --captions FILE.json --models A,B,C [--verifier V] [--judge J] [--device D] [--quick] >TABLE.md
       search.py --plot TABLE.md FILE.png

One `tutti serve` holds the generators and two verifiers: V chooses, J (weight 0) only scores what was
chosen. FILE.json: ["red apple, noto style", ...], or [{"caption", "labels"}, ...]. Every generator makes
every caption by every kind of search, many requests at once; image i of a caption has the same seed with
every kind. Best of N is read off one search of the largest N, whose i-th candidate is the i-th image of
any smaller one. Printed for RESULTS.md: mean scores of V and J with what they gain over one image, forwards
(steps of candidates), pictures decoded, and the milliseconds of a request that is alone; then beams and
lookaheads against best-of-N of as many forwards, and generators against the first one. Brackets hold 95 %
intervals of a paired bootstrap over the captions. Ways that did not fit into --seconds are named, not
guessed. Needs python3-numpy, --plot python3-matplotlib too.
"""
import argparse
import collections
import concurrent.futures
import http.client
import json
import math
import os
import re
import statistics
import subprocess
import sys
import threading
import time

import numpy

HERE = os.path.dirname(os.path.abspath(__file__))
SAMPLES = 32
COUNTS = 1, 2, 4, 8, 16, 32
RESAMPLES = 4000
Way = collections.namedtuple('Way', 'name settings')
Answer = collections.namedtuple('Answer', 'verifier judge forwards decoded ms')


def ways(quick):
    """The first is best-of-N, from which all N are read."""
    yield Way('best of', {'algorithm': 'best_of', 'samples': SAMPLES})
    for algorithm in ('beam', 'lookahead'):
        for beams, candidates in ((2, 4),) if quick else ((1, 4), (2, 4), (4, 4), (4, 8)):
            yield Way('%s %d x %d' % (algorithm, beams, candidates),
                      {'algorithm': algorithm, 'beam_width': beams, 'candidates': candidates})


# ---- asking -------------------------------------------------------------------------------

class Server:
    """A `tutti serve` of its own, and a connection to it for every thread."""

    def __init__(self, args):
        models = args.models + [args.verifier, args.judge]
        self.process = subprocess.Popen(
            [args.tutti, 'serve', '--port', '0', '--device', args.device, '--max-queue', '4096', '--max-running',
             str(args.running), *(word for m in models for word in ('--model', m))],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.local, self.port, said = threading.local(), None, []
        threading.Thread(target=lambda: said.extend(self.process.stderr), daemon=True).start()
        for line in self.process.stdout:
            self.port = self.port or next(iter(re.findall(r'http://127[.0-9]*:([0-9]+)', line)), None)
            if line.startswith('ready'):
                return
        sys.exit('%s serve does not start: %s' % (args.tutti, ''.join(said)))

    def ask(self, path, body=None):
        """The answer; a full queue is waited for, anything else that is no answer ends the program."""
        while True:
            used = hasattr(self.local, 'to')
            if not used:
                self.local.to = http.client.HTTPConnection('127.0.0.1', int(self.port), timeout=600)
            try:
                self.local.to.request('POST' if body else 'GET', path, json.dumps(body) if body else None,
                                      {'Content-Type': 'application/json'} if body else {})
                response = self.local.to.getresponse()
                text = response.read()
            except (ConnectionError, http.client.HTTPException):
                del self.local.to
                if used:  # it idled for long, and was closed meanwhile
                    continue
                raise
            if response.status == 200:
                return json.loads(text)
            if response.status != 429:
                raise RuntimeError('%s: %d %s' % (path, response.status, text.decode()[:600]))
            time.sleep(0.05)

    def stop(self):
        self.process.terminate()
        self.process.wait()


def name_of(model):
    """As it is served: 'id=folder', a folder, or a name."""
    return model.split('=')[0] if '=' in model else os.path.basename(model.rstrip('/'))


def read_captions(path, most):
    """[(caption, labels)]."""
    def pair(c):
        if not isinstance(c, str):
            return c['caption'], c['labels']
        concept, _, style = c.rpartition(', ')
        return c, {'concept': concept, 'style': style.removesuffix(' style')}
    with open(path, encoding='utf-8') as f:
        return [pair(c) for c in json.load(f)][:most]


def search(server, args, model, way, number, caption, results):
    settings = {**way.settings, 'verifier': [name_of(args.verifier), {'name': name_of(args.judge), 'weight': 0}]}
    return server.ask('/v1/images/generations', {
        'model': name_of(model), 'prompt': caption[0], 'n': results, 'seed': number,
        'tutti': {'labels': caption[1], 'tokens_only': True, 'search': settings}})


def taken(args, answer):
    """What is kept of an answer: of every result its candidate and both scores."""
    spent = answer['tutti']['search']
    scores = sorted((d['tutti']['candidate'], d['tutti']['scores'][name_of(args.verifier)],
                     d['tutti']['scores'][name_of(args.judge)]) for d in answer['data'])
    return scores, spent['forwards'], spent['pictures_decoded'], spent['ms']


def ask_all(server, args, captions, todo):
    """{(model, way's name): [what is kept, per caption]}; what the time did not suffice for is missing."""
    end, found = time.monotonic() + args.seconds, {}

    def one(model, way, number):
        if time.monotonic() > end:
            return None
        results = SAMPLES if way.name == 'best of' else 1
        return taken(args, search(server, args, model, way, number, captions[number], results))
    with concurrent.futures.ThreadPoolExecutor(args.flight) as pool:
        running = {(m, w.name): [pool.submit(one, m, w, i) for i in range(len(captions))]
                   for w in todo for m in args.models}
        for key, futures in running.items():
            answers = [f.result() for f in futures]
            if all(answers):
                found[key] = answers
            print('%s: %s' % (key, 'done' if all(answers) else 'no time'), file=sys.stderr)
    return found


def alone(server, args, captions, model, way):
    """Milliseconds of a search when nothing else runs: the median of some captions."""
    each = [search(server, args, model, way, i, captions[i], 1)['tutti']['search']['ms']
            for i in range(min(args.timed, len(captions)))]
    return statistics.median(each) if each else math.nan


# ---- figures ------------------------------------------------------------------------------

def figures(found, args, todo):
    """{(model, way's name): Answer of arrays, one number per caption}, best-of-N for every N."""
    out = {}
    for (model, name), answers in found.items():
        if name != 'best of':
            best = [(max(scores, key=lambda s: s[1]), forwards, decoded) for scores, forwards, decoded, _ in answers]
            out[model, name] = Answer(*(numpy.array(column, float) for column in zip(
                *((b[1], b[2], f, d) for b, f, d in best))), None)
            continue
        for n in COUNTS:
            best = [max(scores[:n], key=lambda s: s[1]) for scores, _, _, _ in answers]
            share = [n * forwards / SAMPLES for _, forwards, _, _ in answers]
            out[model, 'best of %d' % n] = Answer(
                numpy.array([b[1] for b in best]), numpy.array([b[2] for b in best]), numpy.array(share),
                numpy.full(len(best), float(n)), None)
    return out


class Bootstrap:
    """The same resampled captions for every figure, so that differences are paired."""

    def __init__(self, captions):
        self.at = numpy.random.default_rng(1).integers(0, captions, (RESAMPLES, captions))

    def __call__(self, values):
        low, high = numpy.percentile(values[self.at].mean(1), (2.5, 97.5))
        return '%+.4f [%+.4f, %+.4f]' % (values.mean(), low, high)


def best_of_at(found, model, forwards, which):
    """Scores per caption of best-of-N at so many forwards, between two N straight in log N; None beyond
    the largest."""
    one = found[model, 'best of 1'].forwards.mean()
    place = math.log2(max(1, forwards / one))
    if place > len(COUNTS) - 1 + 1e-9:
        return None
    low = min(int(place), len(COUNTS) - 2)
    a, b = (getattr(found[model, 'best of %d' % COUNTS[i]], which) for i in (low, low + 1))
    return a + (place - low) * (b - a)


def tell_means(found, boot, times):
    print('| generator | search | forwards | of one image | decoded | ms | verifier | gain | judge | gain |')
    print('|' + '---|' * 10)
    for (model, name), a in found.items():
        one = found[model, 'best of 1']
        print('| %s | %s | %.0f | %.2f | %.0f | %.0f | %.4f | %s | %.4f | %s |' % (
            name_of(model), name, a.forwards.mean(), a.forwards.mean() / one.forwards.mean(), a.decoded.mean(),
            times[model, name], a.verifier.mean(), boot(a.verifier - one.verifier), a.judge.mean(),
            boot(a.judge - one.judge)))


def tell_against_best_of(found, boot):
    print('\n| generator | search | forwards of one image | verifier, beyond best-of-N | judge, beyond best-of-N |')
    print('|' + '---|' * 5)
    for (model, name), a in found.items():
        if name.startswith('best of'):
            continue
        forwards = a.forwards.mean()
        same = [best_of_at(found, model, forwards, which) for which in ('verifier', 'judge')]
        told = ['beyond N = %d' % SAMPLES] * 2 if same[0] is None else [boot(a.verifier - same[0]),
                                                                       boot(a.judge - same[1])]
        print('| %s | %s | %.2f | %s | %s |' % (
            name_of(model), name, forwards / found[model, 'best of 1'].forwards.mean(), *told))


def tell_against_first(found, boot, models):
    """What the same search gains with other tokens."""
    first = models[0]
    print('\n| generator | search | verifier: gain beyond that of %s | judge |' % name_of(first))
    print('|' + '---|' * 4)
    gain = lambda model, name, which: getattr(found[model, name], which) - getattr(found[model, 'best of 1'], which)
    for model, name in found:
        if model != first and (first, name) in found and name != 'best of 1':
            print('| %s | %s | %s | %s |' % (name_of(model), name, *(
                boot(gain(model, name, which) - gain(first, name, which)) for which in ('verifier', 'judge'))))


def measure(args):
    captions, todo = read_captions(args.captions, args.most), list(ways(args.quick))
    server = Server(args)
    try:
        for model in args.models:  # warm: every shape once
            search(server, args, model, todo[0], 0, captions[0], 1)
        begin = time.monotonic()
        raw = ask_all(server, args, captions, todo)
        seconds = time.monotonic() - begin
        if any((m, 'best of') not in raw for m in args.models):
            sys.exit('no time even for best-of-%d' % SAMPLES)
        found, times = figures(raw, args, todo), {}
        for model, name in found:
            n = int(name.split()[-1]) if name.startswith('best of') else 0
            way = next((w for w in todo if w.name == name), Way(name, {'algorithm': 'best_of', 'samples': n}))
            times[model, name] = alone(server, args, captions, model, way)
    finally:
        server.stop()
    boot = Bootstrap(len(captions))
    tell_means(found, boot, times)
    tell_against_best_of(found, boot)
    tell_against_first(found, boot, args.models)
    print('\n%d captions, %s chooses, %s judges, device %s; all of it %.0f s, %d requests at once; ms: a request '
          'alone, median of %d.' % (len(captions), name_of(args.verifier), name_of(args.judge), args.device, seconds,
                                    args.flight, min(args.timed, len(captions))))
    missing = ['%s, %s' % (name_of(m), w.name) for w in todo for m in args.models if (m, w.name) not in raw]
    if missing:
        print('No time for: %s.' % '; '.join(missing))


# ---- the picture --------------------------------------------------------------------------

def read_rows(path):
    """(generator, search, forwards of one image, verifier's gain, judge's gain) of the first table; a gain
    is (mean, low, high)."""
    gain = lambda cell: tuple(map(float, re.findall(r'[-+][0-9.]+', cell)))
    for line in open(path, encoding='utf-8'):
        cells = [c.strip() for c in line.strip().strip('|').split('|')]
        if len(cells) == 10 and re.match(r'(best of|beam|lookahead) \d', cells[1]):
            yield cells[0], cells[1], float(cells[3]), gain(cells[7]), gain(cells[9])


def plot(table, path):
    import matplotlib
    matplotlib.use('Agg')
    from matplotlib import pyplot
    from PIL import Image
    rows = list(read_rows(table))
    figure, axes = pyplot.subplots(1, 2, figsize=(12, 4.8))
    for number, model in enumerate(dict.fromkeys(r[0] for r in rows)):
        for kind, style in (('best of', 'o-'), ('beam', 's--'), ('lookahead', '^:')):
            mine = sorted((r for r in rows if r[0] == model and r[1].startswith(kind)), key=lambda r: r[2])
            for ax, column in zip(axes, (3, 4)):
                low, high = ([abs(r[column][0] - r[column][i]) for r in mine] for i in (1, 2))
                ax.errorbar([r[2] for r in mine], [r[column][0] for r in mine], yerr=[low, high], fmt=style,
                            color='C%d' % number, markersize=4, linewidth=1, capsize=2, alpha=0.85,
                            label='%s, %s' % (model, kind))
    for ax, title in zip(axes, ('the verifier that chooses', 'the judge, who does not')):
        ax.set(xscale='log', xlabel='forwards, in those of one image', ylabel='gain over one image', title=title)
        ax.set_xticks(COUNTS, COUNTS)
        ax.axhline(0, color='grey', linewidth=0.6)
        ax.grid(alpha=0.3)
    axes[0].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=90)
    Image.open(path).convert('RGB').quantize(64).save(path, optimize=True)


def main():
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('--captions', metavar='FILE.json')
    p.add_argument('--most', type=int, default=200, help='captions')
    p.add_argument('--models', type=lambda s: s.split(','), default=[], help='ids, folders or id=folder; the first '
                   'is the one that others are compared with')
    p.add_argument('--verifier', default='tutti-verifier')
    p.add_argument('--judge', default='tutti-judge')
    p.add_argument('--device', default='auto')
    p.add_argument('--flight', type=int, default=48, help='requests at once')
    p.add_argument('--running', type=int, default=512, help='sequences in one step of the server')
    p.add_argument('--timed', type=int, default=3, help='captions whose searches are timed alone')
    p.add_argument('--seconds', type=float, default=100, help='no search begins later; timing comes after')
    p.add_argument('--quick', action='store_true', help='one width of beam and lookahead')
    p.add_argument('--tutti', default=os.path.join(HERE, '../../build/release/tutti'))
    p.add_argument('--plot', nargs=2, metavar=('TABLE.md', 'FILE.png'),
                   help='measure nothing; a picture of what was printed before')
    args = p.parse_args()
    if args.plot:
        return plot(*args.plot)
    if not args.captions or not args.models:
        p.error('--captions and --models are needed')
    measure(args)


if __name__ == '__main__':
    main()
