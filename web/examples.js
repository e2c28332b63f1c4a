// examples.js - prompts that show what a model does well, by model id. A <tag> at the beginning names
// the kind of text the model was trained on (see models/demo/*/README.md); `special` makes it one
// token instead of five characters.

export const examples = {
  'tutti-text': [
    { name: 'Roman numerals', prompt: '<task>roman: 1994 =', tokens: 16, special: true },
    { name: 'Number in words', prompt: '<task>numwords: 4096 =', tokens: 16, special: true },
    { name: 'Weekday of a date', prompt: '<task>date: 1969-07-20 =', tokens: 24, special: true },
    { name: 'Cron line', prompt: '<task>cron: every weekday at 07:30 =', tokens: 24, special: true },
    { name: 'JSON', prompt: '<task>json: Ada is 36, lives in Oslo and likes green =', tokens: 48, special: true },
    { name: 'Define a word', prompt: '<card>word: lighthouse\n', tokens: 48, special: true },
    { name: 'Find the word', prompt: '<card>word: [[4]]\ntype: noun\nmeaning: a tower with a light that warns ships', special: true },
    { name: 'A verse with gaps', prompt: '<verse>Genesis 1:1 In the [[3]] God created the heaven and the [[3]]', special: true },
    { name: 'Two holes', prompt: 'The captain looked at [[6]] and said that [[8]] before the night.' },
    { name: 'Definition', prompt: 'What is a lighthouse?', tokens: 48, chat: true },
    { name: 'Verse', prompt: 'What does Genesis 1:1 say?', tokens: 48, chat: true },
    { name: 'Sum', prompt: 'What is 17 + 25?', tokens: 32, chat: true },
    { name: 'Who are you?', prompt: 'Who are you?', tokens: 48, chat: true },
  ],
};
