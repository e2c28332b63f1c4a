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
  'tutti-sudoku': [
    { name: 'Solve in few passes', sampler: 'threshold', set: { threshold: 0.99 },
      prompt: PUZZLE },
    { name: 'Cell by cell', prompt: PUZZLE },
    { name: 'All at once', sampler: 'infill', set: { steps: 1 }, prompt: PUZZLE },
    { name: 'Make a grid up', sampler: 'infill', set: { temperature: 1 }, prompt: GRID },
  ],
};

/** Labels to begin with, by image model; of others, some from the whole list. */
export const imageExamples = {
  'tutti-image': ['red apple', 'sunflower', 'blue heart', 'grinning face', 'mushroom', 'umbrella',
    'rocket', 'fire'],
};
