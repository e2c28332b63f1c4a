"""Small things every program here shares: the split hash, the random stream, file readers."""
import json
import lzma
import os

MASK64 = 0xFFFFFFFFFFFFFFFF
TAGS = ('card', 'sentence', 'verse', 'austen', 'moby', 'speech', 'devil', 'jargon', 'element',
        'sound', 'task')
SPECIALS = (['<|endoftext|>', '<|mask|>', '<|im_start|>', '<|im_end|>']
            + ['<%s>' % tag for tag in TAGS])
EOS, MASK, IM_START, IM_END = 0, 1, 2, 3
VOCAB = 8192


def fnv1a64(data):
    h = 0xCBF29CE484222325
    for c in data:
        h = ((h ^ c) * 0x100000001B3) & MASK64
    return h


def held_out(source, ident, parts=50):
    """The split rule of every corpus: one record in `parts` is kept for validation."""
    return int((fnv1a64(('%s\0%s' % (source, ident)).encode()) >> 32) % parts == 0)


class Rng:
    """splitmix64: a stream that is cheap to start anywhere and easy to port."""

    def __init__(self, seed):
        self.state = seed & MASK64

    def u64(self):
        self.state = (self.state + 0x9E3779B97F4A7C15) & MASK64
        z = self.state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK64
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK64
        return z ^ (z >> 31)

    def below(self, n):
        return (self.u64() >> 33) % n

    def choice(self, items):
        return items[self.below(len(items))]


def read_pack(path):
    """Yield the records of a .jsonl.xz pack."""
    with lzma.open(path, 'rt', encoding='utf-8') as f:
        for line in f:
            yield json.loads(line)


def record(path, name, value):
    """Put one result into a .json file of results, which may not be there yet."""
    results = {}
    if os.path.exists(path):
        with open(path, encoding='utf-8') as f:
            results = json.load(f)
    results[name] = value
    with open(path + '.tmp', 'w', encoding='utf-8') as f:
        json.dump(results, f, indent=1, ensure_ascii=False)
        f.write('\n')
    os.replace(path + '.tmp', path)
