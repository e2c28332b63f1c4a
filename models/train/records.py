"""From packed records and task lines to training samples.

A sample is a text cut into segments that are tokenised one by one, so that the borders at which
people cut prompts and holes are token borders in training too.  `spans` names two ranges of
segments that can be asked for when the rest is given: the answer, and the way back (the word of
a card, the question of a task).  `boost` says how much oftener than its neighbours a sample is
drawn.
"""
import collections
import math
import re
import zlib

import tasks
from common import Rng

Sample = collections.namedtuple('Sample', 'group tag segments spans boost')
SOURCE_TAG = {'wn-cards': 'card', 'wn-sentences': 'sentence', 'kjv': 'verse', 'sotu': 'speech',
              'elements': 'element', 'cmudict': 'sound'}
GROUPS = (['wn-cards', 'wn-sentences', 'kjv', 'austen', 'moby', 'sotu', 'devil', 'jargon', 'elements',
           'cmudict'] + ['task-' + task for task in tasks.NAMED] + ['chat-book', 'chat-task'])
WELL_KNOWN_VERSES = set(re.findall(r'[A-Z][a-z]+ \d+:\d+', '''
    Genesis 1:1 Genesis 1:2 Genesis 1:3 Genesis 1:4 Genesis 1:5 Genesis 1:27 Genesis 1:31
    Genesis 2:7 Genesis 3:19 Genesis 4:9 Exodus 3:14 Exodus 20:3 Exodus 20:12 Exodus 20:13
    Exodus 20:15 Exodus 21:24 Ruth 1:16 Job 1:21 Psalms 8:4 Psalms 19:1 Psalms 22:1 Psalms 23:1
    Psalms 23:2 Psalms 23:3 Psalms 23:4 Psalms 23:5 Psalms 23:6 Psalms 46:10 Psalms 90:4
    Psalms 100:1 Psalms 118:24 Psalms 119:105 Psalms 121:1 Psalms 137:1 Proverbs 1:7 Proverbs 3:5
    Proverbs 15:1 Proverbs 16:18 Proverbs 27:17 Ecclesiastes 1:2 Ecclesiastes 1:9
    Ecclesiastes 3:1 Ecclesiastes 3:2 Ecclesiastes 9:11 Ecclesiastes 11:1 Isaiah 2:4 Isaiah 9:6
    Isaiah 11:6 Isaiah 40:31 Jeremiah 29:11 Ezekiel 37:3 Daniel 5:25 Micah 6:8 Matthew 4:4
    Matthew 5:3 Matthew 5:5 Matthew 5:9 Matthew 5:13 Matthew 5:14 Matthew 5:44 Matthew 6:9
    Matthew 6:11 Matthew 6:21 Matthew 6:24 Matthew 6:28 Matthew 7:1 Matthew 7:7 Matthew 7:12
    Matthew 11:28 Matthew 19:24 Matthew 22:39 Matthew 26:41 Mark 8:36 Mark 12:31 Luke 2:10
    Luke 6:31 Luke 23:34 John 1:1 John 1:5 John 1:14 John 3:16 John 8:7 John 8:32 John 11:35
    John 14:6 John 15:13 Acts 20:35 Romans 3:23 Romans 6:23 Romans 8:28 Romans 8:31 Romans 12:21
    Philippians 4:13 Hebrews 11:1 James 1:19 Revelation 1:8 Revelation 3:20 Revelation 22:21'''))


def word_boost(times):
    """Common words are drawn oftener: 1 for a word never met, 3 for once, 11 for 30 times."""
    return 1 + 2 * math.log2(1 + times)


def common_words(records):
    """Lower-case words met at least 5 times in definitions and examples."""
    seen = collections.Counter()
    for r in records:
        if r['s'] in ('wn-cards', 'wn-sentences'):
            seen.update(re.findall(r'[a-z]+', r['t'].lower()))
    return {w for w, n in seen.items() if n >= 5 and len(w) > 2}


def first_sense_words(record, common):
    """[(word, times)] that the card explains best; words WordNet's texts missed count as met
    once when the dictionary itself uses them."""
    return [(w, max(n, int(w in common))) for w, n in record.get('w', ())]


def card_fields(text):
    return dict(line.split(': ', 1) for line in text.split('\n'))


def card_text(fields, word):
    """The card with another of its words at the head."""
    others = [w for w in [fields['word']] + fields.get('also', '').split(', ') if w and w != word]
    lines = []
    for name, value in {**fields, 'word': word, 'also': ', '.join(others)}.items():
        if value:
            lines.append('%s: %s' % (name, value))
    return '\n'.join(lines)


def cut(text, *marks):
    """Split before each mark in turn (the first occurrence after the last cut)."""
    out = []
    for mark in marks:
        at = text.index(mark, 1)
        out.append(text[:at])
        text = text[at:]
    return out + [text]


def card_sample(text, boost):
    word = card_fields(text)['word']
    head, rest = 'word:', text[len('word: ' + word):]
    kind, meaning = cut(rest, '\nmeaning:')
    segments = [head, ' ' + word, kind + '\nmeaning:', meaning[len('\nmeaning:'):]]
    return Sample('wn-cards', 'card', segments, ((3, 4), (1, 2)), boost)


def card_samples(record, common):
    words = dict(first_sense_words(record, common))
    fields = card_fields(record['t'])
    yield card_sample(record['t'], word_boost(words.get(fields['word'], 0)))
    for word, times in words.items():
        if times and word != fields['word']:
            yield card_sample(card_text(fields, word), word_boost(times))


def verse_sample(record):
    reference = re.match(r'(?:\d )?[A-Za-z ]+ \d+:\d+', record['t']).group(0)
    boost = 40 if reference in WELL_KNOWN_VERSES else 1
    segments = [reference, record['t'][len(reference):]]
    return Sample('kjv', 'verse', segments, ((1, 2), (0, 1)), boost)


def sound_sample(record):
    word, sound = record['t'].split(' / ')
    return Sample('cmudict', 'sound', [word, ' /', ' ' + sound], ((2, 3), (0, 1)), 1)


def entry_sample(record):
    """Devil's dictionary, jargon file, elements: a head line and what is said about it."""
    if record['s'] == 'devil':
        head = re.match(r'[A-Z][A-Z\- ]+, [a-z.]+', record['t']).group(0)
    else:
        head = record['t'].split('\n')[0]
    segments = [head, record['t'][len(head):]]
    return Sample(record['s'], SOURCE_TAG.get(record['s'], record['s']), segments, ((1, 2), (0, 1)), 1)


def prose_sample(record):
    """Cut at a random space; one in seven keeps the space on the left, as some callers do."""
    text = record['t']
    g = Rng(zlib.crc32(text.encode()))
    spaces = [i for i in range(1, len(text) - 1) if text[i] == ' ']
    at = g.choice(spaces) + (g.below(7) == 0) if spaces else len(text)
    segments = [s for s in (text[:at], text[at:]) if s]
    last = len(segments)
    tag = SOURCE_TAG.get(record['s'], record['s'])
    return Sample(record['s'], tag, segments, ((last - 1, last), (0, 1)), 1)


def record_samples(record, common):
    source = record['s']
    if source == 'wn-cards':
        yield from card_samples(record, common)
    elif source == 'kjv':
        yield verse_sample(record)
    elif source == 'cmudict':
        yield sound_sample(record)
    elif source in ('devil', 'jargon', 'elements'):
        yield entry_sample(record)
    else:
        yield prose_sample(record)


def task_sample(task, question, answer, space_left):
    """`TASK: QUESTION = ANSWER`, the space before the answer on either side of the cut."""
    head = '%s:' % task
    if space_left:
        segments = [head, ' ' + question, ' = ', answer]
    else:
        segments = [head, ' ' + question, ' =', ' ' + answer]
    return Sample('task-' + task, 'task', segments, ((3, 4), (1, 2)), 1)


def task_samples(task, seed, start, n):
    g = Rng(start * 1000003 + seed)
    for question, answer in tasks.samples(task, seed, start, n):
        yield task_sample(task, question, answer, g.below(10) < 3)
