#!/usr/bin/python3
"""Compare the program's ResTok, HAR and LlamaGen with the networks here, on the shipped folders' own
weights.

usage: check_levels.py PACK LEVELS NEXT FOLDER          # tutti-image-levels, tutti-image-next
       build/release/tests/golden/replay FOLDER

Writes a folder of reference vectors that tests/golden/replay knows as restok: codes, distances and
pixels of two pictures, whole and of 8 and 1 tokens, and both generators' logits given the tokens
before, for a concept and for nothing. Sums of labels have their own test (tests/models/test_ordered.c).
"""
import argparse
import os

import torch
import torch.nn.functional as F

from check_forward import link_model, write_text
from export_levels import CODEC, load_ordered, load_restok
from images import NOWHERE, Pictures
from weights import write_safetensors


def codec_tensors(codec, pixels):
    z = codec.latents(pixels)
    unit = F.normalize(z, dim=-1)
    codes = codec.quantize.indices(z)
    rows = codec.quantize.unit()
    keep = lambda n: codec.decode(codes, torch.full((len(codes),), n))
    other = torch.randint(codec.config.codes, codes.shape, generator=torch.Generator().manual_seed(5))
    return codes, {'tok.image_in': pixels, 'tok.z': z.transpose(1, 2)[:, :, None],
                   'tok.distances': (unit[:, :, None] - rows).pow(2).sum(-1), 'tok.indices': codes.int(),
                   'tok.image_out': codec.decode(codes), 'tok.image_out_keep8': keep(8),
                   'tok.image_out_keep1': keep(1), 'tok.random_indices': other.int(),
                   'tok.random_image': codec.decode(other)}


def generator_tensors(name, folder, codes, concepts):
    model, _ = load_ordered(folder, 'cpu')
    labels = torch.full((len(codes), len(model.config.label_groups)), NOWHERE)
    without = model(labels[:1], codes[:1])
    labels[:, 0] = concepts
    return {name + '.forced.tokens': codes.int(), name + '.forced.cond_logits': model(labels, codes),
            name + '.forced.uncond_logits': without}


def main():
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('pack')
    p.add_argument('levels')
    p.add_argument('next')
    p.add_argument('folder')
    args = p.parse_args()
    pictures = Pictures(args.pack, torch.device('cpu'))
    which = pictures.train[[2, 4000]]
    concepts = pictures.labels[which, 0]
    codec = os.path.join(args.levels, CODEC)
    with torch.no_grad():
        codes, tensors = codec_tensors(load_restok(codec, 'cpu'), pictures.white(which))
        for name, folder in (('har', args.levels), ('vanilla', args.next)):
            tensors.update(generator_tensors(name, folder, codes, concepts))
            link_model(folder, os.path.join(args.folder, name))
    link_model(codec, os.path.join(args.folder, 'tokenizer'))
    tensors = {name: t.contiguous() for name, t in tensors.items()}
    write_safetensors(os.path.join(args.folder, 'expected.safetensors'), tensors)
    write_text(args.folder, 'golden.json', {'family': 'restok', 'format': 1})
    write_text(args.folder, 'trace.json', {'classes': concepts.tolist(), 'har': {}, 'vanilla': {}})


if __name__ == '__main__':
    main()
