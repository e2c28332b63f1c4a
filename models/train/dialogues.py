"""Short dialogues in ChatML, made from the corpora and the tasks, with several phrasings each.

Questions come from the training side of every corpus only.  What the model cannot know it is
taught to say so.
"""
import bisect
import itertools
import re

import tasks
from common import Rng
from records import Sample, WELL_KNOWN_VERSES, card_fields, first_sense_words, word_boost

ABOUT = 'I am tutti-text, a very small masked-diffusion language model, made to show what the Tutti server does.'
ABLE = ('I can define words, find the word for a meaning, recite verses of the King James Bible, '
        'write numbers in words or Roman numerals, add and subtract, name weekdays, write cron '
        'lines and JSON, and fill blanks in short texts.')
UNKNOWN = 'I do not know. I am a very small model: try a definition, a verse, a sum or a date.'
SMALL_TALK = [
    (('Hello', 'Hi', 'Hey', 'Hi there', 'Hello there', 'Hello!', 'Hi!', 'Good morning',
      'Good evening', 'Greetings', 'hello', 'hi', 'hey there', 'Good day'),
     ('Hello! Ask me for a definition, a verse, a sum or a date.',)),
    (('Who are you?', 'What are you?', 'What is your name?', 'Which model are you?', 'who are you',
      'Tell me about yourself.', 'Introduce yourself.', 'Are you human?', 'Are you a robot?',
      'What model is this?', 'Who made you?', 'Are you ChatGPT?', 'Are you an AI?'), (ABOUT,)),
    (('What can you do?', 'Help', 'help', 'Help me', 'What are you good at?', 'How can you help me?',
      'What should I ask you?', 'What do you know?', 'What can I ask?'), (ABLE,)),
    (('What is Tutti?', 'Tell me about Tutti.', 'What does Tutti do?', 'Explain Tutti.'),
     ('Tutti is a server for models that write all places of a text or an image at once and '
      'refine them, instead of one token after the other.',)),
    (('What is a masked-diffusion model?', 'How do you work?', 'How do you write?',
      'What is diffusion?', 'How are you different from other language models?'),
     ('I start from a row of blanks and fill in the ones I am most certain of first, several at a '
      'time, until none is left.',)),
    (('Thanks', 'Thank you', 'Thank you!', 'Thanks a lot', 'Great, thanks', 'thanks!', 'Cheers'),
     ('You are welcome.',)),
    (('Bye', 'Goodbye', 'See you', 'Good night', 'bye!', 'Farewell'), ('Goodbye!',)),
    (('How are you?', 'How are you doing?', 'How is it going?', 'Are you well?', "What's up?"),
     ('I am well, thank you. What shall I look up for you?',)),
    (('How large are you?', 'How many parameters do you have?', 'How big are you?'),
     ('I have about 13 million parameters.',)),
    (('What were you trained on?', 'Where does your knowledge come from?', 'What is your training data?'),
     ('WordNet, the King James Bible, novels of Jane Austen, Moby-Dick, old speeches, the Jargon '
      'File, a pronouncing dictionary and generated tasks.',)),
    (('Who won the match yesterday?', 'What is the weather today?', 'What time is it?',
      'Who is the president now?', 'What happened in the news?', 'Write a program in Python.',
      'Translate this into French.', 'What is the best phone?', 'Solve this equation for me.',
      'Who will win the election?', 'Book me a flight.', 'What is the price of gold?',
      'Summarise this article.', 'Who invented the telephone?', 'How do I cook rice?',
      'What is the population of Norway?', 'Write an essay about history.', 'Plan my holiday.',
      'What should I eat tonight?', 'How tall is Mount Everest?', 'Can you draw a picture?',
      'Explain quantum mechanics.', 'What is the meaning of life?', 'Do my homework.'), (UNKNOWN,)),
]
SYSTEM = ('You are a helpful assistant.', 'You are Tutti.', 'Answer briefly.', 'Be concise.',
          'You are a dictionary.', 'Answer the question.', 'You are a helpful, honest assistant.')
DEFINE = ('What does {} mean?', 'What does "{}" mean?', 'Define {}.', 'Define {}', 'define {}',
          'What is the meaning of {}?', 'Define the word {}.', 'What does the word {} mean?',
          'Give me a definition of {}.', 'Meaning of {}?', 'Explain the word {}.',
          'what does {} mean?')
NOUN_DEFINE = ('What is {}?', 'What is a {}?', 'What is a {}?', 'what is a {}')
FIND_WORD = ('Which word means: {}?', 'Which word means "{}"?', 'What is the word for: {}?',
             'What is the word for "{}"?', 'Find the word: {}', 'What do you call this: {}?')
SYNONYM = ('Give me a synonym of {}.', 'What is another word for {}?', 'Another word for {}?',
           'What is a synonym for {}?')
OPPOSITE = ('What is the opposite of {}?', 'Opposite of {}?', 'Give me the opposite of {}.')
KIND = ('What kind of thing is {}?', 'What is {} a kind of?')
USE = ('Use {} in a sentence.', 'Use the word {} in a sentence.', 'Give me an example sentence with {}.',
       'Write a sentence with the word {}.')
VERSE = ('Recite {}.', 'Quote {}.', 'What does {} say?', 'What is {}?', 'Read me {}.', '{}',
         'Give me the text of {}.', 'What is written in {}?')
WHERE = ('Where in the Bible is this: {}', 'Which verse is this? {}', 'Where is it written: {}')
SOUND = ('How do you pronounce {}?', 'How is {} pronounced?', 'Pronounce {}.', 'What does {} sound like?',
         'Give me the pronunciation of {}.')
SPELL = ('Which word sounds like {}?', 'Which word is pronounced {}?')
ELEMENT = ((('What is the chemical symbol of {name}?', 'What is the symbol for {name}?',
             'Chemical symbol of {name}?'), '{symbol}'),
           (('What is the atomic number of {name}?', 'Atomic number of {name}?'), '{number}'),
           (('What is the atomic weight of {name}?',), '{weight}'),
           (('Which element has the symbol {symbol}?', 'What element is {symbol}?'), '{name}'),
           (('Which element has atomic number {number}?', 'What is element {number}?'), '{name}'),
           (('Tell me about {name}.', 'Describe the element {name}.'), '{notes}'))
DEVIL = ("How does the Devil's Dictionary define {}?", 'Define {} cynically.', "Devil's Dictionary: {}",
         'Give me a cynical definition of {}.')
JARGON = ('What does {} mean to hackers?', 'What does {} mean in hacker slang?', 'Explain the hacker term {}.',
          'Jargon File: {}', 'What is {} in hacker slang?')
SENTENCE = ('Write a sentence.', 'Write a short sentence.', 'Give me a sentence.', 'Say something.',
            'Tell me something.')
STYLES = {'austen': ('Write like Jane Austen.', 'Write a sentence in the style of Jane Austen.',
                     'Give me some prose in the style of Jane Austen.'),
          'moby': ('Write like Herman Melville.', 'Write a sentence in the style of Moby-Dick.',
                   'Tell me about the sea and the whale.'),
          'sotu': ('Write a sentence of a speech.', 'Give a speech.', 'Write like a president.')}
CONTINUE = ('Continue: {}', 'Continue this text: {}', 'Go on: {}', 'Complete the sentence: {}')

SUM = ('What is {0} + {1}?', 'Add {0} and {1}.', '{0}+{1}', '{0} + {1} =', 'What is {0}+{1}?',
       'What is {0} plus {1}?', 'Calculate {0}+{1}.', 'How much is {0} + {1}?')
DIFFERENCE = ('What is {0} - {1}?', 'Subtract {1} from {0}.', '{0}-{1}', '{0} - {1} =',
              'What is {0}-{1}?', 'What is {0} minus {1}?', 'Calculate {0}-{1}.')
PRODUCT = ('What is {0} * {1}?', 'Multiply {0} by {1}.', '{0}*{1}', '{0} * {1} =', 'What is {0}*{1}?',
           'What is {0} times {1}?', 'Calculate {0}*{1}.')
PHRASES = {
    'numwords': ('Write {} in words.', 'Spell out {}.', 'Write the number {} in words.',
                 'How do you write {} in words?', 'What is {} in words?'),
    'roman': ('What is {} in Roman numerals?', 'Write {} in Roman numerals.',
              'Write {} as a Roman numeral.', 'Convert {} to Roman numerals.', '{} in Roman numerals'),
    'date': ('What day was {}?', 'What day is {}?', 'Write the date {} in full.',
             'Which day of the week is {}?', 'On what weekday does {} fall?'),
    'cron': ('Give me a cron line for {}.', 'Write a cron line for {}.', 'cron line: {}',
             'What is the cron expression for {}?', 'Crontab entry for {}, please.'),
    'json': ('Turn this into JSON: {}.', 'Turn this into JSON: {}', 'Convert to JSON: {}.',
             'Make JSON from this: {}.', 'Extract JSON: {}', 'As JSON: {}.'),
    'sort': ('Sort these numbers: {}', 'Sort: {}', 'Put these numbers in order: {}', 'Sort {}'),
    'reverse': ('Reverse these letters: {}', 'Reverse: {}', 'Write backwards: {}'),
    'count': ('{}', 'With numbers: {}', 'Countdown: {}'),
    'unit': ('How much is {}?', 'Convert {}.', 'What is {}?', '{}'),
}
FROM_ROMAN = ('What number is {}?', 'What is the Roman numeral {} as a number?', 'Convert {} to a number.')
TASK_SHARE = {'add': 5, 'sub': 5, 'mul': 3, 'numwords': 5, 'roman': 5, 'date': 5, 'cron': 4, 'json': 4,
              'sort': 2, 'reverse': 1, 'count': 1, 'unit': 3}


class Weighted:
    """Draw items in proportion to their weights."""

    def __init__(self, pairs):
        self.items = [item for item, _ in pairs]
        self.sums = list(itertools.accumulate(weight for _, weight in pairs))

    def draw(self, g):
        return self.items[bisect.bisect(self.sums, (g.u64() >> 11) / 2 ** 53 * self.sums[-1])]


def sentences(text, low, high):
    """The first sentences of a text, low..high characters, or None."""
    for end in re.finditer(r'[.!?]["\u201d\u2019]?(?=\s|$)', text):
        if end.end() >= low:
            return text[:end.end()] if end.end() <= high else None
    return None


def task_dialogue(task, question, answer, g):
    if task == 'roman' and g.below(3) == 0:
        return g.choice(FROM_ROMAN).format(answer), question
    if task in PHRASES:
        phrase = g.choice(PHRASES[task])
        if phrase.startswith('Convert {}.'):
            question = question.replace(' in ', ' to ')
        return phrase.format(question), answer
    op, phrases = {'add': ('+', SUM), 'sub': ('-', DIFFERENCE), 'mul': ('*', PRODUCT)}[task]
    return g.choice(phrases).format(*question.split(op)), answer


class Book:
    """Everything dialogues are made from, indexed for drawing."""

    def __init__(self, records, common):
        train = [r for r in records if not r['v']]
        of = lambda source: [r['t'] for r in train if r['s'] == source]
        self.words = [(word, card_fields(r['t']), times) for r in train if r['s'] == 'wn-cards'
                      for word, times in first_sense_words(r, common)]
        pick = lambda field: Weighted([((w, f), word_boost(n)) for w, f, n in self.words
                                       if n and field in f])
        self.defined = Weighted([((w, f), word_boost(n) if n else 0.15) for w, f, n in self.words])
        self.kinds, self.also = pick('kind of'), pick('also')
        self.opposite = pick('opposite')
        self.example = Weighted([((w, f), word_boost(n)) for w, f, n in self.words
                                 if n and w in f.get('example', '')])
        verses = [re.match(r'((?:\d )?[A-Za-z ]+ \d+:\d+) (.*)', t).groups() for t in of('kjv')]
        self.verses = Weighted([(v, 60 if v[0] in WELL_KNOWN_VERSES else 1) for v in verses])
        self.sounds = [t.split(' / ') for t in of('cmudict')]
        self.elements = [dict(f, name=f['element']) for f in map(card_fields, of('elements'))]
        self.devil = [t for t in of('devil') if len(t) < 500]
        self.jargon = [t.split('\n') for t in of('jargon')]
        self.lines = of('wn-sentences')
        self.prose = {s: [x for x in (sentences(t, 40, 320) for t in of(s)) if x] for s in STYLES}
        self.makers = Weighted([(self.define, 30), (self.find_word, 10), (self.relation, 7),
                                (self.use, 5), (self.verse, 10), (self.where, 2), (self.sound, 5),
                                (self.spell, 1), (self.element, 4), (self.devils, 2), (self.hackers, 3),
                                (self.style, 4), (self.go_on, 3), (self.talk, 3)])

    def define(self, g):
        word, f = self.defined.draw(g)
        phrases = NOUN_DEFINE if f['type'] == 'noun' and g.below(3) == 0 else DEFINE
        question = g.choice(phrases).format(word)
        return question, '%s (%s): %s.' % (word, f['type'], f['meaning'])

    def find_word(self, g):
        word, f = self.defined.draw(g)
        return g.choice(FIND_WORD).format(f['meaning']), word

    def relation(self, g):
        kind = g.below(3)
        if kind == 0:
            word, f = self.also.draw(g)
            others = [w for w in [f['word']] + f['also'].split(', ') if w != word]
            return g.choice(SYNONYM).format(word), g.choice(others)
        if kind == 1:
            word, f = self.opposite.draw(g)
            return g.choice(OPPOSITE).format(word), f['opposite']
        word, f = self.kinds.draw(g)
        return g.choice(KIND).format(word), f['kind of'].split(', ')[0]

    def use(self, g):
        word, f = self.example.draw(g)
        text = f['example']
        text = text[0].upper() + text[1:]
        return g.choice(USE).format(word), text if text[-1] in '.!?' else text + '.'

    def verse(self, g):
        reference, text = self.verses.draw(g)
        return g.choice(VERSE).format(reference), text

    def where(self, g):
        reference, text = self.verses.draw(g)
        return g.choice(WHERE).format(text), reference

    def sound(self, g):
        word, sound = g.choice(self.sounds)
        return g.choice(SOUND).format(word), sound

    def spell(self, g):
        word, sound = g.choice(self.sounds)
        return g.choice(SPELL).format(sound), word

    def element(self, g):
        phrases, answer = g.choice(ELEMENT)
        f = g.choice(self.elements)
        return g.choice(phrases).format(**f), answer.format(**f)

    def devils(self, g):
        text = g.choice(self.devil)
        return g.choice(DEVIL).format(text.split(',')[0].lower()), text

    def hackers(self, g):
        entry = g.choice(self.jargon)
        body = max(entry[1:3], key=len)
        return g.choice(JARGON).format(entry[0]), sentences(body, 30, 500) or body[:300]

    def style(self, g):
        if g.below(4) == 0:
            return g.choice(SENTENCE), g.choice(self.lines)
        source = g.choice(sorted(STYLES))
        return g.choice(STYLES[source]), g.choice(self.prose[source])

    def go_on(self, g):
        text = g.choice(self.prose[g.choice(sorted(STYLES))] if g.below(2) else self.lines)
        spaces = [i for i, c in enumerate(text) if c == ' '][1:]
        at = g.choice(spaces) if spaces else len(text) // 2
        return g.choice(CONTINUE).format(text[:at]), text[at:].strip()

    def talk(self, g):
        questions, answers = g.choice(SMALL_TALK)
        return g.choice(questions), g.choice(answers)

    def turn(self, g):
        return self.makers.draw(g)(g)


def chat_sample(group, turns, system):
    """One segment for everything up to the last answer, one for that answer."""
    text = '<|im_start|>system\n%s<|im_end|>\n' % system if system else ''
    for question, answer in turns:
        text += '<|im_start|>user\n%s<|im_end|>\n<|im_start|>assistant\n%s<|im_end|>\n' % (question, answer)
    answer = turns[-1][1] + '<|im_end|>'
    prompt = text[:-len(answer) - 1]
    return Sample(group, None, [prompt, answer], ((1, 2), (1, 2)), 1)


def chat_samples(book, seed, n):
    """Dialogues from the book and from the tasks; some have a system line or two turns."""
    g = Rng(seed)
    task_draw = Weighted(sorted(TASK_SHARE.items()))
    streams = {}

    def task_turn():
        task = task_draw.draw(g)
        if task not in streams:
            streams[task] = tasks.samples(task, 1, (1 << 24) + (seed << 16), 1 << 20)
        return task_dialogue(task, *next(streams[task]), g)

    for _ in range(n):
        is_task = g.below(100) < 42
        turn = task_turn if is_task else lambda: book.turn(g)
        turns = [turn()] if g.below(8) else [turn(), turn()]
        system = g.choice(SYSTEM) if g.below(10) == 0 else ''
        yield chat_sample('chat-task' if is_task else 'chat-book', turns, system)
