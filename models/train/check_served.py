#!/usr/bin/python3
"""Compare what `tutti serve` answers with the networks here, on the shipped folders' own weights.

usage: check_served.py PACK DEMO [--tutti ../../build/release/tutti]     # DEMO: models/demo

  levels    pictures read by the codec of tutti-image-levels: the same tokens; painted from 64, 8 and 1
            of them: the same pixels but for rounding to bytes
  comit     pictures read crop by crop by tutti-comit: the same tokens; painted in one step: as near to
            the pictures as here, the noise being another
  verifiers pictures that tutti-image made: tutti-verifier's and tutti-judge's likeness to the caption

Ends with status 1 if one of them differs. Needs Pillow beside PyTorch.
"""
import argparse
import base64
import io
import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request

import numpy
import torch
from PIL import Image

from captions import Bpe, caption, searched
from comit import encode
from export_clip import load_clip, pixels_of
from export_comit import load_comit
from export_levels import CODEC, load_restok
from images import Pictures, psnr
from train_comit import repainted

SHOWN = 24
ORDERS = ((1, False), (9, False), (0, True), (4, True))     # crops, whether the whole picture comes first


class Server:
    def __init__(self, tutti, folders):
        models = [word for folder in folders for word in ('--model', folder)]
        self.process = subprocess.Popen([tutti, 'serve', '--port', '0', '--device', 'cpu', *models],
                                        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        for line in self.process.stdout:
            port = re.search(r'http://127[.0-9]*:([0-9]+)', line)
            self.port = port.group(1) if port else self.port
            if line.startswith('ready'):
                return
        sys.exit('%s serve does not start' % tutti)

    port = None

    def ask(self, path, **body):
        request = urllib.request.Request('http://127.0.0.1:%s/v1/images/%s' % (self.port, path),
                                         json.dumps(body).encode(), {'Content-Type': 'application/json'})
        try:
            with urllib.request.urlopen(request) as answer:
                return json.loads(answer.read())
        except urllib.error.HTTPError as e:
            sys.exit('%s: %s' % (path, e.read().decode()))

    def stop(self):
        self.process.terminate()
        self.process.wait()


def to_bytes(pictures):
    return (pictures.clamp(0, 1) * 255).round().to(torch.uint8)


def png(picture):
    """picture [3, h, w] in bytes."""
    out = io.BytesIO()
    Image.fromarray(picture.permute(1, 2, 0).numpy()).save(out, 'PNG')
    return base64.b64encode(out.getvalue()).decode()


def pictures_of(answer):
    """[n, 3, h, w] in bytes."""
    images = [Image.open(io.BytesIO(base64.b64decode(d['b64_json']))).convert('RGB') for d in answer['data']]
    return torch.stack([torch.from_numpy(numpy.array(i)).permute(2, 0, 1) for i in images])


class Checks:
    def __init__(self):
        self.failed = 0

    def __call__(self, name, good, figure):
        self.failed += not good
        print('%s  %s: %s' % ('ok  ' if good else 'FAIL', name, figure), flush=True)


def tokens_of(answer):
    return torch.tensor([d['tokens'] for d in answer['data']])


def check_levels(check, server, demo, shown):
    model, x = load_restok(os.path.join(demo, 'tutti-image-levels', CODEC), 'cpu'), shown.float() / 255
    want = model.encode(x)
    have = tokens_of(server.ask('tokenize', model='tutti-image-levels', images=[png(p) for p in shown]))
    check('levels, tokens', bool((have == want).all()), '%d of %d differ' % ((have != want).sum(), want.numel()))
    for keep in (model.config.tokens, 8, 1):
        back = torch.cat([pictures_of(server.ask('detokenize', model='tutti-image-levels', tokens=t[:keep]))
                          for t in want.tolist()])
        mine = to_bytes(model.decode(want, torch.full((len(want),), keep)))
        gap = (back.int() - mine.int()).abs().max().item()
        check('levels, pixels of %d tokens' % keep, gap <= 1, 'at most %d of 255 apart' % gap)


def looks(crops, whole):
    """The first crops in raster order; the whole picture, where it is looked at, is number 0 then."""
    return {'policy': 'list', 'order': list(range(crops + whole)), 'global_crop': whole}


def check_comit(check, server, demo, shown):
    networks, x = load_comit(os.path.join(demo, 'tutti-comit'), 'cpu'), shown.float() / 255
    for crops, whole in ORDERS:
        name = 'comit, %d crops%s' % (crops, ' and the whole' if whole else '')
        order = torch.arange(crops).expand(len(x), -1)
        want, back = message_of(networks, x, order, whole), repainted(networks, x, order, whole, 1)
        answer = server.ask('tokenize', model='tutti-comit', images=[png(p) for p in shown],
                            tutti={'crops': looks(crops, whole)})
        have = tokens_of(answer)
        check(name + ', tokens', bool((have == want).all()), '%d of %d differ' % ((have != want).sum(), want.numel()))
        painted = torch.cat([pictures_of(server.ask(
            'detokenize', model='tutti-comit', tokens=d['tokens'], decode_offset=d['decode_offset'], seed=i,
            tutti={'paint': {'steps': 1, 'guidance': 0}})) for i, d in enumerate(answer['data'])]).float() / 255
        ours, theirs = psnr(back.clamp(0, 1), x), psnr(painted, x)
        check(name + ', painted', abs(ours - theirs) < 0.3, '%.2f dB, here %.2f' % (theirs, ours))


def message_of(networks, x, order, whole):
    predictor, vae, fsq, geometry = networks
    crops = vae.encode(geometry.crops(x * 2 - 1).flatten(0, 1)).unflatten(0, (len(x), 9))
    message, _ = encode(predictor, fsq, vae.encode(x * 2 - 1), crops, geometry.places(), order, whole)
    return fsq.ids(message)


def vocabulary_of(folder):
    with open(os.path.join(folder, 'vocab.json'), encoding='utf-8') as f:
        ids = json.load(f)
    with open(os.path.join(folder, 'merges.txt'), encoding='utf-8') as f:
        merges = [tuple(line.split()) for line in f.read().splitlines()[1:]]
    bpe = Bpe(merges, [])
    bpe.ids = ids
    return bpe


def likeness(folder, pictures, text):
    """2.5 times the cosine, at least 0, of every picture to the text."""
    model, bpe = load_clip(folder, 'cpu'), vocabulary_of(folder)
    ids = torch.tensor([bpe.encode(text)])
    return 2.5 * (model.images(pixels_of(pictures)) @ model.texts(ids).t())[:, 0].clamp(min=0)


def check_verifiers(check, server, demo, pictures):
    record = pictures.records[searched(pictures)[3]]
    names = ['tutti-verifier', 'tutti-judge']
    answer = server.ask('generations', model='tutti-image', prompt=caption(record), n=4, seed=1, tutti={
        'labels': {'concept': record['name'], 'style': record['style']},
        'search': {'verifier': names, 'algorithm': 'best_of', 'samples': 4}})
    made = pictures_of(answer).float() / 255
    for name in names:
        want = likeness(os.path.join(demo, name), made, caption(record))
        have = torch.tensor([d['tutti']['scores'][name] for d in answer['data']])
        gap = (want - have).abs().max().item()
        check(name, gap < 2e-3, '%.2g apart, likeness %s' % (gap, [round(v, 3) for v in have.tolist()]))


def main():
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('pack')
    p.add_argument('demo')
    p.add_argument('--tutti', default=os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                                   '../../build/release/tutti'))
    args = p.parse_args()
    pictures = Pictures(args.pack, torch.device('cpu'))
    shown = to_bytes(pictures.white(pictures.unseen[::len(pictures.unseen) // SHOWN][:SHOWN]))
    models = 'tutti-image', 'tutti-image-levels', 'tutti-comit', 'tutti-verifier', 'tutti-judge'
    check, server = Checks(), Server(args.tutti, [os.path.join(args.demo, m) for m in models])
    try:
        with torch.no_grad():
            check_levels(check, server, args.demo, shown)
            check_comit(check, server, args.demo, shown)
            check_verifiers(check, server, args.demo, pictures)
    finally:
        server.stop()
    sys.exit(check.failed > 0)


if __name__ == '__main__':
    main()
