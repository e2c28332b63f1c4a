#!/usr/bin/python3
"""Compare the program's forward pass with the network here, on a shipped folder's own weights.

usage: check_forward.py MODELDIR... FOLDER
       build/release/tests/golden/replay --case tensors FOLDER

Writes a folder of reference vectors that tests/golden/replay knows: a masked model alone (family
masked-diffusion/llada: logits and every layer's states), or a masked model and its causal guide
(masked-diffusion/guided: logits of both). Replay asks for a relative distance below 1e-5.
"""
import argparse
import json
import os

import torch

from export import load_model
from weights import write_safetensors


@torch.no_grad()
def reference(model, ids):
    """Logits [length, vocab] and the residual stream after the embedding and each layer, the last
    one normalised, in float64."""
    states = []
    model = model.double()
    output = model.parts[1]

    def keep(x, *rest):
        states.append(x)
        return output(x, *rest)

    model.parts = model.parts[0], keep
    hidden = model.hidden(ids[None], torch.float64)
    return hidden @ model.wte.weight.T, [*states, hidden]


def link(folder, target):
    path = os.path.join(folder, os.path.basename(target))
    if not os.path.lexists(path):
        os.symlink(os.path.realpath(target), path)


def link_model(model_dir, folder):
    os.makedirs(folder, exist_ok=True)
    for name in ('config.json', 'model.safetensors'):
        link(folder, os.path.join(model_dir, name))


def write_text(folder, name, value):
    with open(os.path.join(folder, name), 'w') as f:
        json.dump(value, f)


def main():
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('model_dir', nargs='+', help='a masked model, or a masked model and its guide')
    p.add_argument('folder')
    p.add_argument('--length', type=int, default=81)
    args = p.parse_args()
    if len(args.model_dir) > 2:
        p.error('one or two model folders')
    names = ['dlm', 'guide'] if len(args.model_dir) == 2 else ['full']
    generator, tensors = torch.Generator().manual_seed(7), {}
    for name, model_dir in zip(names, args.model_dir):
        model = load_model(model_dir, 'cpu')
        ids = torch.randint(model.config.vocab_size, (args.length,), generator=generator)
        logits, states = reference(model, ids)
        tensors.update({name + '.input_ids': ids, name + '.logits': logits.float()})
        if name == 'full':
            tensors.update({'full.hidden.%d' % i: x.float() for i, x in enumerate(states)})
        link_model(model_dir, os.path.join(args.folder, '' if name == 'full' else name))
    write_safetensors(os.path.join(args.folder, 'expected.safetensors'), tensors)
    family = 'masked-diffusion/guided' if len(names) == 2 else 'masked-diffusion/llada'
    write_text(args.folder, 'golden.json', {'family': family, 'format': 1})


if __name__ == '__main__':
    main()
