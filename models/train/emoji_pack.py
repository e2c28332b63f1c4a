#!/usr/bin/python3
"""Pack the pictures of emoji_render.js into one small set, which images.py reads.

usage: emoji_pack.py RAWDIR OUTDIR [SIZE=64]

Writes OUTDIR/emoji64.idx.z   zlib stream of palette indices, a byte a pixel, row by row
       OUTDIR/emoji64.a4.z    zlib stream of 4-bit alphas, two pixels a byte, the left one in the low half
       OUTDIR/emoji64.pal     256 RGB colours a style, not multiplied by alpha; the last one is white
       OUTDIR/emoji64.jsonl.gz  style, name, group, tags and split of each picture, in the same order
A pixel over a background B is palette * a + B * (1 - a) with a = alpha / 15.
"""
import gzip
import json
import os
import sys
import zlib

import numpy as np
from PIL import Image

from common import held_out

# Packages of icons, and what their styles are called here; the order of images.STYLES.
STYLES = {'noto': 'noto', 'noto-v1': 'blob', 'twemoji': 'twitter', 'fluent-emoji': 'glossy',
          'fluent-emoji-flat': 'flat', 'emojione': 'classic', 'fxemoji': 'firefox'}
WHITE = 255                     # its index; also of pixels that are not there
SAMPLE = 400000                 # pixels that a palette is made from


def palette_of(pixels):
    """256 colours, [256, 3] uint8."""
    sample = pixels[::max(1, len(pixels) // SAMPLE)]
    side = int(len(sample) ** 0.5)
    image = Image.fromarray(sample[:side * side].reshape(side, side, 3))
    colours = image.quantize(WHITE, method=Image.Quantize.MEDIANCUT, kmeans=2).getpalette()
    colours = (colours[:WHITE * 3] + [255] * WHITE * 3)[:WHITE * 3] + [255] * 3
    return np.array(colours, np.uint8).reshape(256, 3)


def nearest(pixels, palette):
    """Indices of the nearest colours; every colour is looked up once."""
    code = pixels.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    unique, inverse = np.unique(code.ravel(), return_inverse=True)
    colours = np.stack([unique >> 16, unique >> 8 & 255, unique & 255], 1).astype(np.float32)
    p, index = palette.astype(np.float32), np.empty(len(unique), np.uint8)
    for at in range(0, len(unique), 65536):
        part = colours[at:at + 65536]
        index[at:at + 65536] = ((p ** 2).sum(1) - 2 * part @ p.T).argmin(1)
    index[unique == 0xFFFFFF] = WHITE
    return index[inverse].reshape(pixels.shape[:-1])


def read_style(rawdir, package, size):
    with open(os.path.join(rawdir, package + '.jsonl'), encoding='utf-8') as f:
        records = [json.loads(line) for line in f]
    rgba = np.fromfile(os.path.join(rawdir, package + '.rgba'), np.uint8)
    return records, rgba[:len(records) * size * size * 4].reshape(-1, size, size, 4)


def described(record, package):
    name = record['name']
    val = held_out('emoji', name, 25)                            # unseen in every style
    held = not val and held_out('emoji', name + '\0' + package, 12)  # this pair is unseen
    return {'style': STYLES[package], 'name': name, 'group': record['group'], 'tags': record['tags'][:6],
            'val': int(val), 'held': int(held)}


def main():
    rawdir, outdir = sys.argv[1:3]
    size = int(sys.argv[3]) if len(sys.argv) > 3 else 64
    path = lambda ending: os.path.join(outdir, 'emoji%d.%s' % (size, ending))
    os.makedirs(outdir, exist_ok=True)
    indices, alphas, palettes, lines = [], [], [], []
    for package in STYLES:
        records, rgba = read_style(rawdir, package, size)
        alpha = np.rint(rgba[..., 3] * (15 / 255)).astype(np.uint8)
        rgb = np.where(alpha[..., None] == 0, 255, rgba[..., :3]).astype(np.uint8)
        palettes.append(palette_of(rgb[alpha > 3]))
        indices.append(nearest(rgb, palettes[-1]))
        alphas.append(alpha)
        lines += [json.dumps(described(r, package), ensure_ascii=False) for r in records]
        print(package, len(records), flush=True)
    flat = np.concatenate(alphas).reshape(-1)
    for ending, data in (('idx.z', np.concatenate(indices)), ('a4.z', flat[0::2] | flat[1::2] << 4)):
        with open(path(ending), 'wb') as f:
            f.write(zlib.compress(data.tobytes(), 9))
    np.concatenate(palettes).tofile(path('pal'))
    with gzip.open(path('jsonl.gz'), 'wt', encoding='utf-8') as f:
        f.write('\n'.join(lines) + '\n')
    print(len(lines), 'pictures')


if __name__ == '__main__':
    main()
