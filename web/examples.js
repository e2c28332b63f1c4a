// examples.js - prompts that show what a model does well, by model id. `special`: the <tag> in front,
// which names a kind of text the model was trained on, is one token (models/demo/*/README.md).
// Without a sampler the model's own default is used.

const PUZZLE = ['[[2]]714[[3]]5',
  '[[1]]2[[3]]5[[1]]1[[1]]',
  '[[2]]6[[5]]7',
  '[[4]]1276[[1]]',
  '57[[1]]6[[5]]',
  '[[1]]69[[2]]4[[2]]1',
  '[[1]]8[[2]]3[[3]]2',
  '7[[3]]8[[1]]35[[1]]',
  '[[2]]2[[3]]87[[1]]'].join('\n');
const GRID = Array(9).fill('[[9]]').join('\n');

export const examples = {
  'tutti-text': [
    { name: 'JSON, surest first', prompt: 'json: Ada is 36, lives in Oslo and likes green =', tokens: 32,
      sampler: 'low_confidence', set: { block_length: 32 } },
    { name: 'JSON in few passes', prompt: 'json: Ben is 7, lives in Lima and likes blue =', tokens: 32 },
    { name: 'Roman numerals', prompt: 'roman: 1994 =', tokens: 16 },
    { name: '… and back', prompt: 'roman: [[4]] = MCMXCIV' },
    { name: 'A hole of 1 to 7', prompt: 'roman:[[1-7]] = MCMXCIV' },
    { name: 'One of three', prompt: 'roman: 1994 =[[ MCMXCVI| MCMXCIV| MCMIV]]' },
    { name: 'Missing summand', prompt: 'add: [[3]]+456 = 579' },
    { name: 'Cron line', prompt: 'cron: every weekday at 07:30 =', tokens: 24 },
    { name: 'Number in words', prompt: 'numwords: 4096 =', tokens: 16 },
    { name: 'A verse', prompt: '<verse>Genesis 1:1', tokens: 24, special: true },
    { name: 'Let there be …', prompt: 'And God said, Let there be[[1]]: and there was[[1]].' },
    { name: 'Find the word', special: true,
      prompt: '<card>word:[[1]]\ntype: noun\nmeaning: a large body of water' },
    { name: 'Austen with holes', special: true,
      prompt: '<austen>"My dear[[2]]," said[[3]], "I[[8]]."' },
    { name: 'A verse', prompt: 'What does Genesis 1:1 say?', chat: true },
    { name: 'A sum', prompt: 'What is 17 + 25?', chat: true },
    { name: 'A cron line', prompt: 'Write a cron line for every weekday at 07:30.', chat: true },
    { name: 'Who are you?', prompt: 'Who are you?', chat: true },
    { name: 'How do you work?', prompt: 'How do you work?', chat: true },
  ],
  'tutti-recurrent': [
    { name: 'Five hops', prompt: 'chain: a>d b>b c>h d>g e>f f>a g>e h>c ; from e 5 steps =', tokens: 8 },
    { name: 'Too shallow for them', sampler: 'recurrent', set: { recurrence: 1 },
      prompt: 'chain: a>d b>b c>h d>g e>f f>a g>e h>c ; from e 5 steps =', tokens: 8 },
    { name: 'Running sums', prompt: 'modsum: 31415926535897932384 =', tokens: 32 },
    { name: '… one after the other', sampler: 'recurrent', prompt: 'modsum: 31415926535897932384 =', tokens: 32 },
    { name: 'Sort', prompt: 'sort: 31 4 15 92 65 35 89 79 =', tokens: 40 },
    { name: 'A verse', prompt: 'And the LORD said', tokens: 48 },
  ],
  'tutti-sudoku': [
    { name: 'Solve in few passes', sampler: 'threshold', set: { threshold: 0.99 },
      prompt: PUZZLE },
    { name: 'Cell by cell', prompt: PUZZLE },
    { name: 'All at once', sampler: 'infill', set: { steps: 1 }, prompt: PUZZLE },
    { name: 'Make a grid up', sampler: 'infill', set: { temperature: 1 }, prompt: GRID },
  ],
  'tutti-insertion': [
    { name: 'Around a king', prompt: 'The king[[0-8]] a[[0-8]] sword[[0-6]].' },
    { name: 'Around a letter', prompt: 'She[[0-8]] the letter[[0-8]] mother[[0-6]].' },
    { name: 'Let there be …', prompt: 'And God said[[0-12]]light[[0-12]].' },
    { name: 'Backwards', prompt: 'reverse: w o r d s =', tokens: 16, set: { temperature: 0 } },
    { name: 'In order', prompt: 'sort: 5 40 7 12 =', tokens: 24, set: { temperature: 0 } },
  ],
  'tutti-insertion-stars': [
    { name: 'Three arms of five', tokens: 10,
      prompt: '4 0 1 7 8 15 14 4 14 1 9 8 0 13 14 9 12 5 13 3 15 19 7 12 14 3' },
    { name: 'Three arms of 3 to 6', tokens: 12,
      prompt: '2 3 15 14 11 3 9 4 10 11 17 3 3 12 18 9 3 15 1 8 19 10 3 1 12 18 17 14' },
    { name: 'Five arms of 6 to 12', tokens: 24,
      prompt: '51 4 39 35 11 55 6 31 7 28 46 35 24 46 36 27 12 36 9 13 3 7 25 33 23 54 47 38 8 22 50 ' +
        '11 2 30 4 6 35 29 20 2 45 16 35 26 13 17 37 5 42 47 5 35 26 50 48 20 28 35 55 9 30 52 15 48 ' +
        '17 53 35 45 35 1 35 23 1 15 29 51 22 37 54 25 16 12 33 42 35 31' },
  ],
};

/** Labels to begin with, by image model; of others, some from the whole list. */
const wellKnown = ['red apple, noto', 'sunflower, twitter', 'blue heart, glossy',
  'grinning face, noto', 'mushroom, noto', 'umbrella, flat', 'rocket, classic', 'frog, noto'];
export const imageExamples = {
  'tutti-image': wellKnown, 'tutti-image-levels': wellKnown, 'tutti-image-next': wellKnown,
};
