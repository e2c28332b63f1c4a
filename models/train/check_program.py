#!/usr/bin/python3
"""Ask the built program the unseen task questions and count right answers.

usage: check_program.py make QUESTIONS.jsonl [--questions N]
       tutti batch -m tutti-text -i QUESTIONS.jsonl -o ANSWERS.jsonl
       check_program.py score ANSWERS.jsonl

evaluate.py measures the network in PyTorch; this measures what users get: the program's own
arithmetic, tokenizer, sampler and defaults.  Needs no package.
"""
import argparse
import collections
import json

import tasks


def make(path, questions):
    with open(path, 'w') as f:
        for task in tasks.NAMED:
            for number, (question, _) in enumerate(tasks.samples(task, 2, 0, questions)):
                body = {'model': 'tutti-text', 'prompt': '%s: %s =' % (task, question),
                        'max_tokens': 64, 'seed': 1}
                f.write(json.dumps({'custom_id': json.dumps([task, number, question]),
                                    'method': 'POST', 'url': '/v1/completions', 'body': body}) + '\n')


def score(path):
    asked, right, passes = collections.Counter(), collections.Counter(), collections.Counter()
    for line in open(path):
        record = json.loads(line)
        task, _, question = json.loads(record['custom_id'])
        asked[task] += 1
        if record['error'] or record['response']['status_code'] != 200:
            continue
        body = record['response']['body']
        right[task] += tasks.check(task, question, body['choices'][0]['text'].strip())
        passes[task] += body['tutti']['nfe']
    for task in sorted(asked):
        n = asked[task]
        print('%-10s %5.1f %% of %d, %.1f passes' % (task, 100 * right[task] / n, n, passes[task] / n))


def main():
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('what', choices=('make', 'score'))
    p.add_argument('file')
    p.add_argument('--questions', type=int, default=200, help='per task (make)')
    args = p.parse_args()
    make(args.file, args.questions) if args.what == 'make' else score(args.file)


if __name__ == '__main__':
    main()
