#!/usr/bin/python3
"""Tokenise everything once, into flat arrays that a GPU can draw batches from.

usage: encode.py PACK.jsonl.xz TOKENIZER.json OUT.npz [--tasks N] [--chats N] [--workers N]

OUT holds, for the training and the validation side: `tokens` (all samples end to end), and per
sample `start`, `length`, `tag` (its token id, or -1), `group`, `spans` (two token ranges that
can be asked for) and `boost`.  Group numbers count along records.GROUPS.
"""
import argparse
import itertools
import multiprocessing
import os

import numpy as np

import dialogues
import records
import tasks
from common import SPECIALS, read_pack
from records import GROUPS

LONGEST = 510
CHUNK = 4000
STATE = {}


def init_worker(tokenizer_path, book, common):
    from tokenizers import Tokenizer
    os.environ['TOKENIZERS_PARALLELISM'] = 'false'
    STATE.update(tokenizer=Tokenizer.from_file(tokenizer_path), book=book, common=common)


def produce(job):
    kind, args = job[0], job[1:]
    if kind == 'records':
        return [s for r in args[0] for s in records.record_samples(r, STATE['common'])]
    if kind == 'task':
        return list(records.task_samples(*args))
    return list(dialogues.chat_samples(STATE['book'], *args))


def encode_samples(samples):
    """Arrays of one chunk; spans are token ranges, from segment borders."""
    texts = [segment for s in samples for segment in s.segments]
    ids = [e.ids for e in STATE['tokenizer'].encode_batch(texts, add_special_tokens=False)]
    tokens, rows, at = [], [], 0
    for s in samples:
        parts = ids[at:at + len(s.segments)]
        at += len(s.segments)
        ends = list(itertools.accumulate(map(len, parts), initial=0))
        if ends[-1] > LONGEST:
            continue
        tokens.extend(itertools.chain.from_iterable(parts))
        tag = SPECIALS.index('<%s>' % s.tag) if s.tag else -1
        spans = [ends[i] for span in s.spans for i in span]
        rows.append((ends[-1], tag, GROUPS.index(s.group), *spans, s.boost))
    table = np.array(rows, np.float64)
    return {'tokens': np.array(tokens, np.int16), 'length': table[:, 0].astype(np.int16),
            'tag': table[:, 1].astype(np.int16), 'group': table[:, 2].astype(np.int16),
            'spans': table[:, 3:7].astype(np.int16), 'boost': table[:, 7].astype(np.float32)}


def work(job):
    return job[0], encode_samples(produce(job[1:]))


def jobs(pack, n_tasks, n_chats):
    """Every job: (side, kind, arguments...)."""
    for side in ('train', 'val'):
        chosen = [r for r in pack if r['v'] == (side == 'val')]
        for i in range(0, len(chosen), CHUNK):
            yield side, 'records', chosen[i:i + CHUNK]
    for task in tasks.NAMED:
        yield 'val', 'task', task, 2, 0, 500
        for i in range(0, n_tasks // len(tasks.NAMED), CHUNK):
            yield 'train', 'task', task, 1, i * 2, CHUNK      # small tasks skip held-out indices
    for i in range(n_chats // CHUNK):
        yield 'train', 'chat', i + 1, CHUNK


def collect(chunks):
    arrays = {name: np.concatenate([c[name] for c in chunks]) for name in chunks[0]}
    arrays['start'] = np.cumsum(arrays['length'], dtype=np.int64) - arrays['length']
    return arrays


def main():
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('pack')
    p.add_argument('tokenizer')
    p.add_argument('out')
    p.add_argument('--tasks', type=int, default=2400000, help='task lines, spread over all tasks')
    p.add_argument('--chats', type=int, default=800000, help='dialogues')
    p.add_argument('--workers', type=int, default=os.cpu_count())
    args = p.parse_args()
    pack = list(read_pack(args.pack))
    common = records.common_words([r for r in pack if not r['v']])
    book = dialogues.Book(pack, common)
    chunks = {'train': [], 'val': []}
    with multiprocessing.get_context('fork').Pool(
            args.workers, init_worker, (args.tokenizer, book, common)) as pool:
        for side, chunk in pool.imap(work, jobs(pack, args.tasks, args.chats)):
            chunks[side].append(chunk)
    arrays = {}
    for side in chunks:
        for name, array in collect(chunks[side]).items():
            arrays['%s_%s' % (side, name)] = array
        print('%s: %d samples, %d tokens' % (side, len(arrays[side + '_length']),
                                             len(arrays[side + '_tokens'])), flush=True)
    np.savez(args.out, **arrays)


if __name__ == '__main__':
    main()
