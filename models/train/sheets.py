#!/usr/bin/python3
"""Sheets of the image models of ordered tokens and of COMiT, every picture made by `tutti serve`.

usage: sheets.py PACK DEMO [--tutti ../../build/release/tutti]     # DEMO: models/demo

  tutti-image-levels/levels.png    unseen pictures, then painted from 64, 16 and 1 of their tokens
  tutti-image-levels/samples.png   pairs of concept and style of the training: as drawn, made by the defaults,
                                   with guidance 3, and the best of 16 by tutti-verifier with guidance 3
  tutti-image-next/samples.png     the same by the other generator, without the drawn ones
  tutti-comit/crops.png            unseen pictures, then painted after the whole alone, the whole and 9 crops, 9 crops

Needs pngquant.
"""
import argparse
import os
import subprocess

import torch

from captions import caption
from check_served import Server, looks, pictures_of, png, to_bytes
from images import Pictures, sheet

COLUMNS, GUIDED = 6, 3.0
KEPT = 64, 16, 1


def some(which, n):
    return which[torch.linspace(0, len(which) - 1, n).long()]


def write(demo, folder, name, rows, columns):
    path = os.path.join(demo, folder, name)
    sheet(torch.cat(rows).float() / 255, columns, path)
    subprocess.run(['pngquant', '32', '--speed', '1', '--strip', '--force', '--output', path, path], check=True)
    print('%s %d bytes' % (path, os.path.getsize(path)), flush=True)


def levels(server, demo, shown):
    tokens = [d['tokens'] for d in server.ask('tokenize', model='tutti-image-levels',
                                              images=[png(p) for p in shown])['data']]
    rows = [shown]
    for keep in KEPT:
        rows += [pictures_of(server.ask('detokenize', model='tutti-image-levels', tokens=t[:keep])) for t in tokens]
    write(demo, 'tutti-image-levels', 'levels.png', rows, len(shown))


def labels_of(record):
    return {'concept': record['name'], 'style': record['style']}


def made(server, model, record, seed, **more):
    return pictures_of(server.ask('generations', model=model, prompt=caption(record), seed=seed,
                                  tutti={'labels': labels_of(record), **more}))


def samples(server, demo, model, records, drawn):
    search = {'verifier': 'tutti-verifier', 'algorithm': 'best_of', 'samples': 16}
    rows = [drawn] if drawn is not None else []
    for more in ({}, {'cfg_scale': GUIDED}, {'cfg_scale': GUIDED, 'search': search}):
        rows += [made(server, model, r, i, **more) for i, r in enumerate(records)]
    write(demo, model, 'samples.png', rows, len(records))


def crops(server, demo, shown):
    rows = [shown]
    for n, whole in ((0, True), (9, True), (9, False)):
        answer = server.ask('tokenize', model='tutti-comit', images=[png(p) for p in shown],
                            tutti={'crops': looks(n, whole)})
        rows += [pictures_of(server.ask('detokenize', model='tutti-comit', tokens=d['tokens'], seed=1,
                                        decode_offset=d['decode_offset'])) for d in answer['data']]
    write(demo, 'tutti-comit', 'crops.png', rows, len(shown))


def main():
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('pack')
    p.add_argument('demo')
    p.add_argument('--tutti', default=os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                                   '../../build/release/tutti'))
    args = p.parse_args()
    pictures = Pictures(args.pack, torch.device('cpu'))
    shown = to_bytes(pictures.white(some(pictures.unseen, COLUMNS)))
    known = some(pictures.train, COLUMNS)
    drawn, records = to_bytes(pictures.white(known)), [pictures.records[i] for i in known.tolist()]
    models = 'tutti-image-levels', 'tutti-image-next', 'tutti-comit', 'tutti-verifier'
    server = Server(args.tutti, [os.path.join(args.demo, m) for m in models])
    try:
        levels(server, args.demo, shown)
        samples(server, args.demo, 'tutti-image-levels', records, drawn)
        samples(server, args.demo, 'tutti-image-next', records, None)
        crops(server, args.demo, shown)
    finally:
        server.stop()


if __name__ == '__main__':
    main()
