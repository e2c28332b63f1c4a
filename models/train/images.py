"""The picture set: emoji of several styles, packed by emoji_pack.py, as tensors on one device.

Shared by everything that learns from pictures. A picture is stored as palette indices and 4-bit
alpha, and becomes RGB in [0, 1] over a background when it is drawn.
"""
import gzip
import json
import os
import zlib

import numpy as np
import torch
import torch.nn.functional as F

STYLES = ('noto', 'blob', 'twitter', 'glossy', 'flat', 'classic', 'firefox')
NOWHERE = -1                    # of a label that is not given
MOVED_SHARE = 0.35              # of training views: shifted and scaled a little
COLOUR_SHARE = 0.15             # of training views: over a coloured background instead of white


def inflate(path):
    with open(path, 'rb') as f:
        return torch.from_numpy(np.frombuffer(zlib.decompress(f.read()), np.uint8).copy())


class Pictures:
    """rgba [n, 4, size, size] uint8, and for every picture its record, split and labels.

    labels [n, 3]: concept, style and group of a picture; `names` are theirs. Concepts are those
    that have a picture in the training split, in the order in which they appear."""

    def __init__(self, folder, device, size=64):
        path = lambda ending: os.path.join(folder, 'emoji%d.%s' % (size, ending))
        with gzip.open(path('jsonl.gz'), 'rt', encoding='utf-8') as f:
            self.records = [json.loads(line) for line in f]
        n, self.size, self.device = len(self.records), size, device
        palette = torch.from_numpy(np.fromfile(path('pal'), np.uint8)).view(len(STYLES), 256, 3)
        style = torch.tensor([STYLES.index(r['style']) for r in self.records])
        index = inflate(path('idx.z')).view(n, size, size).long()
        alpha = inflate(path('a4.z'))
        alpha = torch.stack((alpha % 16, alpha // 16), 1).view(n, size, size) * 17
        rgb = torch.cat([palette[style[i:i + 512, None, None], index[i:i + 512]] for i in range(0, n, 512)])
        self.rgba = torch.cat((rgb, alpha[..., None]), 3).permute(0, 3, 1, 2).contiguous().to(device)
        self.split_up()
        self.label(style)

    def split_up(self):
        """train; val: concepts unseen in every style; held: pairs of concept and style unseen."""
        pick = lambda keep: torch.tensor([i for i, r in enumerate(self.records) if keep(r)], device=self.device)
        self.train = pick(lambda r: not (r['val'] or r['held']))
        self.val, self.held = pick(lambda r: r['val']), pick(lambda r: r['held'])
        self.unseen = torch.cat((self.val, self.held))

    def label(self, style):
        known = [self.records[i] for i in self.train.tolist()]
        concepts = list(dict.fromkeys(r['name'] for r in known))
        groups = sorted({r['group'] for r in known})
        self.names = {'concept': concepts, 'style': list(STYLES), 'group': groups}
        place = {name: i for i, name in enumerate(concepts)}
        self.labels = torch.tensor([[place.get(r['name'], NOWHERE), int(s), groups.index(r['group'])]
                                    for r, s in zip(self.records, style)], device=self.device)

    def over(self, rgba, background):
        """rgba [n, 4, h, w] with the colours times alpha, background [n, 3] -> [n, 3, h, w]."""
        return rgba[:, :3] + background[:, :, None, None] * (1 - rgba[:, 3:])

    def premultiplied(self, which):
        rgba = self.rgba[which].float() / 255
        return torch.cat((rgba[:, :3] * rgba[:, 3:], rgba[:, 3:]), 1)

    def white(self, which):
        """Pictures `which` over white, [n, 3, size, size] in [0, 1]."""
        return self.over(self.premultiplied(which), torch.ones(len(which), 3, device=self.device))

    def views(self, n, generator):
        """n training pictures as a tokenizer should meet them: mirrored, moved, over colours."""
        draw = torch.rand(n, generator=generator, device=self.device)
        return self.views_of(self.train[(draw * len(self.train)).long()], generator)

    def views_of(self, which, generator, coloured=COLOUR_SHARE):
        n = len(which)
        rand = lambda *shape: torch.rand(*shape, generator=generator, device=self.device)
        rgba = self.premultiplied(which)
        moved = rand(n) < MOVED_SHARE
        scale = torch.where(moved, 0.95 + rand(n) * 0.25, torch.ones_like(moved, dtype=torch.float32))
        shift = (rand(n, 2) * 2 - 1) * (8 / self.size) * moved[:, None]
        turn = torch.zeros(n, 2, 3, device=self.device)
        turn[:, 0, 0] = scale * torch.where(rand(n) < 0.5, 1.0, -1.0)
        turn[:, 1, 1], turn[:, :, 2] = scale, shift
        grid = F.affine_grid(turn, list(rgba.shape), align_corners=False)
        rgba = F.grid_sample(rgba, grid, align_corners=False)
        colour = torch.where(rand(n, 1) < coloured, rand(n, 3), torch.ones(n, 3, device=self.device))
        return self.over(rgba, colour).clamp(0, 1)


def psnr(a, b):
    """Of two sets of pictures taken together, in dB."""
    return -10 * torch.log10((a - b).pow(2).mean()).item()


def sheet(pictures, columns, path, gap=2):
    """Write pictures [n, 3, h, w] as one PNG of 96 colours, row by row."""
    from PIL import Image
    pictures = (pictures.float().clamp(0, 1) * 255).round().to(torch.uint8).cpu()
    n, _, h, w = pictures.shape
    out = torch.full((3, -(-n // columns) * (h + gap) + gap, columns * (w + gap) + gap), 230, dtype=torch.uint8)
    for i, picture in enumerate(pictures):
        y, x = gap + i // columns * (h + gap), gap + i % columns * (w + gap)
        out[:, y:y + h, x:x + w] = picture
    image = Image.fromarray(out.permute(1, 2, 0).contiguous().numpy())
    image.quantize(96, dither=Image.Dither.NONE).save(path, optimize=True)
