#!/usr/bin/python3
"""Compare the program's picture networks with those here, on the shipped folder's own weights.

usage: check_images.py PACK MODEL FOLDER
       build/release/tests/golden/replay FOLDER

Writes a folder of reference vectors that tests/golden/replay knows as enat: latents, codes and
pixels of two pictures, and the generator's logits and features in five states, each but the first
with the features of the one before.
"""
import argparse
import os

import torch
import torch.nn.functional as F

from check_forward import link_model, write_text
from export_images import CODEC
from image_report import Maker
from images import NOWHERE, Pictures
from train_enat import SMOOTHING
from weights import write_safetensors


def codec_tensors(codec, pixels):
    latent = codec.encoder(pixels)
    codes = codec.quantize.indices(latent)
    rows = codec.quantize.rows(codes, codec.config.grid)
    return codes, {'vq.image_in': pixels, 'vq.latent': latent, 'vq.indices': codes.int(),
                   'vq.quantized': rows, 'vq.image_out': codec.decoder(rows)}


class Chain:
    """A generator's states, one after the other; places [n, tokens] in the order in which they are
    revealed."""

    def __init__(self, model, codes, labels, places):
        self.model, self.codes, self.labels, self.places = model, codes, labels, places
        self.past, self.old = None, 0

    def ids(self, visible):
        hidden = self.places[:, visible:]
        return self.codes.scatter(1, hidden, torch.full_like(hidden, self.model.config.mask))

    def step(self, visible):
        """(ids, logits, features, reused) as whole grids, zeros where there is none."""
        new, hidden = self.places[:, self.old:visible], self.places[:, visible:]
        model, n, tokens = self.model, *self.codes.shape
        reused = None if self.past is None else model.prev_proj(self.past)
        condition = model.condition(self.labels)
        seen = model.embed(self.codes.gather(1, new), new, torch.float32) if new.shape[1] else None
        self.past = model.encode(seen, self.past, condition)
        states = model.decode(model.embed(None, hidden, torch.float32), self.past, condition)
        grid = lambda values, places: torch.zeros(n, tokens, values.shape[2]).scatter(
            1, places[:, :, None].expand_as(values), values)
        features = grid(states, hidden)
        if self.past is not None:
            features = features + grid(self.past, self.places[:, :visible])
        if reused is not None:                                   # in raster order
            order = self.places[:, :self.old].argsort(1)[:, :, None].expand_as(reused)
            reused = reused.gather(1, order)
        self.old = visible
        return self.ids(visible), grid(model.logits(states), hidden), features, reused


def state_tensors(chain, tokens):
    out = {}
    for name, visible in zip('ABCDE', (0, tokens // 8, tokens // 3, tokens // 3, tokens * 2 // 3)):
        ids, logits, features, reused = chain.step(visible)
        out.update({'fwd.%s.ids' % name: ids.int(), 'fwd.%s.logits' % name: logits,
                    'fwd.%s.feat' % name: features})
        if reused is not None:
            out['fwd.%s.reused' % name] = reused
    return out


def loss_of(chain, visible):
    _, logits, _, _ = chain.step(visible)
    hidden = chain.places[:, visible:]
    rows = logits.gather(1, hidden[:, :, None].expand(-1, -1, logits.shape[2]))
    return F.cross_entropy(rows.flatten(0, 1), chain.codes.gather(1, hidden).flatten(),
                           label_smoothing=SMOOTHING)[None]


def main():
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('pack')
    p.add_argument('model')
    p.add_argument('folder')
    args = p.parse_args()
    pictures, maker = Pictures(args.pack, torch.device('cpu')), Maker(args.model, 'cpu')
    which = pictures.train[[2, 4000]]
    labels = pictures.labels[which].clone()
    labels[:, 1:] = NOWHERE                                      # replay gives one label
    with torch.no_grad():
        codes, tensors = codec_tensors(maker.codec, pictures.white(which))
        length = codes.shape[1]
        places = torch.rand(2, length, generator=torch.Generator().manual_seed(7)).argsort(1)
        begin = lambda: Chain(maker.generator, codes, labels, places)
        tensors.update(state_tensors(begin(), length))
        reuse = begin()
        reuse.step(length // 3)
        tensors.update({'train.target': codes.int(), 'train.visible_rank': places.argsort(1).int(),
                        'train.plain.loss': loss_of(begin(), length * 2 // 3),
                        'train.reuse.loss': loss_of(reuse, length * 2 // 3)})
    link_model(args.model, os.path.join(args.folder, 'enat'))
    link_model(os.path.join(args.model, CODEC), os.path.join(args.folder, 'vqgan'))
    write_safetensors(os.path.join(args.folder, 'expected.safetensors'), tensors)
    write_text(args.folder, 'golden.json', {'family': 'enat', 'format': 1})
    write_text(args.folder, 'trace.json', {'classes': labels[:, 0].tolist(), 'runs': {}})


if __name__ == '__main__':
    main()
