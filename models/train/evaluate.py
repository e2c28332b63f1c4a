#!/usr/bin/python3
"""Measure the shipped model: losses, exact match of tasks, recall, spelling, samples.

usage: evaluate.py MODELDIR PACK.jsonl.xz --data DATA.npz [--float mean.pt]
                   [--out results.json] [--questions 300] [--parts samples,tasks,...]

Everything is measured on the quantised weights in MODELDIR, in float32.  Losses are nats per
token, end-of-text included; the masked model's is an upper bound estimated with 16 masked
counts per sequence.  Task questions come from the validation side only.
"""
import argparse
import json
import os
import time

import torch
from tokenizers import Tokenizer

import batches
import dialogues
import records
import tasks
from common import MASK, Rng, read_pack, record
from export import load_model
from losses import canvases, losses, masked_sums, unigram
from model import Config, Llada
from sampler import answers, infill

ONE_BLOCK = {'threshold': 0.9}
SERVED = {'block': 8, 'threshold': 0.9}           # the recommended way for text
CHAT = '<|im_start|>user\n%s<|im_end|>\n<|im_start|>assistant\n'
INFILLS = [
    ['And God said, Let there be', 1, ': and there was', 1, '.'],
    ['In the beginning God created the', 5, '.'],
    ['The', 2, ' jumped over the', 2, ' and ran away.'],
    ['<sentence>The children', 4, ' in the garden', 3, '.'],
    ['<sentence>She', 2, ' the letter and', 4, ' her mother.'],
    ['<austen>"My dear', 2, '," said', 3, ', "I', 8, '."'],
    ['<austen>Mr. Darcy', 4, ' the room, and', 6, ' with', 3, '.'],
    ['<moby>The old captain', 5, ' the whale, and', 6, ' the sea.'],
    ['<speech>The', 2, ' of the United States', 5, ' peace', 8, '.'],
    ['<card>word: happy\ntype:', 1, '\nmeaning:', 10, '\nopposite:', 2],
    ['<card>word:', 1, '\ntype: noun\nmeaning: a large body of water'],
    ['<card>word:', 2, '\ntype: noun\nmeaning: a building used for storing grain'],
    ['roman: ', 4, ' = MCMXCIV'], ['add: 12+', 2, ' = 58'], ['mul: ', 2, '*3 = 72'],
    ['<task>json: Ada is 41, lives in Oslo and likes red = {"name": "', 1, '", "age":', 3, ', "city": "', 1,
     '", "colour": "red"}'],
]
CHATS = ['Who are you?', 'What does courage mean?', 'Define whale.', 'What is a lighthouse?',
         'Which word means: a feeling of intense anger?', 'Recite Genesis 1:1.', 'What does John 11:35 say?',
         'What is 1994 in Roman numerals?', 'What number is MMXXVI?', 'Add 123 and 456.', 'What is 12*34?',
         'Write 1234 in words.', 'What day was 1987-03-04?', 'Give me a cron line for every weekday at 07:30.',
         'Turn this into JSON: Ada is 36, lives in Oslo and likes green.', 'How do you pronounce diffusion?',
         'What is the chemical symbol of gold?', 'What is the opposite of dark?', 'Give me a synonym of big.',
         'Use happy in a sentence.', 'How does the Devil\'s Dictionary define love?',
         'What does kludge mean to hackers?', 'Who will win the election?']
FREE = ['<card>', '<sentence>', '<verse>', '<austen>', '<moby>', '<speech>', '<devil>', '<jargon>',
        'It was', 'The whale', 'word: courage\ntype:', 'word: lighthouse\ntype:', 'John 3:16', 'Genesis 1:1']


def load_float(path, device):
    model = Llada(Config()).to(device)
    model.load_state_dict({k: v.float() for k, v in torch.load(path, map_location=device).items()})
    return model.eval()


# ---- exact match --------------------------------------------------------------------------

def task_scores(model, tokenizer, questions, gen_length=48):
    """Exact match of unseen questions: as task lines and as chat, in several ways of decoding."""
    ways = {'steps = length': {'steps': gen_length}, 'steps = length/2': {'steps': gen_length // 2},
            'threshold 0.9': ONE_BLOCK, 'blocks of 8, threshold 0.9': SERVED}
    table = {}
    for task in tasks.NAMED:
        pairs = list(tasks.samples(task, 2, 5000, questions))
        row = table[task] = {}
        for name, how in ways.items():
            got, passes = answers(model, tokenizer, ['%s: %s =' % (task, q) for q, _ in pairs], gen_length, **how)
            right = sum(tasks.check(task, q, a.strip()) for (q, _), a in zip(pairs, got))
            row[name] = round(100 * right / len(pairs), 1)
            row['passes, ' + name] = round(passes, 1)
        row['chat'] = chat_score(model, tokenizer, task, pairs)
    return table


def chat_score(model, tokenizer, task, pairs):
    g = Rng(77)
    turns = [dialogues.task_dialogue(task, q, a, g) for q, a in pairs]
    got, _ = answers(model, tokenizer, [CHAT % q for q, _ in turns], 48, **ONE_BLOCK)
    right = sum(text == wanted or tasks.check(task, q, text)
                for (q, _), (_, wanted), text in zip(pairs, turns, got))
    return round(100 * right / len(pairs), 1)


def exact(model, tokenizer, pairs, gen_length, how):
    got, _ = answers(model, tokenizer, [CHAT % q for q, _ in pairs], gen_length, **how)
    return round(100 * sum(a == b for a, (_, b) in zip(got, pairs)) / len(pairs), 1)


def dictionary_scores(model, tokenizer, pack, common, questions):
    """Both ways, on words met in training (recall) and on cards never seen."""
    out, g = {}, Rng(5)
    for name, side, least in (('known words, met 10 times or more', 0, 10), ('known words, met 1-9 times', 0, 1),
                              ('unseen cards', 1, 0)):
        words = [(w, records.card_fields(r['t'])) for r in pack if r['s'] == 'wn-cards' and r['v'] == side
                 for w, n in records.first_sense_words(r, common) if least <= n < (1e9 if least != 1 else 10)]
        words = [g.choice(words) for _ in range(questions)]
        define = [('What does %s mean?' % w, '%s (%s): %s.' % (w, f['type'], f['meaning'])) for w, f in words]
        find = [('Which word means: %s?' % f['meaning'], w) for w, f in words]
        for way, how in (('one block', ONE_BLOCK), ('blocks of 8', SERVED)):
            out['%s, %s' % (name, way)] = {'word to meaning': exact(model, tokenizer, define, 64, how),
                                           'meaning to word': exact(model, tokenizer, find, 24, how)}
    return out


def edits(a, b):
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        last, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (x != y))
    return row[-1]


def sound_scores(model, tokenizer, pack, questions):
    """Held-out words of the pronouncing dictionary, with and without stress marks."""
    words = [r['t'].split(' / ') for r in pack if r['s'] == 'cmudict' and r['v']]
    words = words[::max(1, len(words) // questions)][:questions]
    got, _ = answers(model, tokenizer, ['<sound>%s /' % w for w, _ in words], 32, **ONE_BLOCK)
    strip = lambda s: [p.rstrip('012') for p in s.split()]
    wrong = sum(edits(strip(a), strip(b)) for a, (_, b) in zip(got, words))
    return {'words right': round(100 * sum(a.strip() == b for a, (_, b) in zip(got, words)) / len(words), 1),
            'words right but for stress': round(
                100 * sum(strip(a) == strip(b) for a, (_, b) in zip(got, words)) / len(words), 1),
            'phoneme error rate': round(100 * wrong / sum(len(strip(b)) for _, b in words), 1)}


def verse_scores(model, tokenizer, pack, questions):
    verses = [records.verse_sample(r).segments for r in pack if r['s'] == 'kjv' and not r['v']]
    known = [v for v in verses if v[0] in records.WELL_KNOWN_VERSES]
    others = verses[::len(verses) // questions][:questions]
    out = {}
    for name, some in (('well-known verses', known), ('other verses', others)):
        pairs = [('Recite %s.' % reference, text.strip()) for reference, text in some]
        out[name + ', recited word for word'] = exact(model, tokenizer, pairs, 96, ONE_BLOCK)
    return out


@torch.no_grad()
def blanks_score(model, side, share=0.3):
    """Tokens filled in right, all at once, when a share of an unseen text is blank."""
    generator, out = torch.Generator(device=side.device).manual_seed(3), {}
    for name in ('wn-cards', 'wn-sentences', 'kjv', 'austen', 'moby', 'sotu'):
        right = asked = 0
        for ids, count, tagged in canvases(side, records.GROUPS.index(name), 400):
            place = torch.arange(ids.shape[1], device=ids.device)[None]
            blank = (torch.rand(ids.shape, generator=generator, device=ids.device) < share) \
                & (place < count[:, None]) & (place >= 1)
            best = model(torch.where(blank, torch.full_like(ids, MASK), ids)).argmax(-1)
            right, asked = right + ((best == ids) & blank).sum().item(), asked + blank.sum().item()
        out[name] = round(100 * right / asked, 1)
    return out


# ---- samples ------------------------------------------------------------------------------

FREE_WAYS = {'one block, threshold 0.9': ONE_BLOCK, 'blocks of 8, threshold 0.9': SERVED,
             'blocks of 8, temperature 0.7, one place a pass': {'temperature': 0.7, 'steps': 64, 'block': 8}}


def show(model, tokenizer, device):
    """Texts as they come, nothing picked."""
    generator = torch.Generator(device=device).manual_seed(1)
    questions = [CHAT % q for q in CHATS]
    out = {'infill': [[pieces, infill(model, tokenizer, pieces, threshold=0.9)] for pieces in INFILLS],
           'chat': list(zip(CHATS, answers(model, tokenizer, questions, 64, **SERVED)[0])),
           'chat, 256 places': list(zip(CHATS, answers(model, tokenizer, questions, 256, **SERVED)[0])),
           'long canvas': answers(model, tokenizer, ['<austen>It was'], 500, **SERVED)[0]}
    for name, how in FREE_WAYS.items():
        texts, _ = answers(model, tokenizer, FREE, 64, generator=generator, **how)
        out['free: ' + name] = list(zip(FREE, texts))
    return out


def main():
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('model_dir')
    p.add_argument('pack')
    p.add_argument('--data', required=True)
    p.add_argument('--float')
    p.add_argument('--out', default='results.json')
    p.add_argument('--questions', type=int, default=300)
    p.add_argument('--parts', default='samples,tasks,dictionary,sound,verses,blanks,loss')
    args = p.parse_args()
    device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    tokenizer = Tokenizer.from_file(os.path.join(args.model_dir, 'tokenizer.json'))
    model = load_model(args.model_dir, device)
    pack = list(read_pack(args.pack))
    common = records.common_words([r for r in pack if not r['v']])
    began = time.time()

    def report(name, value):
        record(args.out, name, value)
        print('%5.0f s  %s: %s' % (time.time() - began, name, json.dumps(value, ensure_ascii=False)), flush=True)

    parts, n = args.parts.split(','), args.questions
    makers = {'samples': lambda: show(model, tokenizer, device),
              'tasks': lambda: task_scores(model, tokenizer, n),
              'dictionary': lambda: dictionary_scores(model, tokenizer, pack, common, n),
              'sound': lambda: sound_scores(model, tokenizer, pack, n),
              'verses': lambda: verse_scores(model, tokenizer, pack, n)}
    for name in makers:
        if name in parts:
            report(name, makers[name]())
    train, val = (batches.Side(args.data, s, device) for s in ('train', 'val'))
    if 'blanks' in parts:
        report('blanks', blanks_score(model, val))
    if 'loss' in parts:
        report('loss unigram', unigram(train, val))
        report('loss masked', losses(masked_sums, model, val))
        if args.float:
            report('loss masked, not quantised', losses(masked_sums, load_float(args.float, device), val))


if __name__ == '__main__':
    main()
