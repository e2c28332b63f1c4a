"""A small byte-level BPE for the small text models: the first merges of tutti-text's.

Merges are made in the order of their rank, so the first ones are a tokenizer of their own.
`Encoder` encodes ASCII text with it; it needs no package.
"""
import functools
import json
import re

SPECIALS = ['<|endoftext|>', '<|mask|>', '<|cls|>', '<|bos|>', '<|pad|>', '<|unk|>']
EOS, MASK, CLS, BOS, PAD, UNK = range(len(SPECIALS))
VOCAB = 2048
# The tokenizer's own pattern, for ASCII.
SPLIT = re.compile(r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\nA-Za-z0-9]?[A-Za-z]+|[0-9]"
                   r"| ?[^\sA-Za-z0-9]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+", re.ASCII)


def cut(path):
    """tokenizer.json as a dict, from the one at `path`."""
    with open(path, encoding='utf-8') as f:
        whole = json.load(f)
    model = whole['model']
    special = {t['content'] for t in whole['added_tokens']}
    bytes_ = [t for t in sorted(model['vocab'], key=model['vocab'].get) if t not in special][:256]
    tokens = SPECIALS + bytes_
    model['merges'] = model['merges'][:VOCAB - len(tokens)]
    tokens += [a + b for a, b in model['merges']]
    model['vocab'] = {t: i for i, t in enumerate(tokens)}
    assert len(model['vocab']) == VOCAB
    whole['added_tokens'] = [dict(whole['added_tokens'][0], id=i, content=s) for i, s in enumerate(SPECIALS)]
    return whole


def tokenizer_config(length, **ids):
    return {'tokenizer_class': 'PreTrainedTokenizerFast', 'add_bos_token': False, 'add_prefix_space': False,
            'clean_up_tokenization_spaces': False, 'bos_token': None, 'eos_token': SPECIALS[EOS],
            'pad_token': SPECIALS[PAD], 'mask_token': SPECIALS[MASK], 'unk_token': None,
            'additional_special_tokens': SPECIALS[2:], 'model_max_length': length, **ids}


class Encoder:
    def __init__(self, tokenizer):
        self.vocab = tokenizer['model']['vocab']
        self.rank = {tuple(pair): i for i, pair in enumerate(tokenizer['model']['merges'])}
        self.text = {i: t for t, i in self.vocab.items()}

    @functools.lru_cache(1 << 18)
    def word(self, text):
        parts = list(text.replace(' ', 'Ġ').replace('\n', 'Ċ'))
        while len(parts) > 1:
            ranks = [self.rank.get(pair, VOCAB) for pair in zip(parts, parts[1:])]
            best = min(ranks)
            if best == VOCAB:
                break
            merged, i = [], 0
            while i < len(parts):
                here = i < len(ranks) and ranks[i] == best
                merged.append(parts[i] + parts[i + 1] if here else parts[i])
                i += 2 if here else 1
            parts = merged
        return [self.vocab[p] for p in parts]

    def encode(self, text):
        if not text.isascii():
            raise ValueError('not ASCII: %r' % text)
        return [i for piece in SPLIT.findall(text) for i in self.word(piece)]

    def decode(self, ids):
        text = ''.join(self.text[i] for i in ids if i >= len(SPECIALS))
        return text.replace('Ġ', ' ').replace('Ċ', '\n')
