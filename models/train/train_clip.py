#!/usr/bin/python3
"""Train a verifier of pictures against captions for a given time, and export it.

usage: train_clip.py PACK OUTDIR --kind verifier|judge [--minutes M | --until T] [--init weights.pt]

Contrastive in both directions over the training pictures, each with one of its captions. Two pictures
of one concept are no counterexamples where the caption does not say the style. The two kinds differ
in patches, widths, seed, vocabulary size and in how pictures are disturbed, so that the judge is not
fooled where the verifier is. Writes OUTDIR/tutti-verifier or OUTDIR/tutti-judge, figures into
results.json and averaged weights to go on from.
"""
import dataclasses
import json
import os

import torch
import torch.nn.functional as F

import captions
from clip import Clip, Config
from common import record
from export_clip import load_clip, pixels_of, write_clip
from images import Pictures
from loop import device
from stepper import Training, autocast, options
from vqgan import in_parts

KINDS = {'verifier': Config(vocab=800),
         'judge': Config(vocab=720, patch=16, image_width=48, text_width=40, projection=48)}
SEEDS = {'verifier': 11, 'judge': 23}
MOST = 100.0                    # of the logit scale


def blurred(x, rand):
    """Some pictures at half the resolution, some with noise, as generated ones may look."""
    n = len(x)
    small = F.interpolate(F.avg_pool2d(x, 2), scale_factor=2.0, mode='bilinear', align_corners=False)
    x = torch.where((rand(n) < 0.25)[:, None, None, None], small, x)
    return x + (rand(*x.shape) - 0.5) * (0.2 * rand(n) * (rand(n) < 0.3))[:, None, None, None]


def covered(x, rand):
    """Some pictures with a grey square, some with other contrast."""
    n, side = len(x), x.shape[2]
    place, size = rand(n, 2, 1) * side, rand(n, 1, 1) * side / 3
    line = torch.arange(side, device=x.device)[None, None]
    inside = ((line - place).abs() < size / 2) & (rand(n) < 0.4)[:, None, None]
    hole = (inside[:, 0, :, None] & inside[:, 1, None, :])[:, None]
    x = torch.where(hole, torch.full_like(x, 0.5), x)
    return ((x - 1) * (0.7 + 0.6 * rand(n))[:, None, None, None] + 1).clamp(0, 1)


DISTURBED = {'verifier': blurred, 'judge': covered}


class Source:
    """Training pictures with one of their captions each."""

    def __init__(self, args, pictures, config):
        self.args, self.pictures, dev = args, pictures, pictures.device
        self.noise = torch.Generator(device=dev).manual_seed(args.seed)
        ways = [captions.variants(pictures.records[i]) for i in pictures.train.tolist()]
        self.bpe = captions.learn([text for way in ways for text, _ in way], config.vocab)
        self.ids = torch.stack([padded(self.bpe, [text for text, _ in way]) for way in ways]).to(dev)
        self.styled = torch.tensor([[styled for _, styled in way] for way in ways], device=dev)

    def rand(self, *shape):
        return torch.rand(*shape, generator=self.noise, device=self.noise.device)

    def batch(self, n):
        """(pictures, ids, bool [n, n]: no counterexample)"""
        row = (self.rand(n) * len(self.ids)).long()
        way = (self.rand(n) * self.ids.shape[1]).long()
        which = self.pictures.train[row]
        x = DISTURBED[self.args.kind](self.pictures.views_of(which, self.noise), self.rand)
        same = self.pictures.labels[which, 0][:, None] == self.pictures.labels[which, 0][None]
        either = ~(self.styled[row, way][:, None] & self.styled[row, way][None])
        again = row[:, None] == row[None]
        return x, self.ids[row, way], (same & either | again) & ~torch.eye(n, dtype=torch.bool, device=x.device)


def padded(bpe, texts):
    ids = torch.zeros(len(texts), captions.CONTEXT, dtype=torch.long)
    for row, text in zip(ids, texts):
        mine = bpe.encode(text)
        row[:len(mine)] = torch.tensor(mine)
    return ids


@torch.no_grad()
def measure(model, pictures, bpe):
    """Retrieval among the captions of the search experiment and among all held pairs, in %."""
    out = {}
    sets = {'200 held pairs': torch.tensor(captions.searched(pictures), device=pictures.device),
            'held pairs': pictures.held, 'unseen concepts': pictures.val}
    for name, which in sets.items():
        texts = padded(bpe, [captions.caption(pictures.records[i]) for i in which.tolist()]).to(pictures.device)
        score = model.texts(texts) @ in_parts(lambda w: model.images(pixels_of(pictures.white(w))), which).t()
        right = torch.arange(len(which), device=pictures.device)[:, None]
        for k in (1, 5):
            found = lambda s: round(100 * (s.topk(min(k, len(which)), 1)[1] == right).any(1).double().mean().item(), 1)
            out['%s, right picture among %d' % (name, k)] = found(score)
            out['%s, right caption among %d' % (name, k)] = found(score.t())
    return out


def main():
    p = options(__doc__.split('\n')[0], None, 2e-3, 2e-3)
    p.add_argument('--kind', choices=sorted(KINDS), required=True)
    p.add_argument('--batch', type=int, default=1024)
    p.set_defaults(seed=None)
    args = p.parse_args()
    args.name, args.seed = args.name or args.kind, args.seed or SEEDS[args.kind]
    os.makedirs(args.outdir, exist_ok=True)
    torch.manual_seed(args.seed)
    pictures, config = Pictures(args.pack, device()), KINDS[args.kind]
    source = Source(args, pictures, config)
    config = dataclasses.replace(config, vocab=len(source.bpe.ids))

    def losses(kind, x, ids, excused):
        model = training.model
        with autocast(x.device):
            images, texts = model.images(pixels_of(x)), model.texts(ids)
        scores = images @ texts.t() * model.logit_scale.exp().clamp(max=MOST)
        scores = scores.masked_fill(excused, -1e4)
        target = torch.arange(len(x), device=x.device)
        return (F.cross_entropy(scores, target) + F.cross_entropy(scores.t(), target)) / 2,

    training = Training(Clip(config), args, device(), losses, Clip.is_table)
    more = True
    while more:
        loss, = training.gradient('all', *source.batch(args.batch))
        training.note(loss)
        more = training.update()
    training.save()
    folder = os.path.join(args.outdir, 'tutti-' + args.kind)
    size = write_clip(folder, config, training.mean_state(), source.bpe)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    model = load_clip(folder, device())
    figures = {'parameters': sum(w.numel() for w in model.parameters()), 'bytes': size, 'vocabulary': config.vocab,
               'steps': training.steps, 'batch': args.batch, 'minutes': training.clock.minutes(),
               **measure(model, pictures, source.bpe)}
    record(os.path.join(args.outdir, args.out), args.kind, figures)
    print(json.dumps(figures), flush=True)


if __name__ == '__main__':
    main()
