"""Task samples drawn by thousands on the GPU, already as tokens, for the small models.

A sample is a row of slots; -1 is an empty slot.  Beside the ids goes what a slot is: 0 question,
1 answer.  Texts are those of tasks.py, `TASK: QUESTION = ANSWER`, and of two more tasks:
    chain: a>c b>a c>d ... ; from a 5 steps = f         follow a permutation of 8 letters
    modsum: 1738 = 1819                                 running sums modulo 10
The tests of the tokens against the text are in selftest().
"""
import re
import string
import sys

import torch

import tasks
from small_tokenizer import EOS

LETTERS = string.ascii_lowercase
CHAIN = 8                        # letters of a chain's permutation
HOPS = 8                         # most of training


class Slots:
    """Builds rows column by column."""

    def __init__(self, words, n):
        self.words, self.n, self.ids, self.kinds = words, n, [], []

    def put(self, ids, answer=0):
        self.ids.append(ids)
        self.kinds.append(torch.full_like(ids, answer))

    def text(self, text, answer=0):
        self.put(self.words.constant(text).expand(self.n, -1), answer)

    def end(self):
        self.put(torch.full((self.n, 1), EOS, device=self.words.device), 1)
        return torch.cat(self.ids, 1), torch.cat(self.kinds, 1)


class Words:
    """Tokens of the pieces that task lines are made of."""

    def __init__(self, encoder, device):
        self.encoder, self.device, self.cache = encoder, device, {}

    def constant(self, text):
        if text not in self.cache:
            self.cache[text] = torch.tensor(self.encoder.encode(text), device=self.device)
        return self.cache[text]

    def table(self, texts):
        """[texts, longest] tokens of each, filled up with -1."""
        texts = tuple(texts)
        if texts not in self.cache:
            rows = [self.encoder.encode(t) for t in texts]
            longest = max(map(len, rows))
            self.cache[texts] = torch.tensor([r + [-1] * (longest - len(r)) for r in rows], device=self.device)
        return self.cache[texts]

    def digit(self, value):
        """Tokens of digits; negative values are empty slots."""
        return torch.where(value < 0, torch.full_like(value, -1),
                           self.table(string.digits)[value.clamp(min=0), 0])

    def number(self, value, places):
        """[n] -> [n, places] digits, empty where zeros would lead; a negative value is empty."""
        tens = 10 ** torch.arange(places - 1, -1, -1, device=self.device)
        digit = value[:, None].clamp(min=0) // tens % 10
        shown = (value[:, None] >= tens) | ((tens == 1) & (value[:, None] == 0))
        return self.digit(torch.where(shown, digit, torch.full_like(digit, -1)))


class Tasks:
    """draw(task, n) -> ids and kinds, [n, slots] each."""

    def __init__(self, encoder, device, seed, hops=(1, HOPS), questions=1):
        self.words, self.device = Words(encoder, device), device
        self.generator = torch.Generator(device=device).manual_seed(seed)
        self.hops, self.questions = hops, questions      # of a chain

    def rand(self, *shape):
        return torch.rand(*shape, generator=self.generator, device=self.device)

    def below(self, bound, *shape):
        """Whole numbers below `bound`, a number or a tensor of shape [shape...]."""
        return (self.rand(*shape).double() * bound).long()

    def draw(self, task, n):
        slots = Slots(self.words, n)
        slots.text(task + ':')
        getattr(self, task)(slots, n)
        return slots.end()

    def sum(self, slots, n, sign, a, b, result, places):
        slots.text(' ')
        slots.put(self.words.number(a, 6))
        slots.text(sign)
        slots.put(self.words.number(b, 6))
        slots.text(' =')
        slots.text(' ', 1)
        slots.put(self.words.number(result, places), 1)

    def add(self, slots, n):
        a, b = (self.below(10.0 ** (1 + self.below(6, n)).double(), n) for _ in range(2))
        self.sum(slots, n, '+', a, b, a + b, 7)

    def sub(self, slots, n):
        bound = 10.0 ** (1 + self.below(6, n)).double()
        a, b = self.below(bound, n), self.below(bound, n)
        a, b = torch.maximum(a, b), torch.minimum(a, b)
        self.sum(slots, n, '-', a, b, a - b, 6)

    def list(self, slots, values, answer=0):
        """Numbers below 100, a blank before each; negative ones are left out."""
        blank = torch.where(values < 0, values, self.words.constant(' '))
        number = torch.stack([self.words.number(v, 2) for v in values.unbind(1)], 1)
        slots.put(torch.cat((blank[:, :, None], number), 2).flatten(1), answer)

    def few(self, n, least, most):
        """[n, most] flags, the first `least` to `most` of a row set."""
        count = least + self.below(most - least + 1, n, 1)
        return torch.arange(most, device=self.device) < count

    def sort(self, slots, n):
        there = self.few(n, 3, 12)
        values = self.below(100, n, 12)
        self.list(slots, values.masked_fill(~there, -1))
        slots.text(' =')
        ordered = values.masked_fill(~there, 1000).sort(1).values
        self.list(slots, torch.where(ordered == 1000, torch.full_like(ordered, -1), ordered), 1)

    def reverse(self, slots, n):
        there = self.few(n, 3, 12)
        table = self.words.table(' ' + c for c in LETTERS)
        letter = self.below(26, n, 12)
        tokens = table[letter].masked_fill(~there[..., None], -1)
        slots.put(tokens.flatten(1))
        slots.text(' =')
        slots.put(tokens.flip(1).flatten(1), 1)

    def modsum(self, slots, n):
        there = self.few(n, 4, 32)
        digit = self.below(10, n, 32)
        slots.text(' ')
        slots.put(self.words.digit(digit.masked_fill(~there, -1)))
        slots.text(' =')
        slots.text(' ', 1)
        slots.put(self.words.digit((digit.cumsum(1) % 10).masked_fill(~there, -1)), 1)

    def chain(self, slots, n):
        to = self.rand(n, CHAIN).argsort(1)
        letters = LETTERS[:CHAIN]
        bare = self.words.table('>' + c for c in letters)
        blank = self.words.table(' ' + c for c in letters)
        for i in range(CHAIN):
            slots.text(' ' + letters[i])
            slots.put(bare[to[:, i]])
        for _ in range(self.questions):
            at = self.below(CHAIN, n)
            least, most = self.hops
            hops = least + self.below(most - least + 1, n)
            slots.text(' ; from')
            slots.put(blank[at])
            slots.text(' ')
            slots.put(self.words.number(hops, 2))
            slots.text(' steps =')
            for hop in range(most):
                at = torch.where(hop < hops, to.gather(1, at[:, None])[:, 0], at)
            slots.put(blank[at], 1)

    def count(self, slots, n):
        """Three numbers, two operations; a minus that would go below zero is a plus."""
        v = [1 + self.below(25, n) for _ in range(3)]
        ops = []
        value = v[0]
        for x in v[1:]:
            op = self.below(3, n)                        # + - *
            op = torch.where((op == 1) & (value < x), torch.zeros_like(op), op)
            value = torch.stack((value + x, value - x, value * x), 1).gather(1, op[:, None])[:, 0]
            ops.append(op)
        slots.text(' use')
        self.list(slots, torch.stack(v, 1).sort(1).values)
        slots.text(' to make ')
        slots.put(self.words.number(value, 5))
        slots.text(' =')
        slots.text(' (', 1)
        slots.put(self.words.number(v[0], 2), 1)
        slots.put(self.words.table('+-*')[ops[0]], 1)
        slots.put(self.words.number(v[1], 2), 1)
        slots.put(self.words.table(')' + c for c in '+-*')[ops[1]], 1)
        slots.put(self.words.number(v[2], 2), 1)


def check(task, question, answer):
    """Whether an answer is right, also for the two tasks that tasks.py does not have."""
    if task == 'modsum':
        sums, total = '', 0
        for c in question:
            total = (total + int(c)) % 10
            sums += str(total)
        return answer == sums
    if task == 'chain':
        pairs, ask = question.rsplit(' ; ', 1)
        to = dict(pair.split('>') for pair in pairs.split(' ; ')[0].split())
        _, at, hops, _ = ask.split()
        for _ in range(int(hops)):
            at = to[at]
        return answer == at
    return tasks.check(task, question, answer)


def parse(line):
    """(task, question, answer) of a line."""
    return re.match(r'([a-z]+): (.*) =(?: (.*))?$', line).groups()


def selftest(tokenizer_path):
    """Lines read back from tokens are right, and encode to the same tokens."""
    import small_tokenizer
    encoder = small_tokenizer.Encoder(small_tokenizer.cut(tokenizer_path))
    source = Tasks(encoder, 'cpu', 1)
    for task in ('add', 'sub', 'sort', 'reverse', 'count', 'modsum', 'chain'):
        ids, kinds = source.draw(task, 2000)
        for row, kind in zip(ids.tolist(), kinds.tolist()):
            row, kind = zip(*[(t, k) for t, k in zip(row, kind) if t >= 0])
            line = encoder.decode(row[:-1])
            ask = encoder.decode([t for t, k in zip(row, kind) if k == 0])
            assert row[-1] == EOS and line.startswith(ask) and ask.endswith(' =')
            assert encoder.encode(line) == list(row[:-1]), (line, row)
            assert check(*parse(line)), line
        print('%s   (%d slots, %d used)' % (line, ids.shape[1], len(row)))


if __name__ == '__main__':
    selftest(sys.argv[1])
