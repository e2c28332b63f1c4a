"""Captions of the picture set, and a small byte-pair vocabulary in CLIP's form for them.

usage: captions.py PACK >../../tests/bench/captions.json       # of the search experiment

Text is lower-cased and split as CLIP does; the last symbol of a piece carries </w>. The vocabulary
holds the characters of the captions, alone and with </w>, then the merges, then the two ends; any
other character becomes the end token, as in CLIP.
"""
import collections
import json
import os
import re

from common import fnv1a64
from images import NOWHERE

START, END = '<|startoftext|>', '<|endoftext|>'
CONTEXT = 32
PIECES = re.compile(r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[^\W\d_]+|\d|(?:[^\s\w]|_)+",
                    re.IGNORECASE)
SEARCHED = 200                  # captions of the search experiment


def caption(record):
    """As people are told to ask."""
    return '%s, %s style' % (record['name'], record['style'])


def searched(pictures):
    """The captions that searches are judged by: 200 pairs of concept and style that no network here
    was trained on, though on both of them apart. Places in the picture set, in a fixed order."""
    key = lambda i: fnv1a64(('search\0' + caption(pictures.records[i])).encode())
    known = [i for i in pictures.held.tolist() if pictures.labels[i, 0] != NOWHERE]
    return sorted(known, key=key)[:SEARCHED]


def variants(record):
    """[(text, whether the style is said)]: how a picture may be called, the usual ways several times."""
    name, style, tags = record['name'], record['style'], [t for t in record['tags'] if t != record['name']]
    ways = [(caption(record), True)] * 4 + [(name, False)] * 2
    ways += [('%s %s' % (style, name), True), ('an emoji of %s in %s style' % (name, style), True),
             ('%s, %s, %s style' % (name, record['group'], style), True), ('a picture of ' + name, False)]
    both = tags[:2] + [name] * 2
    return ways + [('%s, %s, %s style' % (both[0], both[1], style), True), ('%s, %s' % (name, both[0]), False)]


def characters():
    """Bytes as printable characters, as GPT-2 writes them."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in plain]
    return {b: chr(b) for b in plain} | {b: chr(256 + i) for i, b in enumerate(others)}


class Bpe:
    """ids: token -> number; ranks: pair -> its place among the merges."""

    def __init__(self, merges, symbols):
        self.merges, self.chars = merges, characters()
        tokens = symbols + [s + '</w>' for s in symbols] + [a + b for a, b in merges] + [START, END]
        self.ids = {token: i for i, token in enumerate(dict.fromkeys(tokens))}
        self.ranks = {pair: i for i, pair in enumerate(merges)}
        self.known = {}

    def pieces(self, text):
        return PIECES.findall(' '.join(text.split()).lower())

    def symbols(self, piece):
        letters = [self.chars[b] for b in piece.encode('utf-8')]
        return letters[:-1] + [letters[-1] + '</w>']

    def merged(self, piece):
        if piece not in self.known:
            word = self.symbols(piece)
            while len(word) > 1:
                best = min(zip(word, word[1:]), key=lambda pair: self.ranks.get(pair, len(self.ranks)))
                if best not in self.ranks:
                    break
                word = join(word, best)
            self.known[piece] = word
        return self.known[piece]

    def encode(self, text):
        ids = [self.ids.get(t, self.ids[END]) for piece in self.pieces(text) for t in self.merged(piece)]
        return [self.ids[START]] + ids[:CONTEXT - 2] + [self.ids[END]]

    def save(self, folder):
        with open(os.path.join(folder, 'vocab.json'), 'w', encoding='utf-8') as f:
            json.dump(self.ids, f, ensure_ascii=False)
        with open(os.path.join(folder, 'merges.txt'), 'w', encoding='utf-8') as f:
            f.write('#version: 0.2\n' + ''.join('%s %s\n' % pair for pair in self.merges))


def join(word, pair):
    out, i = [], 0
    while i < len(word):
        whole = word[i:i + 2] == list(pair)
        out.append(pair[0] + pair[1] if whole else word[i])
        i += 1 + whole
    return out


def learn(texts, size):
    """A Bpe of `size` tokens for the texts, every text weighing as often as it is there."""
    blank = Bpe([], [])
    words = collections.Counter(piece for text in texts for piece in blank.pieces(text))
    split = {piece: blank.symbols(piece) for piece in words}
    symbols = sorted({s.removesuffix('</w>') for word in split.values() for s in word})
    merges = []
    while 2 * len(symbols) + len(merges) + 2 < size:
        count = collections.Counter()
        for piece, word in split.items():
            for pair in zip(word, word[1:]):
                count[pair] += words[piece]
        if not count:
            break
        best = max(count, key=lambda pair: (count[pair], pair))
        merges.append(best)
        split = {piece: join(word, best) if best[0] in word else word for piece, word in split.items()}
    return Bpe(merges, symbols)


if __name__ == '__main__':
    import sys
    import torch
    from images import Pictures
    chosen = Pictures(sys.argv[1], torch.device('cpu'))
    print('[' + ',\n '.join(json.dumps(caption(chosen.records[i])) for i in searched(chosen)) + ']')
