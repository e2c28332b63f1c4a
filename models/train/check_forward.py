#!/usr/bin/python3
"""Compare the program's forward pass with the network here, on a shipped folder's own weights.

usage: check_forward.py MASKED_DIR CAUSAL_DIR FOLDER
       build/release/tests/golden/replay FOLDER

Writes a folder of reference vectors that tests/golden/replay knows as masked-diffusion/guided: the
logits of a masked and of a causal model at random ids, computed in float64. Replay asks for a
relative distance below 1e-5.
"""
import argparse
import json
import os

import torch

from export import load_model
from weights import write_safetensors


@torch.no_grad()
def logits_of(model, ids):
    return model.double()(ids[None], torch.float64)[0].float()


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
    p.add_argument('masked')
    p.add_argument('causal')
    p.add_argument('folder')
    p.add_argument('--length', type=int, default=81)
    args = p.parse_args()
    generator, tensors = torch.Generator().manual_seed(7), {}
    for name, model_dir in (('dlm', args.masked), ('guide', args.causal)):
        model = load_model(model_dir, 'cpu')
        ids = torch.randint(model.config.vocab_size, (args.length,), generator=generator)
        tensors.update({name + '.input_ids': ids, name + '.logits': logits_of(model, ids)})
        link_model(model_dir, os.path.join(args.folder, name))
    write_safetensors(os.path.join(args.folder, 'expected.safetensors'), tensors)
    write_text(args.folder, 'golden.json', {'family': 'masked-diffusion/guided', 'format': 1})
    write_text(args.folder, 'traces.json', {'cases': []})


if __name__ == '__main__':
    main()
