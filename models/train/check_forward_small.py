#!/usr/bin/python3
"""Compare the program's forward pass with the small networks here, on a shipped folder's own weights.

usage: check_forward_small.py insertion MODEL_DIR REFERENCE FOLDER
       check_forward_small.py recurrent MODEL_DIR FOLDER
       build/release/tests/golden/replay FOLDER

Writes a folder of reference vectors that tests/golden/replay knows as insertion-lm or recurrent-depth:
logits in float32 of the dequantised weights.  REFERENCE is a folder of insertion-lm vectors, whose
inputs and length model are taken over (a replay wants both heads).
"""
import json
import os
import sys

import torch

import ilm
import insertion_text
import recurrent
import stars
from check_forward import link, write_text
from weights import read_safetensors, write_safetensors

RECURRENCES = 1, 2, 4, 8, 16


def finish(folder, family):
    write_text(folder, 'golden.json', {'family': family, 'format': 1})


@torch.no_grad()
def insertion(model_dir, reference, folder):
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(model_dir, 'config.json')) as f:
        small = json.load(f)['num_embeddings'] == stars.VOCAB
    config = ilm.Config(d_model=192, nhead=6, dim_feedforward=576, **stars.NET) if small else insertion_text.NET
    model = stars.read_model(model_dir, config)
    tensors = read_safetensors(os.path.join(reference, 'forward.safetensors'))
    ids, mask = tensors['input_ids'], tensors['attention_mask']
    sight = torch.zeros(ids.shape).masked_fill(mask == 0, -1e30)[:, None, None]
    layout = ilm.Layout([(*ids.shape, sight)], tensors['positions'].flatten())
    z = model.hidden(ids.flatten(), layout, torch.float32)
    tensors['stopping.vocab_logits'] = model.logits(z, torch.float32).view(*ids.shape, -1)
    tensors['stopping.hidden'] = z.view(*ids.shape, -1)
    tensors['stopping.class_logits'] = model.classes(tensors['stopping.hidden'][:, 0])
    write_safetensors(os.path.join(folder, 'forward.safetensors'), tensors)
    os.makedirs(os.path.join(folder, 'model_stopping'), exist_ok=True)
    for name in ('config.json', 'model.safetensors'):
        link(os.path.join(folder, 'model_stopping'), os.path.join(model_dir, name))
    for name in ('model_length', 'uniforms.safetensors'):
        link(folder, os.path.join(reference, name))
    write_text(folder, 'traces.json', {'cases': []})
    finish(folder, 'insertion-lm')


@torch.no_grad()
def recurrences(model_dir, folder, length=24):
    os.makedirs(folder, exist_ok=True)
    model = recurrent.read_model(model_dir)
    generator = torch.Generator().manual_seed(7)
    ids = torch.randint(6, model.config.vocab_size, (length,), generator=generator)
    before = torch.ones(length, length, dtype=torch.bool).tril()
    mask = torch.zeros(1, 1, length, length).masked_fill(~before, -1e30)
    sight = model.sight(torch.arange(length)[None], mask)
    e = model.prelude(ids, sight, torch.float32)
    start = model.fresh(length, generator)
    tensors = {'forward.initial_state': start[None], 'forward.prelude_output': e[None]}
    for name, s in (('forward.', start), ('forward.zero.', torch.zeros_like(start))):
        for r in range(1, max(RECURRENCES) + 1):
            s = model.core(s, e, sight, torch.float32)
            if r in RECURRENCES:
                tensors['%sr%02d.logits' % (name, r)] = model.scores(model.head(s, sight, torch.float32))[None]
                tensors['%sr%02d.normed_latent' % (name, r)] = recurrent.raven.norm(
                    s, model.transformer.ln_f.weight, model.config.norm_eps)[None]
    write_safetensors(os.path.join(folder, 'tensors.safetensors'), tensors)
    os.makedirs(os.path.join(folder, 'model'), exist_ok=True)
    for name in ('config.json', 'model.safetensors'):
        link(os.path.join(folder, 'model'), os.path.join(model_dir, name))
    write_text(folder, 'cases.json', {'cases': [
        {'name': 'forward', 'input_ids': ids.tolist(), 'num_steps': list(RECURRENCES)}]})
    finish(folder, 'recurrent-depth')


if __name__ == '__main__':
    {'insertion': insertion, 'recurrent': recurrences}[sys.argv[1]](*sys.argv[2:])
