#!/usr/bin/python3
"""Train the codec of ordered tokens for a given time, export it, and turn the picture set into codes.

usage: train_restok.py PACK OUTDIR [--minutes M | --until T] [--init weights.pt]

The errors and the discriminator are train_vqgan.py's. In a share of the views only the first 1, 2, 4,
8 or 16 tokens count, so that every prefix of levels decodes. Writes OUTDIR/restok (the shipped
folder), OUTDIR/codes.pt (codes of all pictures by the shipped weights, and of views.pt's moved
training pictures), OUTDIR/levels.png, figures into results.json and averaged weights to go on from.
"""
import json
import os

import torch
import torch.nn.functional as F

from common import record
from export_levels import CODEC, load_restok, write_restok
from images import Pictures, psnr, sheet
from loop import device
from pixel_error import PixelError
from restok import Config, ResTok
from stepper import Training, autocast, options
from train_vqgan import COMMITMENT, SETTLED
from vqgan import in_parts

WHOLE = 0.7                     # of the views: all tokens count
CONTINUOUS = 600                # steps before the codebook is used
VIEWS = 12                      # of every training picture, as codes for the generators


class Codec:
    """What a step of the codec does."""

    def __init__(self, args, pictures):
        self.args, self.pictures, self.noise = args, pictures, torch.Generator(device=pictures.device)
        self.noise.manual_seed(args.seed)
        self.model = ResTok(Config()).to(pictures.device)
        self.pixels = PixelError(pictures.device)
        self.training = Training(self.model, args, pictures.device, self.losses, ResTok.is_table)
        self.begun = bool(args.init)             # whether the codebook has been filled
        self.model.quantize.total.copy_(self.model.quantize.unit())

    def losses(self, kind, x, keep, weight):
        model = self.model
        with autocast(x.device):
            z = F.normalize(model.latents(x).float(), dim=-1)
            if kind == 'continuous':
                codes, rows, commitment = torch.zeros_like(z[..., 0]).long(), z, z.mean() * 0
            else:
                with torch.no_grad():
                    codes = model.quantize.indices(z)
                    row = model.quantize.rows(codes)
                rows, commitment = z + (row - z).detach(), COMMITMENT * F.mse_loss(z, row)
            y = model.paint(rows, keep).float()
        error, slope = self.pixels.slope(x, y, kind == 'judged', weight)
        torch.autograd.backward((y, commitment), (slope, None))
        return None, error, z, codes

    def keeps(self, n):
        """How many tokens of each of n pictures count."""
        rand = torch.rand(2, n, generator=self.noise, device=self.noise.device)
        some = 1 << (rand[1] * (len(self.model.config.levels) - 1)).long()
        return torch.where(rand[0] < WHOLE, self.model.config.tokens, some)

    def kind(self, used):
        if self.training.steps < CONTINUOUS and not self.begun:
            return 'continuous'
        return 'judged' if self.pixels.is_judged(used) else 'codes'

    def step(self):
        used, n = self.training.clock.used(), self.args.batch
        kind = self.kind(used)
        x = self.pictures.views(n, self.noise).contiguous(memory_format=torch.channels_last)
        error, z, codes = self.training.gradient(kind, x, self.keeps(n), self.pixels.weight(used))
        quantiser = self.model.quantize
        if kind == 'continuous':
            quantiser.restart(z, self.noise, everything=True)
        else:
            quantiser.follow(z, codes)
            if used < SETTLED:
                quantiser.restart(z, self.noise)
            self.begun = True
        if kind == 'judged':
            self.pixels.update(used)
        self.training.note(error)
        return self.training.update()

    def average(self):
        """The averaged weights with the codebook as it is."""
        state = self.training.mean_state()
        state['quantize.embedding.weight'] = self.model.quantize.embedding.weight.clone()
        fresh = ResTok(self.model.config).to(self.pictures.device)
        fresh.load_state_dict(state)
        return fresh.eval()


@torch.no_grad()
def measure(model, pictures):
    """PSNR of every split by the number of tokens kept, and how many codes are in use."""
    out, c = {}, model.config
    splits = {'train': pictures.train, 'held': pictures.held, 'val': pictures.val, 'unseen': pictures.unseen}
    codes = in_parts(lambda which: model.encode(pictures.white(which)),
                     torch.arange(len(pictures.rgba), device=pictures.device))
    for name, which in splits.items():
        wanted = [1 << i for i in range(c.tokens.bit_length())] if name == 'unseen' else [c.tokens]
        for keep in wanted:
            count = torch.full((len(which),), keep, device=pictures.device)
            back = torch.cat([model.decode(codes[w], k).clamp(0, 1)
                              for w, k in zip(which.split(256), count.split(256))])
            out['psnr %s, %d tokens' % (name, keep)] = round(psnr(back, pictures.white(which)), 2)
    share = torch.bincount(codes.flatten(), minlength=c.codes).float()
    share = share / share.sum()
    out['codes used'] = int((share > 0).sum())
    out['perplexity'] = round(torch.exp(-(share * share.clamp(min=1e-12).log()).sum()).item(), 1)
    return codes, out


@torch.no_grad()
def show_levels(model, pictures, codes, path):
    """Twelve unseen pictures: as they are, then from 32, 16, ... 1 tokens."""
    which = pictures.unseen[torch.linspace(0, len(pictures.unseen) - 1, 12).long().to(pictures.device)]
    rows = [pictures.white(which)]
    for keep in [model.config.tokens >> i for i in range(model.config.tokens.bit_length())]:
        rows.append(model.decode(codes[which], torch.full((len(which),), keep, device=pictures.device)))
    sheet(torch.cat(rows), 12, path)


@torch.no_grad()
def views_codes(model, pictures):
    """[views, training pictures, tokens]: codes of the training pictures mirrored and moved."""
    noise = torch.Generator(device=pictures.device).manual_seed(7)
    code = lambda which: model.encode(pictures.views_of(which, noise, 0))
    return torch.stack([in_parts(code, pictures.train) for _ in range(VIEWS)])


def save_codes(codes, views, outdir):
    """codes.pt comes last: who waits for it finds both."""
    for name, t in (('views', views), ('codes', codes)):
        path = os.path.join(outdir, name)
        torch.save({name: t.to(torch.int16).cpu()}, path + '.tmp')
        os.replace(path + '.tmp', path + '.pt')


def finish(args, model, pictures, training):
    """Export, and everything that follows from the shipped weights."""
    folder = os.path.join(args.outdir, CODEC)
    size = write_restok(folder, model)
    torch.backends.cudnn.allow_tf32 = False
    shipped = load_restok(folder, pictures.device)
    codes, figures = measure(shipped, pictures)
    save_codes(codes, views_codes(shipped, pictures), args.outdir)
    show_levels(shipped, pictures, codes, os.path.join(args.outdir, 'levels.png'))
    figures.update({'parameters': sum(p.numel() for p in model.parameters()), 'bytes': size,
                    'steps': training.steps, 'batch': args.batch, 'minutes': training.clock.minutes()})
    record(os.path.join(args.outdir, args.out), 'codec', figures)
    print(json.dumps(figures), flush=True)


def main():
    p = options(__doc__.split('\n')[0], 'restok', 3e-3, 2e-3)
    p.add_argument('--batch', type=int, default=128)
    args = p.parse_args()
    os.makedirs(args.outdir, exist_ok=True)
    torch.manual_seed(args.seed)
    codec = Codec(args, Pictures(args.pack, device()))
    while codec.step():
        pass
    codec.training.save()
    finish(args, codec.average(), codec.pictures, codec.training)


if __name__ == '__main__':
    main()
