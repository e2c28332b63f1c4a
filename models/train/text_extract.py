#!/usr/bin/python3
"""Turn the source packages into one pack of short records.

usage: text_extract.py SOURCES PACK.jsonl.xz       (SOURCES as fetch_sources.sh leaves it)

A record is one JSON object a line: `s` corpus, `v` 1 when it belongs to the validation split,
`t` text.  Dictionary cards also carry `w`: the words for which this card is the first sense,
each with the number of times WordNet's authors met it in their tagged texts (0 = never), which
is how "common words" are told from rare ones.
"""
import argparse
import glob
import gzip
import json
import lzma
import os
import re

import rds_read
from common import held_out

POS = {'n': 'noun', 'v': 'verb', 'a': 'adjective', 's': 'adjective', 'r': 'adverb'}
PARTS = (('noun', 'n'), ('verb', 'v'), ('adj', 'a'), ('adv', 'r'))
KJV_BOOKS = [name.replace('-', ' ') for name in (
    'Genesis Exodus Leviticus Numbers Deuteronomy Joshua Judges Ruth 1-Samuel 2-Samuel 1-Kings '
    '2-Kings 1-Chronicles 2-Chronicles Ezra Nehemiah Esther Job Psalms Proverbs Ecclesiastes '
    'Song-of-Solomon Isaiah Jeremiah Lamentations Ezekiel Daniel Hosea Joel Amos Obadiah Jonah '
    'Micah Nahum Habakkuk Zephaniah Haggai Zechariah Malachi Matthew Mark Luke John Acts Romans '
    '1-Corinthians 2-Corinthians Galatians Ephesians Philippians Colossians 1-Thessalonians '
    '2-Thessalonians 1-Timothy 2-Timothy Titus Philemon Hebrews James 1-Peter 2-Peter 1-John '
    '2-John 3-John Jude Revelation').split()]


def flat(text):
    return re.sub(r'\s+', ' ', text).strip()


# ---- WordNet ------------------------------------------------------------------------------

def read_synsets(folder):
    """{key: (words, type letter, definition, examples, pointers)} from the data files."""
    synsets = {}
    for part, _ in PARTS:
        for line in open(os.path.join(folder, 'data.' + part), encoding='utf-8', errors='replace'):
            if line.startswith('  '):
                continue
            head, gloss = line.rstrip('\n').split(' | ', 1)
            f = head.split(' ')
            letter, n_words = f[2], int(f[3], 16)
            words = [re.sub(r'\((?:a|p|ip)\)$', '', w).replace('_', ' ')
                     for w in f[4:4 + 2 * n_words:2]]
            p = 4 + 2 * n_words
            pointers = [(f[p + 1 + 4 * i], f[p + 3 + 4 * i].replace('s', 'a') + f[p + 2 + 4 * i])
                        for i in range(int(f[p]))]
            definition = re.sub(r';\s*$', '', gloss.split('; "')[0].strip())
            if definition.startswith('"'):
                definition = ''
            examples = [flat(e) for e in re.findall(r'"([^"]+)"', gloss)]
            key = ('a' if letter == 's' else letter) + f[0]
            synsets[key] = (words, letter, flat(definition), examples, pointers)
    return synsets


def read_counts(folder):
    """{(lemma, part letter): times its first sense was met}; adjectives count both kinds."""
    counts = {}
    for line in open(os.path.join(folder, 'cntlist.rev'), encoding='utf-8', errors='replace'):
        sense, number, times = line.split()
        lemma, rest = sense.split('%', 1)
        if number == '1':
            counts[lemma, ' nvara'[int(rest[0])]] = int(times)
    return counts


def first_senses(folder):
    """{synset key: {lemma: count}} for the synset that is each lemma's most used sense."""
    counts, best = read_counts(folder), {}
    for part, letter in PARTS:
        for line in open(os.path.join(folder, 'index.' + part), encoding='utf-8', errors='replace'):
            if line.startswith('  '):
                continue
            f = line.split()
            lemma, first = f[0], f[6 + int(f[3])]
            seen = counts.get((lemma, letter), 0)
            if lemma not in best or seen > best[lemma][0]:
                best[lemma] = (seen, letter + first)
    first = {}
    for lemma, (seen, key) in best.items():
        first.setdefault(key, {})[lemma] = seen
    return first


def card(synsets, key):
    words, letter, definition, examples, pointers = synsets[key]
    kinds = [synsets[t][0][0] for sign, t in pointers if sign in ('@', '@i') and t in synsets]
    opposites = [synsets[t][0][0] for sign, t in pointers if sign == '!' and t in synsets]
    lines = ['word: ' + words[0], 'type: ' + POS[letter], 'meaning: ' + definition]
    if len(words) > 1:
        lines.append('also: ' + ', '.join(words[1:5]))
    if kinds:
        lines.append('kind of: ' + ', '.join(kinds[:2]))
    if opposites:
        lines.append('opposite: ' + opposites[0])
    if examples:
        lines.append('example: ' + examples[0])
    return '\n'.join(lines)


def wn_cards(folder):
    synsets, first = read_synsets(folder), first_senses(folder)
    for key, (words, _, definition, _, _) in synsets.items():
        if definition:
            seen = first.get(key, {})
            own = [[w, seen[w.lower().replace(' ', '_')]] for w in words
                   if w.lower().replace(' ', '_') in seen]
            yield key, card(synsets, key), {'w': own}


def wn_sentences(folder):
    """The quoted examples as sentences; a sentence is on the same side as its card."""
    seen = set()
    for key, (_, _, _, examples, _) in read_synsets(folder).items():
        for text in examples:
            text = text.strip(' ;,')
            if 4 <= len(text.split()) <= 40 and text.lower() not in seen:
                seen.add(text.lower())
                text = text[0].upper() + text[1:]
                yield ('wn-cards', key), text if text[-1] in '.!?' else text + '.', {}


# ---- dictionaries in dictd form -----------------------------------------------------------

def read_dictd(path):
    with gzip.open(path, 'rb') as f:                # .dict.dz is gzip with an extra field
        return f.read().decode('utf-8', 'replace')


def headed_entries(text):
    """Entries whose headwords stand in column 0 above an indented body."""
    heads, body = [], []
    for line in text.split('\n'):
        if not line or line[0].isspace():
            body.append(line)
            continue
        if any(b.strip() for b in body):
            yield heads, '\n'.join(body)
            heads, body = [], []
        heads.append(line.strip())
    if heads and body:
        yield heads, '\n'.join(body)


def jargon(path):
    text = read_dictd(path)
    start = text.find('\nabbrev\n')
    for heads, body in headed_entries(text[start:]):
        paragraphs = [flat(re.sub(r'[{}]', '', p)) for p in re.split(r'\n\s*\n', body)]
        paragraphs = [p for p in paragraphs if len(p) > 12]
        if paragraphs and heads:
            yield heads[-1], heads[-1] + '\n' + '\n'.join(paragraphs), {}


def devil(path):
    """Prose lines are joined, verse lines (indented) kept."""
    starts = r'\n(?=[A-Z][A-Z\- ]+, (?:n|v|adj|adv|x|p|pro|interj|conj|prep)\b)'
    for block in re.split(starts, read_dictd(path)):
        head = re.match(r'([A-Z][A-Z\- ]+), ', block)
        if not head:
            continue
        out, prose = [], []
        for line in block.split('\n') + ['']:
            if line.strip() and not line.startswith('   '):
                prose.append(line)
                continue
            if prose:
                out.append(flat(' '.join(prose)))
                prose = []
            if line.strip():
                out.append(line.strip())
        yield head.group(1), '\n'.join(out), {}


def elements(path):
    entry = (r'\n([a-z]+)\nSymbol: (\S+)\nAtomic number: (\d+)\nAtomic weight: (\S+)\n'
             r'(.*?)(?=\n\n[a-z]+\nSymbol|\Z)')
    for m in re.finditer(entry, read_dictd(path), re.S):
        name, symbol, number, weight, notes = m.groups()
        yield name, 'element: %s\nsymbol: %s\nnumber: %s\nweight: %s\nnotes: %s' % (
            name, symbol, number, weight, flat(notes)), {}


# ---- books --------------------------------------------------------------------------------

def windows(paragraphs, low=240, high=900):
    """Join paragraphs into pieces of low..high characters; cut long ones at sentence ends."""
    sentence_end = r'(?:(?<=[.!?])|(?<=[.!?]["\u201d\u2019]))\s+(?=[A-Z"\u201c])'
    held = ''
    for paragraph in paragraphs:
        long = len(paragraph) > high
        for piece in re.split(sentence_end, paragraph) if long else [paragraph]:
            if held and len(held) + len(piece) > high:
                yield held
                held = ''
            held = (held + (' ' if long else '\n') + piece).strip() if held else piece
        if len(held) >= low:
            yield held
            held = ''
    if len(held) >= 60:
        yield held


def austen(base):
    for name, lines in rds_read.load(base).items():
        text = re.sub(r'_([^_\n]+)_', r'\1', '\n'.join(x or '' for x in lines))
        paragraphs = [flat(p) for p in re.split(r'\n\s*\n', text)]
        paragraphs = [p for p in paragraphs
                      if len(p) > 30 and not re.match(r'^(CHAPTER|Chapter|VOLUME)\b', p)]
        for i, piece in enumerate(windows(paragraphs)):
            yield '%s.%d' % (name, i), piece, {}


def moby(folder):
    files = glob.glob(os.path.join(folder, 'chapter_*.txt'))
    for path in sorted(files, key=lambda p: int(re.findall(r'\d+', os.path.basename(p))[0])):
        text = open(path, encoding='utf-8').read()
        paragraphs = [flat(p) for p in re.split(r'\n\s*\n', text)]
        for i, piece in enumerate(windows(paragraphs[1:])):
            yield '%s.%d' % (os.path.basename(path)[:-4], i), piece, {}


def sotu(folder):
    for path in sorted(glob.glob(os.path.join(folder, '*.txt'))):
        name, i, held = os.path.basename(path)[:-4], 0, ''
        for sentence in re.split(r'(?<=[.!?])\s+(?=[A-Z])', flat(open(path, encoding='utf-8').read())):
            if held and len(held) + len(sentence) > 700:
                yield '%s.%d' % (name, i), held, {}
                held, i = '', i + 1
            held = (held + ' ' + sentence).strip()
        if len(held) > 60:
            yield '%s.%d' % (name, i), held, {}


def kjv(path):
    """Lines are `Ge1:1 In the beginning ...`; books come in order, so the names follow."""
    seen = []
    for line in open(path, encoding='latin-1'):
        m = re.match(r'(\d?\s?[A-Za-z]+)(\d+):(\d+) (.*)', line.rstrip('\n'))
        if not m:
            continue
        if not seen or seen[-1] != m.group(1):
            seen.append(m.group(1))
        reference = '%s %s:%s' % (KJV_BOOKS[len(seen) - 1], m.group(2), m.group(3))
        yield reference, reference + ' ' + m.group(4), {}


def cmudict(path):
    for line in open(path, encoding='latin-1'):
        m = re.match(r"([A-Z][A-Z']+)\s+([A-Z0-2 ]+)$", line.strip())
        if m:
            yield m.group(1), m.group(1).lower() + ' / ' + m.group(2), {}


# ---- the pack -----------------------------------------------------------------------------

def corpora(root):
    deb = lambda *parts: os.path.join(root, 'deb', *parts)
    dictd = lambda name: deb('dict-' + name, 'usr/share/dictd/%s.dict.dz' % name)
    npm = lambda *parts: os.path.join(root, 'npm/datasets', *parts)
    wordnet = deb('wordnet-base/usr/share/wordnet')
    return [('wn-cards', wn_cards(wordnet)), ('wn-sentences', wn_sentences(wordnet)),
            ('kjv', kjv(os.path.join(root, 'kjv.raw'))),
            ('austen', austen(deb('r-cran-janeaustenr/usr/lib/R/site-library/janeaustenr/data/Rdata'))),
            ('moby', moby(npm('moby-dick/data'))), ('sotu', sotu(npm('sotu/data'))),
            ('devil', devil(dictd('devil'))), ('jargon', jargon(dictd('jargon'))),
            ('elements', elements(dictd('elements'))), ('cmudict', cmudict(npm('cmudict/data/dict.txt')))]


def main():
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('sources')
    p.add_argument('pack')
    args = p.parse_args()
    with lzma.open(args.pack, 'wt', encoding='utf-8', preset=6) as out:
        for source, records in corpora(args.sources):
            n = n_bytes = n_held = 0
            for ident, text, extra in records:
                text = text.strip()
                if not text:
                    continue
                key = ident if isinstance(ident, tuple) else (source, ident)
                record = {'s': source, 'v': held_out(*key), 't': text, **extra}
                out.write(json.dumps(record, ensure_ascii=False, separators=(',', ':')) + '\n')
                n, n_bytes, n_held = n + 1, n_bytes + len(text.encode()), n_held + record['v']
            print('%-13s %7d records %9d bytes %6d held out' % (source, n, n_bytes, n_held), flush=True)


if __name__ == '__main__':
    main()
