#!/usr/bin/python3
"""Train the 8,192-piece byte-level BPE on the pack, task lines and dialogues.

usage: train_tokenizer.py PACK.jsonl.xz OUTDIR     -> tokenizer.json, tokenizer_config.json
"""
import argparse
import json
import os

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

import dialogues
import records
import tasks
from common import SPECIALS, VOCAB, read_pack

SPLIT = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
         r"|\s*[\r\n]+|\s+(?!\S)|\s+")
CHAT_TEMPLATE = ("{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + "
                 "message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}"
                 "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}")


def texts(pack):
    """The training side of the corpora, and a little of everything generated."""
    train = [r for r in read_pack(pack) if not r['v']]
    yield from (r['t'] for r in train)
    for task in tasks.NAMED:
        for question, answer in tasks.samples(task, 1, 0, 4000):
            yield '%s: %s = %s' % (task, question, answer)
    book = dialogues.Book(train, records.common_words(train))
    for sample in dialogues.chat_samples(book, 7, 40000):
        yield ''.join(sample.segments).replace('<|im_start|>', '').replace('<|im_end|>', '')


def train(pack):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(SPLIT), 'isolated'),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=[AddedToken(s, special=True, normalized=False) for s in SPECIALS])
    tokenizer.train_from_iterator(texts(pack), trainer)
    return tokenizer


def main():
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('pack')
    p.add_argument('outdir')
    args = p.parse_args()
    os.makedirs(args.outdir, exist_ok=True)
    tokenizer = train(args.pack)
    assert tokenizer.get_vocab_size() == VOCAB
    assert all(tokenizer.token_to_id(s) == i for i, s in enumerate(SPECIALS))
    tokenizer.save(os.path.join(args.outdir, 'tokenizer.json'))
    config = {'tokenizer_class': 'PreTrainedTokenizerFast', 'add_bos_token': False,
              'add_prefix_space': False, 'clean_up_tokenization_spaces': False,
              'bos_token': None, 'eos_token': SPECIALS[0], 'pad_token': SPECIALS[0],
              'mask_token': SPECIALS[1], 'unk_token': None,
              'additional_special_tokens': SPECIALS[2:], 'model_max_length': 512,
              'chat_template': CHAT_TEMPLATE}
    with open(os.path.join(args.outdir, 'tokenizer_config.json'), 'w') as f:
        json.dump(config, f, indent=2)
        f.write('\n')


if __name__ == '__main__':
    main()
