#!/usr/bin/python3
"""Train a generator of ordered tokens on codes of the picture set for a given time, and export it.

usage: train_ordered.py PACK OUTDIR --kind har|next [--minutes M | --until T] [--codes codes.pt]

Waits for the codes. Cross entropy over all positions in one pass; labels as train_enat.py drops them. Codes of moved and
mirrored pictures, wrong tokens among those that are read and dropout keep it from learning the set by
heart; of the averaged weights those ship that predict the held pairs best.
Writes OUTDIR/tutti-image-levels (har) or OUTDIR/tutti-image-next, figures into results.json, and
averaged weights to go on from.
"""
import json
import os
import time

import torch
import torch.nn.functional as F

from common import record
from export import write_json
from export_levels import CODEC, load_ordered, write_ordered
from images import NOWHERE, Pictures
from loop import device
from ordered import Config, Ordered
from stepper import Training, autocast, options
from train_enat import Codes

KINDS = {'har': Config(dropout=0.15), 'next': Config(ahead=0, dim=56, n_layer=3, n_head=2, dropout=0.1)}
FOLDERS = {'har': 'tutti-image-levels', 'next': 'tutti-image-next'}
CODECS = {'har': CODEC, 'next': '../tutti-image-levels/' + CODEC}
DEFAULTS = {'cfg_scale': 1.0, 'temperature': 0.7, 'top_p': 0.95}
SMOOTHING = 0.05
WRONG = 0.08                    # of the tokens that are read
AS_IT_IS = 0.3                  # of the pictures; the others are views


class Source(Codes):
    def __init__(self, pictures, config, seed):
        super().__init__(pictures, config, seed, 0)
        self.views = self.codes[self.train][None]

    def load(self, path):
        super().load(path)
        views = os.path.join(os.path.dirname(path), 'views.pt')
        self.views = torch.load(views, map_location='cpu')['views'].long().to(self.device)

    def batch(self, n):
        """(labels, tokens as they are read, tokens to predict)"""
        at = (self.rand(n) * len(self.train)).long()
        view = (self.rand(n) * len(self.views)).long()
        which = self.train[at]
        codes = torch.where((self.rand(n) < AS_IT_IS)[:, None], self.codes[which], self.views[view, at])
        other = (self.rand(*codes.shape) * self.config.codebook_size).long()
        read = torch.where(self.rand(*codes.shape) < WRONG, other, codes)
        return self.dropped(self.labels[which]), read, codes


class Best:
    """The averaged weights as they were when they served the held pairs best."""

    def __init__(self, training, pictures, source, every=100):
        self.training, self.pictures, self.source, self.every = training, pictures, source, every
        self.model = Ordered(training.model.config).to(pictures.device).eval()
        self.loss, self.step, self.state = float('inf'), 0, None

    def look(self):
        if self.training.steps % self.every:
            return
        state = self.training.mean_state()
        self.model.load_state_dict(state)
        loss = losses(self.model, self.pictures, self.source.codes, self.pictures.held)['all']
        if loss < self.loss:
            self.loss, self.step, self.state = loss, self.training.steps, state


@torch.no_grad()
def losses(model, pictures, codes, which, rows=1024):
    """Nats a token by level, concept and style known."""
    labels, total = pictures.labels[which].clone(), 0
    labels[:, 2] = NOWHERE
    for part in torch.arange(len(which), device=codes.device).split(rows):
        logits = model(labels[part], codes[which[part]])
        total = total + F.cross_entropy(logits.transpose(1, 2), codes[which[part]], reduction='none').sum(0)
    each = total / len(which)
    out = {'all': round(each.mean().item(), 3)}
    begin = 0
    for end in [1 << i for i in range(model.config.tokens.bit_length())]:
        out['%d-%d' % (begin, end - 1)] = round(each[begin:end].mean().item(), 3)
        begin = end
    return out


def main():
    p = options(__doc__.split('\n')[0], None, 3e-3, 3e-3)
    p.add_argument('--kind', choices=sorted(KINDS), required=True)
    p.add_argument('--batch', type=int, default=1024)
    p.add_argument('--codes', help='of train_restok.py; waited for')
    args = p.parse_args()
    args.name = args.name or args.kind
    os.makedirs(args.outdir, exist_ok=True)
    torch.manual_seed(args.seed)
    pictures, config = Pictures(args.pack, device()), KINDS[args.kind]
    config.label_groups = tuple(len(names) for names in pictures.names.values())
    path = args.codes or os.path.join(args.outdir, 'codes.pt')
    print('ready for %s' % path, flush=True)
    while not os.path.exists(path):
        time.sleep(0.2)
    config.tokens = torch.load(path, map_location='cpu')['codes'].shape[1]
    source = Source(pictures, config, args.seed * 1000)
    source.load(path)

    def loss_of(kind, labels, read, ids):
        with autocast(ids.device):
            logits = training.model(labels, read)
        return F.cross_entropy(logits.flatten(0, 1), ids.flatten(), label_smoothing=SMOOTHING),

    training = Training(Ordered(config), args, device(), loss_of, Ordered.is_table)
    best, more = Best(training, pictures, source), True
    while more:
        loss, = training.gradient('all', *source.batch(args.batch))
        training.note(loss)
        more = training.update()
        best.look()
    training.save()
    folder = os.path.join(args.outdir, FOLDERS[args.kind])
    size = write_ordered(folder, config, best.state or training.mean_state(), CODECS[args.kind])
    write_json(os.path.join(folder, 'generation_config.json'), DEFAULTS)
    model, _ = load_ordered(folder, device())
    figures = {'parameters': sum(w.numel() for w in model.parameters()), 'bytes': size, 'steps': training.steps,
               'step that ships': best.step, 'batch': args.batch, 'minutes': training.clock.minutes()}
    for name, which in (('train', pictures.train[::4]), ('held', pictures.held), ('val', pictures.val)):
        figures['nats a token, ' + name] = losses(model, pictures, source.codes, which)
    record(os.path.join(args.outdir, args.out), args.kind, figures)
    print(json.dumps(figures), flush=True)


if __name__ == '__main__':
    main()
