#!/usr/bin/python3
"""Train the picture tokenizer for a given time, export it, and turn the picture set into codes.

usage: train_vqgan.py PACK OUTDIR [--minutes M | --until T] [--grid 8|16]

Absolute, squared and multi-scale edge errors first; later a patch discriminator's opinion and its
features as well, held to a fixed share of the error's gradient at the pixels. Writes OUTDIR/vqgan
(the shipped folder), OUTDIR/codes.pt (codes of all pictures, by the shipped weights),
OUTDIR/reconstructions.png and the figures into results.json.
"""
import argparse
import json
import os
import time

import torch
import torch.nn.functional as F
from torch import nn

from common import record
from export_images import CODEC, load_vqgan, vqgan_config, write_folder
from images import Pictures, psnr, sheet
from train import rate_scale
from vqgan import Config, Vqgan, in_parts

SHAPES = {8: Config(), 16: Config(ch_mult=(1, 2, 3), n_embed=512)}
CONTINUOUS = 0.03               # share of the time before the codebook is used
SETTLED = 0.75                  # after it no unused code is put elsewhere
JUDGED_FROM, JUDGED_FULLY = 0.3, 0.5     # the discriminator comes in between
JUDGE_SHARE = 0.4               # of the error's gradient
COMMITMENT = 0.25


class Discriminator(nn.Module):
    """Patches of 22 pixels; returns the features of every layer, the judgement last."""

    def __init__(self, width=64):
        super().__init__()
        widths = [3, width, 2 * width, 4 * width]
        self.layers = nn.ModuleList(nn.Sequential(
            nn.Conv2d(a, b, 4, 2, 1), nn.GroupNorm(8, b) if a > 3 else nn.Identity(), nn.LeakyReLU(0.2))
            for a, b in zip(widths, widths[1:]))
        self.last = nn.Conv2d(widths[-1], 1, 3, padding=1)

    def forward(self, x):
        features = []
        for layer in self.layers:
            x = layer(x)
            features.append(x)
        return features + [self.last(x)]


def error_of(y, x):
    e = y - x
    loss = e.abs().mean() + 4 * e.pow(2).mean()
    for _ in range(3):
        loss = loss + 0.5 * (e.diff(dim=2).abs().mean() + e.diff(dim=3).abs().mean())
        e = F.avg_pool2d(e, 2)
    return loss + e.abs().mean()


def opinion_of(fake, real):
    """What the tokenizer lowers: the judgement of its pictures, and the distance of the features."""
    distance = sum((a.float() - b.float()).abs().mean() for a, b in zip(fake[:-1], real[:-1]))
    return 4 * distance - fake[-1].float().mean()


def judge_loss(real, fake):
    return F.relu(1 - real.float()).mean() + F.relu(1 + fake.float()).mean()


class Trainer:
    def __init__(self, args, pictures):
        self.args, self.pictures, self.device = args, pictures, pictures.device
        self.noise = torch.Generator(device=self.device).manual_seed(args.seed)
        layout = {'memory_format': torch.channels_last}
        self.model = Vqgan(SHAPES[args.grid]).to(self.device, **layout)
        self.judge = Discriminator().to(self.device, **layout)
        parts = self.model.encoder, self.model.decoder, self.judge, error_of
        self.encoder, self.decoder, self.judged, self.error = (
            torch.compile(part) if args.compile else part for part in parts)
        self.params = [p for p in self.model.parameters() if p.requires_grad]
        fused = {'fused': True} if self.device.type == 'cuda' else {}
        self.adam = torch.optim.AdamW(self.params, lr=args.lr, betas=(0.9, 0.95), weight_decay=1e-4, **fused)
        self.judge_adam = torch.optim.AdamW(self.judge.parameters(), lr=args.lr, betas=(0.5, 0.95),
                                            weight_decay=1e-4, **fused)
        self.step, self.discrete, self.judge_loss = 0, False, torch.zeros(())

    def cast(self):
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == 'cuda')

    def pixels(self, x, used):
        """(pictures as they come back, commitment loss)"""
        with self.cast():
            z = self.encoder(x)
        z, quantiser = z.float(), self.model.quantize
        if used >= CONTINUOUS and not self.discrete:
            quantiser.restart(z.detach(), self.noise, everything=True)
            self.discrete = True
        if not self.discrete:
            rows, commitment = z, z.pow(2).mean() * 1e-3
        else:
            with torch.no_grad():
                codes = quantiser.indices(z)
                rows = quantiser.rows(codes, self.model.config.grid)
            commitment = F.mse_loss(z, rows)
            rows = z + (rows - z).detach()
        with self.cast():
            y = self.decoder(rows.contiguous(memory_format=torch.channels_last))
        if self.discrete:
            quantiser.follow(z.detach(), codes)
            if used < SETTLED:
                quantiser.restart(z.detach(), self.noise)
        return y.float(), COMMITMENT * commitment

    def opinion(self, x, y):
        """One step of the discriminator; returns what it makes of the pictures y."""
        with self.cast():
            real, fake = self.judged(x), self.judged(y.detach())
        loss = judge_loss(real[-1], fake[-1])
        loss.backward()
        self.judge_loss = loss.detach()
        self.judge_adam.step()
        self.judge_adam.zero_grad()
        with self.cast():
            return opinion_of(self.judged(y), [f.detach() for f in real])

    def update(self, used):
        x = self.pictures.views(self.args.batch, self.noise).contiguous(memory_format=torch.channels_last)
        y, commitment = self.pixels(x, used)
        seen = y.detach().contiguous(memory_format=torch.channels_last).requires_grad_()
        error = self.error(seen, x)
        slope, = torch.autograd.grad(error, seen)
        weight = JUDGE_SHARE * min(1.0, max(0.0, (used - JUDGED_FROM) / (JUDGED_FULLY - JUDGED_FROM)))
        if weight > 0:
            other, = torch.autograd.grad(self.opinion(x, seen), seen)
            slope = slope + other * (weight * slope.norm() / other.norm().clamp(min=1e-12))
        torch.autograd.backward((y, commitment), (slope, None))
        torch.nn.utils.clip_grad_norm_(self.params, 1.0)
        rate = self.args.lr * rate_scale(self.step, used, hold=0.5)
        self.adam.param_groups[0]['lr'], self.judge_adam.param_groups[0]['lr'] = rate, rate / 2
        self.adam.step()
        self.adam.zero_grad()
        self.step += 1
        return error.detach()

    def run(self):
        for used in (0.0, 1.0):                      # compile everything
            self.update(used)
        self.discrete = False
        began, used = time.time(), 0.0
        until = self.args.until or began + 60 * self.args.minutes
        while used < 1:
            used = (time.time() - began) / max(1e-3, until - began)
            error = self.update(used)
            if self.step % self.args.log_every == 0:
                print(json.dumps({'step': self.step, 'used': round(used, 3), 'error': round(float(error), 4),
                                  'judge': round(float(self.judge_loss), 3)}), flush=True)
        return time.time() - began


def measure(model, pictures):
    """PSNR of every split, and how many codes are in use."""
    out, splits = {}, {'train': pictures.train, 'held': pictures.held, 'val': pictures.val,
                       'unseen': pictures.unseen}
    codes = in_parts(lambda which: model.encode(pictures.white(which)),
                     torch.arange(len(pictures.rgba), device=pictures.device))
    for name, which in splits.items():
        back = in_parts(lambda c: model.decode(c).clamp(0, 1), codes[which])
        out['psnr ' + name] = round(psnr(back, pictures.white(which)), 2)
    share = torch.bincount(codes.flatten(), minlength=model.config.n_embed).float()
    share = share / share.sum()
    out['codes used'] = int((share > 0).sum())
    out['perplexity'] = round(torch.exp(-(share * share.clamp(min=1e-12).log()).sum()).item(), 1)
    return codes, out


def compare(model, pictures, codes, path):
    """Four rows of unseen pictures, each above its reconstruction."""
    which = pictures.unseen[torch.linspace(0, len(pictures.unseen) - 1, 32).long().to(pictures.device)]
    rows = torch.stack((pictures.white(which), model.decode(codes[which])), 1)
    sheet(rows.view(4, 8, 2, *rows.shape[2:]).transpose(1, 2).flatten(0, 2), 8, path)


def finish(args, model, pictures, spent=0.0, steps=0):
    """Export, and everything that follows from the shipped weights."""
    folder = os.path.join(args.outdir, CODEC)
    size = write_folder(folder, vqgan_config(model.config), model.state_dict())
    torch.backends.cudnn.allow_tf32 = False
    shipped = load_vqgan(folder, pictures.device)
    with torch.no_grad():
        codes, figures = measure(shipped, pictures)
        torch.save({'codes': codes.to(torch.int16).cpu(), 'n_embed': model.config.n_embed},
                   os.path.join(args.outdir, 'codes.tmp'))
        os.replace(os.path.join(args.outdir, 'codes.tmp'), os.path.join(args.outdir, 'codes.pt'))
        compare(shipped, pictures, codes, os.path.join(args.outdir, 'reconstructions.png'))
    parameters = sum(p.numel() for p in model.parameters())
    figures.update({'parameters': parameters, 'bytes': size, 'steps': steps, 'batch': args.batch,
                    'minutes': round(spent / 60, 2)})
    record(args.out or os.path.join(args.outdir, 'results.json'), 'tokenizer, grid %d' % args.grid, figures)
    print(json.dumps(figures), flush=True)


def main():
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('pack')
    p.add_argument('outdir')
    p.add_argument('--minutes', type=float, default=3)
    p.add_argument('--until', type=float, help='Unix time to end at, instead of --minutes')
    p.add_argument('--grid', type=int, choices=sorted(SHAPES), default=8)
    p.add_argument('--batch', type=int, default=256)
    p.add_argument('--lr', type=float, default=1.2e-3)
    p.add_argument('--seed', type=int, default=1)
    p.add_argument('--no-compile', dest='compile', action='store_false')
    p.add_argument('--log-every', type=int, default=250)
    p.add_argument('--out', help='file of results')
    args = p.parse_args()
    os.makedirs(args.outdir, exist_ok=True)
    torch.manual_seed(args.seed)
    device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    trainer = Trainer(args, Pictures(args.pack, device))
    spent = trainer.run()
    finish(args, trainer.model, trainer.pictures, spent, trainer.step)


if __name__ == '__main__':
    main()
