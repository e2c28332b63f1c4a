#!/usr/bin/python3
"""Generated text tasks whose every answer a program can check.

usage: tasks.py show [TASK [N]] | selftest

A sample is a question and its answer, written as one line `TASK: QUESTION = ANSWER`.  Samples
are addressed by (task, seed, index).  Training uses seed 1 and validation seed 2; where the
question space is small the split is by hash as well (see `held_out_question`), so that no
validation question is ever trained on.
"""
import datetime
import json
import re
import sys

from common import MASK64, Rng, held_out

ONES = ('zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen '
        'fifteen sixteen seventeen eighteen nineteen').split()
TENS = 'x x twenty thirty forty fifty sixty seventy eighty ninety'.split()
DAYS = 'Monday Tuesday Wednesday Thursday Friday Saturday Sunday'.split()
MONTHS = ('January February March April May June July August September October November '
          'December').split()
NAMES = ('Ada Ben Cora Dan Eve Finn Gia Hugo Iris Jon Kira Leo Mia Nils Ona Paul Quin Rosa Sam '
         'Tess Uma Vic Wren Xavi Yara Zeno').split()
CITIES = ('Oslo Rome Lima Cairo Quito Paris Tokyo Delhi Bern Accra Hanoi Riga Perth Turin Lagos '
          'Kyoto').split()
COLOURS = 'red green blue yellow purple orange black white cyan brown'.split()
UNITS = [('km', 'm', 1000), ('m', 'cm', 100), ('kg', 'g', 1000), ('l', 'ml', 1000),
         ('h', 'min', 60), ('min', 's', 60), ('day', 'h', 24), ('m', 'mm', 1000),
         ('t', 'kg', 1000), ('week', 'day', 7)]
ROMAN = ((1000, 'M'), (900, 'CM'), (500, 'D'), (400, 'CD'), (100, 'C'), (90, 'XC'), (50, 'L'),
         (40, 'XL'), (10, 'X'), (9, 'IX'), (5, 'V'), (4, 'IV'), (1, 'I'))


def words(n):
    if n < 20:
        return ONES[n]
    if n < 100:
        return TENS[n // 10] + ('-' + ONES[n % 10] if n % 10 else '')
    if n < 1000:
        return ONES[n // 100] + ' hundred' + (' ' + words(n % 100) if n % 100 else '')
    return words(n // 1000) + ' thousand' + (' ' + words(n % 1000) if n % 1000 else '')


def roman(n):
    out = ''
    for value, letters in ROMAN:
        out, n = out + letters * (n // value), n % value
    return out


def long_date(day):
    return '%s %d %s %d' % (DAYS[day.weekday()], day.day, MONTHS[day.month - 1], day.year)


# ---- generators: random stream -> (question, answer) --------------------------------------

def make_add(g):
    a, b = g.u64() % 10 ** (1 + g.below(6)), g.u64() % 10 ** (1 + g.below(6))
    return '%d+%d' % (a, b), str(a + b)


def make_sub(g):
    digits = 1 + g.below(6)
    a, b = g.u64() % 10 ** digits, g.u64() % 10 ** digits
    return '%d-%d' % (max(a, b), min(a, b)), str(abs(a - b))


def make_mul(g):
    a, b = g.u64() % 10 ** (1 + g.below(3)), g.u64() % 10 ** (1 + g.below(2))
    return '%d*%d' % (a, b), str(a * b)


def make_numwords(g):
    n = g.u64() % 10 ** (1 + g.below(6))
    return str(n), words(n)


def make_roman(g):
    n = 1 + g.below(3999)
    return str(n), roman(n)


def make_date(g):
    day = datetime.date(1900 + g.below(200), 1, 1) + datetime.timedelta(days=g.below(366))
    return day.isoformat(), long_date(day)


def make_sort(g):
    v = [g.below(100) for _ in range(3 + g.below(10))]
    return ' '.join(map(str, v)), ' '.join(map(str, sorted(v)))


def make_reverse(g):
    letters = [chr(97 + g.below(26)) for _ in range(3 + g.below(10))]
    return ' '.join(letters), ' '.join(reversed(letters))


def make_unit(g):
    big, small, factor = g.choice(UNITS)
    n = 1 + g.below(999)
    return '%d %s in %s' % (n, big, small), '%d %s' % (n * factor, small)


def make_cron(g):
    hour, minute, kind = g.below(24), g.below(12) * 5, g.below(5)
    at, clock = '%d %d' % (minute, hour), '%02d:%02d' % (hour, minute)
    if kind == 0:
        return 'every day at ' + clock, at + ' * * *'
    if kind == 1:
        return 'every weekday at ' + clock, at + ' * * 1-5'
    if kind == 2:
        day = g.below(7)
        return 'every %s at %s' % (DAYS[day], clock), '%s * * %d' % (at, (day + 1) % 7)
    if kind == 3:
        day = 1 + g.below(28)
        return 'on day %d of every month at %s' % (day, clock), '%s %d * *' % (at, day)
    n = g.choice((5, 10, 15, 20, 30))
    return 'every %d minutes' % n, '*/%d * * * *' % n


def make_json(g):
    name, age, city, colour = g.choice(NAMES), 1 + g.below(99), g.choice(CITIES), g.choice(COLOURS)
    question = '%s is %d, lives in %s and likes %s' % (name, age, city, colour)
    return question, json.dumps({'name': name, 'age': age, 'city': city, 'colour': colour})


def make_count(g):
    """Three numbers, two operations: any expression that uses each number once counts."""
    numbers = [1 + g.below(25) for _ in range(3)]
    text, value = str(numbers[0]), numbers[0]
    for x in numbers[1:]:
        op = g.choice('+-*')
        if op == '-' and value < x:
            op = '+'
        value = {'+': value + x, '-': value - x, '*': value * x}[op]
        text = '(%s%s%d)' % (text, op, x)
    return 'use %s to make %d' % (' '.join(map(str, sorted(numbers))), value), text[1:-1]


MAKERS = {name[5:]: f for name, f in list(globals().items()) if name.startswith('make_')}
NAMED = sorted(MAKERS)
SMALL = {'roman', 'numwords', 'date', 'cron', 'unit'}


def sample(task, seed, index):
    t = NAMED.index(task)
    return MAKERS[task](Rng(((seed << 40) ^ (t << 32) ^ index) * 0xD1342543DE82EF95 & MASK64))


def held_out_question(task, question):
    return task in SMALL and held_out(task, question)


def samples(task, seed, start, n):
    """n samples from `start` on, on the seed's own side of the split."""
    while n:
        question, answer = sample(task, seed, start)
        start += 1
        if task not in SMALL or held_out_question(task, question) == (seed == 2):
            yield question, answer
            n -= 1


# ---- checkers: (question, answer) -> right or wrong ---------------------------------------

def check_cron(question, answer):
    if question.endswith('minutes'):
        return answer == '*/%s * * * *' % question.split()[1]
    hour, minute = map(int, question.split(' at ')[1].split(':'))
    if question.startswith('on day'):
        fields = '%s * *' % question.split()[2]
    else:
        day = question.split()[1]
        fields = '* * ' + {'day': '*', 'weekday': '1-5'}.get(
            day, str((DAYS.index(day) + 1) % 7 if day in DAYS else ''))
    return answer == '%d %d %s' % (minute, hour, fields)


def check_json(question, answer):
    m = re.match(r'(\w+) is (\d+), lives in (\w+) and likes (\w+)$', question)
    return json.loads(answer) == {'name': m[1], 'age': int(m[2]), 'city': m[3], 'colour': m[4]}


def check_count(question, answer):
    numbers, goal = re.match(r'use ([\d ]+) to make (\d+)$', question).groups()
    used = sorted(map(int, re.findall(r'\d+', answer)))
    if not re.match(r'^[\d+\-*()]{5,40}$', answer) or used != sorted(map(int, numbers.split())):
        return False
    return eval(answer, {'__builtins__': {}}) == int(goal)


def check_unit(question, answer):
    n, big, _, small = question.split()
    return any((big, small) == (x, y) and answer == '%d %s' % (int(n) * f, y) for x, y, f in UNITS)


def arithmetic(op):
    def check(question, answer):
        a, b = map(int, question.split(op))
        return answer == str({'+': a + b, '-': a - b, '*': a * b}[op])
    return check


CHECKS = {
    'add': arithmetic('+'), 'sub': arithmetic('-'), 'mul': arithmetic('*'),
    'numwords': lambda q, a: a == words(int(q)),
    'roman': lambda q, a: a == roman(int(q)),
    'date': lambda q, a: a == long_date(datetime.date.fromisoformat(q)),
    'sort': lambda q, a: a.split() == [str(x) for x in sorted(map(int, q.split()))],
    'reverse': lambda q, a: a == q[::-1],
    'cron': check_cron, 'json': check_json, 'count': check_count, 'unit': check_unit,
}


def check(task, question, answer):
    try:
        return bool(CHECKS[task](question, answer))
    except (ValueError, SyntaxError, KeyError, TypeError, OverflowError):
        return False


def selftest():
    bad = 0
    for task in NAMED:
        for question, answer in samples(task, 1, 0, 400):
            spoilt = answer[:-1] + ('x' if answer[-1] != 'x' else 'y')
            bad += not check(task, question, answer)
            bad += check(task, question, spoilt)
        print('%s: %s = %s' % (task, question, answer))
    print('wrong verdicts:', bad)
    return bad != 0


def main():
    if sys.argv[1:2] == ['selftest']:
        sys.exit(selftest())
    chosen = sys.argv[2:3] or NAMED
    for task in chosen:
        for question, answer in samples(task, 1, 0, int(sys.argv[3]) if sys.argv[3:] else 3):
            print('%s: %s = %s' % (task, question, answer))


if __name__ == '__main__':
    main()
