#!/usr/bin/python3
"""Sample sheets of the shipped picture model, and Frechet distances to pictures that it never saw.

usage: image_report.py PACK FOLDER OUTDIR --features PATH [--settings W,T,O ...]

FOLDER is tutti-image with its tokenizer; PATH is inception_weights.js's output, without ending.
Writes OUTDIR/steps-1.png ... steps-8.png (the same 64 training labels each), labels.png (their
pictures), held.png (pairs of concept and style that were kept out: made, then as drawn), and
figures into --out.
"""
import argparse
import os

import torch

from common import record
from enat import sample
from export_images import CODEC, load_enat, load_vqgan
from image_features import Features, frechet
from images import NOWHERE, Pictures, sheet
from vqgan import in_parts

DEFAULTS = {'steps': 8, 'guidance': 0.0, 'temperature': 0.5, 'order_temperature': 1.5}     # of the shipped folder
SHEET = 64
STEPS = 1, 2, 4, 8
MADE = 4096                     # pictures of a distance


class Maker:
    def __init__(self, folder, device, dtype=torch.float32):
        self.generator, self.codec = load_enat(folder, device), load_vqgan(os.path.join(folder, CODEC), device)
        self.device, self.dtype = device, dtype

    def pictures(self, labels, seed=1, rows=512, **how):
        """Pictures for labels [n, groups]; `how` as for enat.sample."""
        noise = torch.Generator(device=self.device).manual_seed(seed)
        make = lambda part: sample(self.generator, part, generator=noise, dtype=self.dtype, **how)
        codes = in_parts(make, labels, rows)
        return in_parts(lambda c: self.codec.decode(c).clamp(0, 1), codes)


def asked(pictures, which):
    """Labels as a request gives them: concept and style."""
    labels = pictures.labels[which].clone()
    labels[:, 2] = NOWHERE
    return labels


def some(which, n, seed):
    noise = torch.Generator().manual_seed(seed)
    return which[torch.randperm(len(which), generator=noise)[:n].to(which.device)]


def sheets(maker, pictures, outdir, how):
    shown, held = some(pictures.train, SHEET, 11), some(pictures.held, SHEET // 2, 11)
    sheet(pictures.white(shown), 8, os.path.join(outdir, 'labels.png'))
    for steps in STEPS:
        made = maker.pictures(asked(pictures, shown), **{**how, 'steps': steps})
        sheet(made, 8, os.path.join(outdir, 'steps-%d.png' % steps))
    made = maker.pictures(asked(pictures, held), **how)
    rows = torch.stack((made.view(-1, 8, *made.shape[1:]), pictures.white(held).view(-1, 8, *made.shape[1:])), 1)
    sheet(rows.flatten(0, 2), 8, os.path.join(outdir, 'held.png'))


def named(features, pictures, known, wanted):
    """Share of features whose nearest training picture shows the wanted concept, in %."""
    mean = known.mean(0)
    unit = lambda x: torch.nn.functional.normalize(x - mean, dim=1)
    nearest = (unit(features) @ unit(known).t()).argmax(1)
    concept = pictures.labels[:, 0].cpu()
    return round(100 * (concept[pictures.train.cpu()][nearest] == concept[wanted.cpu()]).double().mean().item(), 1)


class Judge:
    """Distances to the unseen pictures."""

    def __init__(self, features, pictures):
        self.features, self.pictures = features, pictures
        self.known = features(pictures.white(pictures.train))
        self.unseen = features(pictures.white(pictures.unseen))

    def floor(self, codec):
        p = self.pictures
        back = in_parts(lambda w: codec.decode(codec.encode(p.white(w))).clamp(0, 1), p.unseen)
        return {'training pictures': self.distance(self.known),
                'reconstructions of the unseen': self.distance(self.features(back)),
                'held pairs as drawn, concept named in %': named(self.unseen[len(p.val):], p, self.known, p.held)}

    def distance(self, features):
        return round(frechet(features, self.unseen), 2)

    def of(self, maker, how):
        p = self.pictures
        made = self.features(maker.pictures(asked(p, some(p.train, MADE, 5)), **how))
        held = self.features(maker.pictures(asked(p, p.held), **how))
        return {'distance': self.distance(made), 'held pairs, concept named in %': named(held, p, self.known, p.held)}


def main():
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('pack')
    p.add_argument('folder')
    p.add_argument('outdir')
    p.add_argument('--features', help='without it only the sheets')
    p.add_argument('--settings', nargs='*', default=[], help='guidance,temperature,order_temperature to compare')
    p.add_argument('--out', help='file of results')
    args = p.parse_args()
    os.makedirs(args.outdir, exist_ok=True)
    torch.backends.cudnn.allow_tf32 = False
    device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    pictures, maker = Pictures(args.pack, device), Maker(args.folder, device)
    how = DEFAULTS
    sheets(maker, pictures, args.outdir, how)
    if not args.features:
        return
    torch.backends.cudnn.allow_tf32 = True
    out = args.out or os.path.join(args.outdir, 'results.json')
    judge = Judge(Features(args.features, device), pictures)
    record(out, 'distances', judge.floor(maker.codec))
    for steps in STEPS:
        record(out, 'made in %d steps' % steps, judge.of(maker, {**how, 'steps': steps}))
    for setting in args.settings:
        w, temperature, order = map(float, setting.split(','))
        these = {'steps': 8, 'guidance': w, 'temperature': temperature, 'order_temperature': order}
        figures = judge.of(maker, these)
        record(out, 'made with w %s, temperature %s, order temperature %s' % (w, temperature, order), figures)
        print(setting, figures, flush=True)


if __name__ == '__main__':
    main()
