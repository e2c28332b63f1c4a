#!/usr/bin/python3
"""Train the picture generator on codes of the picture set for a given time, and export it.

usage: train_enat.py PACK OUTDIR [--minutes M | --until T] [--codes OUTDIR/codes.pt]

       torchrun --standalone --nproc_per_node 2 train_enat.py ...    (data parallel)

The recipe is ENAT's (arXiv 2411.06959) but for the optimiser, which is the one of this folder, for
the output matrix, which learns from both of its ends, and for the labels: concept and style, or
group and style, each dropped now and then. The numbers of visible tokens come from a short list, so
that each has a CUDA graph of its own; those are made before the codes are there, so that this
program can be started together with train_vqgan.py. Writes OUTDIR/tutti-image without its
tokenizer, and OUTDIR/mean.pt.
"""
import copy
import json
import os
import random
import time

import torch
import torch.nn.functional as F

from common import record
from enat import Config, Enat
from export_images import enat_config, load_enat, write_folder, write_labels
from export import write_json
from images import NOWHERE, Pictures
from train import Trainer, options

EXPORTED = 'tutti-image'
SHAPES = {8: Config(), 16: Config(input_size=16, enc_dec=(4, 1), codebook_size=512)}
DEFAULTS = {'steps': 8, 'cfg_scale': 0.0, 'temperature': 0.5, 'order_temperature': 1.5}
EVEN_SHARE = 0.15               # of batches: any share of the tokens hidden, not the recipe's
BLANK_SHARE = 0.05              # of batches: everything hidden
REUSE_SHARE = 0.5
SMOOTHING = 0.1
VISIBLE = 2, 4, 6, 9, 12, 16, 20, 25, 30, 36, 42, 50, 58     # 64ths of the tokens
OLD = 0.35, 0.7                 # of the visible, with reuse
NO_LABEL, NO_STYLE, ONLY_GROUP = 0.1, 0.1, 0.08         # of pictures


def split(visible, tokens, old):
    """(old, new) of `visible` 64ths of the tokens, the share `old` of them old."""
    visible = visible * tokens // 64
    return round(visible * old), visible - round(visible * old)


def all_sizes(tokens):
    return sorted({(0, 0)} | {split(v, tokens, old) for v in VISIBLE for old in (0, *OLD)})


class Codes:
    """Codes and labels of the training pictures; random codes until those of the tokenizer come."""

    def __init__(self, pictures, config, seed, rank):
        self.config, self.device, self.train = config, pictures.device, pictures.train
        self.labels = pictures.labels
        self.noise = torch.Generator(device=self.device).manual_seed(seed + rank)
        self.host = random.Random(seed)          # the same on every rank
        self.codes = torch.randint(config.codebook_size, (len(self.labels), config.tokens),
                                   generator=self.noise, device=self.device)

    def load(self, path):
        self.codes = torch.load(path, map_location='cpu')['codes'].long().to(self.device)

    def rand(self, *shape):
        return torch.rand(*shape, generator=self.noise, device=self.device)

    def dropped(self, labels):
        """Labels as the network gets them: concept and style, group and style, some, or none."""
        n, nowhere = len(labels), torch.full_like(labels[:, 0], NOWHERE)
        concept, style, group = labels.unbind(1)
        only_group = self.rand(n) < ONLY_GROUP
        style = torch.where(self.rand(n) < NO_STYLE, nowhere, style)
        labels = torch.stack((torch.where(only_group, nowhere, concept), style,
                              torch.where(only_group, group, nowhere)), 1)
        return torch.where((self.rand(n) < NO_LABEL)[:, None], NOWHERE, labels)

    def sizes(self):
        """(old, new) numbers of visible tokens, the same for the whole batch; one of all_sizes()."""
        draw, host = self.host.random(), self.host
        if draw < BLANK_SHARE:
            return 0, 0
        hidden = host.random() if draw < BLANK_SHARE + EVEN_SHARE else host.betavariate(12, 3)
        visible = min(VISIBLE, key=lambda v: abs(v - 64 * (1 - hidden)))
        return split(visible, self.config.tokens, host.choice(OLD) if host.random() < REUSE_SHARE else 0)

    def batch(self, n):
        """(ids, labels, places in random order, old, new)"""
        which = self.train[(self.rand(n) * len(self.train)).long()]
        places = self.rand(n, self.config.tokens).argsort(1)
        return self.codes[which], self.dropped(self.labels[which]), places, *self.sizes()


class EnatTrainer(Trainer):
    def __init__(self, args, model, pictures):
        def source(device, seed, rank):
            self.source = Codes(pictures, model.config, seed * 1000, rank)
            return self.source.batch
        super().__init__(args, model, source)
        self.shadow = copy.deepcopy(self.model).eval().requires_grad_(False)
        for p, mean in zip(self.shadow.parameters(), self.optimiser.mean):
            p.data = mean                        # follows the running mean without a copy
        self.pictures = args.rows // model.config.tokens // self.world
        self.graphs = {}
        if args.compile and self.device.type == 'cuda':
            self.capture()

    def compile(self):
        """Nothing to do: graphs take the place of compilation."""

    def capture(self):
        """A CUDA graph of both passes for every pair of sizes; all use the same memory in turn."""
        self.inputs = [t.clone() for t in self.draw(self.pictures)[:3]]
        sizes, side = all_sizes(self.model.config.tokens), torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for pair in sizes:
                self.loss_of(*self.inputs, *pair).backward()
        torch.cuda.current_stream().wait_stream(side)
        pool = torch.cuda.graph_pool_handle()
        for pair in sizes:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=pool):
                loss = self.loss_of(*self.inputs, *pair)
                loss.backward()
            self.graphs[pair] = graph, loss.detach()
        self.optimiser.flat.zero_()

    def features(self, model, ids, places, condition, old=None):
        return model.encode(model.embed(ids.gather(1, places), places, self.dtype), old, condition)

    def loss_of(self, ids, labels, places, old, new):
        model, past = self.model, None
        if old:
            with torch.no_grad():
                condition = self.shadow.condition(labels).to(self.dtype)
                past = self.features(self.shadow, ids, places[:, :old], condition)
        condition = model.condition(labels).to(self.dtype)
        visible = self.features(model, ids, places[:, old:old + new], condition, past) if new else None
        hidden = places[:, old + new:]
        states = model.decode(model.embed(None, hidden, self.dtype), visible, condition)
        targets = ids.gather(1, hidden).flatten()
        return F.cross_entropy(model.logits(states).flatten(0, 1), targets, label_smoothing=SMOOTHING)

    def gradient(self):
        *batch, old, new = self.draw(self.pictures)
        self.rows += batch[0].numel()
        if not self.graphs:
            loss = self.loss_of(*batch, old, new)
            loss.backward()
            return loss.detach(), 0.0
        for mine, drawn in zip(self.inputs, batch):
            mine.copy_(drawn)
        graph, loss = self.graphs[old, new]
        graph.replay()
        return loss, 0.0


@torch.no_grad()
def losses(model, pictures, codes, which, hidden, seed=7, rows=512):
    """Cross entropy a hidden token, in nats, with `hidden` of the tokens hidden and all labels known."""
    noise, total = torch.Generator(device=codes.device).manual_seed(seed), 0.0
    for part in which.split(rows):
        places = torch.rand(len(part), codes.shape[1], generator=noise, device=codes.device).argsort(1)
        labels = pictures.labels[part].clone()
        labels[:, 2] = NOWHERE
        seen, blank = places[:, hidden:], places[:, :hidden]
        logits, _ = model.step(codes[part], blank, seen, None, labels)
        target = codes[part].gather(1, blank)
        total += -logits.log_softmax(-1).gather(-1, target[..., None]).mean(1).sum().item()
    return round(total / len(which), 3)


def measure(model, pictures, codes):
    length, out = model.config.tokens, {}
    for name, which in (('train', pictures.train[::4]), ('held', pictures.held), ('val', pictures.val)):
        out['nats a token, ' + name] = {
            '%d of %d hidden' % (hidden, length): losses(model, pictures, codes, which, hidden)
            for hidden in (length, length * 3 // 4, length // 4)}
    return out


def export(outdir, config, names):
    folder = os.path.join(outdir, EXPORTED)
    state = torch.load(os.path.join(outdir, 'mean.pt'), map_location='cpu')
    size = write_folder(folder, enat_config(config), state)
    write_json(os.path.join(folder, 'generation_config.json'), DEFAULTS)
    write_labels(folder, names)
    return folder, size


def main():
    p = options(__doc__.split('\n')[0], rows=1024 * 64)
    p.add_argument('--grid', type=int, choices=sorted(SHAPES), default=8)
    p.add_argument('--codes', help='of train_vqgan.py; waited for')
    p.add_argument('--out', help='file of results')
    p.set_defaults(lr=3e-3, table_lr=3e-3)
    args = p.parse_args()
    os.makedirs(args.outdir, exist_ok=True)
    torch.manual_seed(args.seed)
    device = torch.device('cuda', int(os.environ.get('LOCAL_RANK', 0))) if torch.cuda.is_available() else 'cpu'
    pictures = Pictures(args.data, torch.device(device))
    config = SHAPES[args.grid]
    config.label_groups = tuple(len(names) for names in pictures.names.values())
    trainer = EnatTrainer(args, Enat(config).train(), pictures)
    path = args.codes or os.path.join(args.outdir, 'codes.pt')
    print('ready for %s' % path, flush=True)
    while not os.path.exists(path):
        time.sleep(0.2)
    trainer.source.load(path)
    began = time.time()
    trainer.run()
    spent = time.time() - began
    if trainer.rank:
        return
    folder, size = export(args.outdir, config, pictures.names)
    model = load_enat(folder, device)
    figures = {'parameters': sum(w.numel() for w in model.parameters()), 'bytes': size,
               'steps': trainer.step, 'batch': args.rows // config.tokens, 'minutes': round(spent / 60, 2),
               **measure(model, pictures, trainer.source.codes)}
    record(args.out or os.path.join(args.outdir, 'results.json'), 'generator, grid %d' % args.grid, figures)
    print(json.dumps(figures), flush=True)


if __name__ == '__main__':
    main()
