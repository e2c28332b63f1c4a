#!/usr/bin/python3
"""Train tutti-text for a given time.

usage: train.py DATA.npz OUTDIR --minutes M
       torchrun --standalone --nproc_per_node 2 train.py ...         (data parallel)

Writes OUTDIR/checkpoint.pt (everything, to go on from with --resume), OUTDIR/mean.pt (averaged
weights in bfloat16: what is exported) and OUTDIR/log.jsonl.  The learning rate follows the share
of the time that is used up, so a run always ends with a finished schedule.

The trainer here serves the other networks too (causal.py, sudoku.py).
"""
import argparse
import json
import os
import time

import torch
import torch.distributed as dist
import torch.nn.functional as F

import batches
from model import Config, Llada
from optim import Optimiser


def weighted_loss(hidden, table, targets, weights):
    logits = F.linear(hidden, table.to(hidden.dtype)).float()
    return (F.cross_entropy(logits, targets, reduction='none') * weights).sum()


def rate_scale(step, used, hold=0.35, warm=150):
    """Warm-up by steps, then constant, then a straight line down to zero over time."""
    return min(1.0, (step + 1) / warm) * min(1.0, max(0.0, (1 - used) / (1 - hold)))


class Trainer:
    """make_source(device, seed, rank) returns a function that draws (ids, targets, weights, content):
    content is the number of tokens that the loss is counted by.  Of all rows at most the share
    `loss_rows` can carry a loss."""

    def __init__(self, args, model, make_source, loss_rows=1.0):
        self.args, self.loss_rows = args, loss_rows
        self.rank, self.world = int(os.environ.get('RANK', 0)), int(os.environ.get('WORLD_SIZE', 1))
        cuda = torch.cuda.is_available()
        self.device = torch.device('cuda', int(os.environ.get('LOCAL_RANK', 0))) if cuda else torch.device('cpu')
        if cuda:
            torch.cuda.set_device(self.device)
        if self.world > 1:
            dist.init_process_group('nccl' if cuda else 'gloo')
        self.dtype = torch.bfloat16 if cuda else torch.float32
        self.model = model.to(self.device)
        self.loss = weighted_loss
        if args.compile:
            self.compile()
        self.optimiser = Optimiser(self.model, args.lr, args.table_lr)
        self.step, self.tokens, self.rows, self.spent, self.minutes = 0, 0, 0, 0.0, args.minutes
        if args.resume and os.path.exists(self.path('checkpoint.pt')):
            self.load()
        self.draw = make_source(self.device, args.seed + self.step, self.rank)

    def compile(self):
        self.model.parts = tuple(torch.compile(part) for part in self.model.parts)
        self.loss = torch.compile(weighted_loss)

    def path(self, name):
        return os.path.join(self.args.outdir, name)

    def gradient(self):
        """One batch forth and back; returns (loss per content token, share of losses left out)."""
        ids, targets, weights, content = self.draw()
        weights, limit = weights.reshape(-1), int(weights.numel() * self.loss_rows)
        kept = torch.argsort((weights > 0).to(torch.int8), descending=True, stable=True)[:limit]
        lost = 1 - weights[kept].sum() / weights.sum()
        hidden = self.model.hidden(ids, self.dtype)[kept]
        loss = self.loss(hidden, self.model.wte.weight, targets.reshape(-1)[kept], weights[kept]) / content
        loss.backward()
        self.tokens, self.rows = self.tokens + content, self.rows + ids.numel()
        return loss.detach(), lost

    def reduce(self):
        if self.world > 1:
            dist.all_reduce(self.optimiser.flat)
            self.optimiser.flat.div_(self.world)

    def used(self, began):
        """Share of the time, or of the tokens asked for, that is gone; the same on every rank."""
        share = (self.spent + time.time() - began) / (60 * self.minutes)
        if self.args.tokens:
            share = max(share, int(self.tokens) * self.world / self.args.tokens)
        if self.args.until and time.time() >= self.args.until:
            share = 1.0
        share = torch.tensor(share, dtype=torch.float64, device=self.device)
        if self.world > 1:
            dist.broadcast(share, 0)
        return share.item()

    def run(self):
        began, used, mean_loss = time.time(), self.used(time.time()), 0.0
        saved = began
        while used < 1:
            loss, lost = self.gradient()
            self.reduce()
            norm = self.optimiser.step(rate_scale(self.step, used))
            mean_loss = mean_loss + (loss - mean_loss) * 0.02 if self.step else loss
            self.step += 1
            if self.step == 20:                     # compilation does not count
                self.spent -= time.time() - began
                if self.args.until:
                    self.minutes = max(0.1, self.args.until - time.time()) / 60
            if self.step % 10 == 0:
                used = self.used(began)
            if self.step % self.args.log_every == 0 and self.rank == 0:
                self.log(used, mean_loss, norm, lost)
            if self.rank == 0 and time.time() - saved > self.args.save_seconds:
                self.save(began)
                saved = time.time()
        if self.rank == 0:
            self.save(began)
        if self.world > 1:
            dist.destroy_process_group()

    def log(self, used, loss, norm, lost):
        line = {'step': self.step, 'used': round(used, 4), 'loss': round(float(loss), 4),
                'norm': round(float(norm), 3), 'lost': round(float(lost), 4),
                'rows': self.rows * self.world, 'tokens': int(self.tokens) * self.world}
        print(json.dumps(line), flush=True)
        with open(self.path('log.jsonl'), 'a') as f:
            f.write(json.dumps(line) + '\n')

    def save(self, began):
        names = [n for n, _ in self.model.named_parameters()]
        mean = {n: p.to(torch.bfloat16) for n, p in zip(names, self.optimiser.mean)}
        torch.save(mean, self.path('mean.tmp'))
        os.replace(self.path('mean.tmp'), self.path('mean.pt'))
        state = {'model': self.model.state_dict(), 'optimiser': self.optimiser.state(), 'step': self.step,
                 'tokens': int(self.tokens), 'rows': self.rows, 'spent': self.spent + time.time() - began}
        torch.save(state, self.path('checkpoint.tmp'))
        os.replace(self.path('checkpoint.tmp'), self.path('checkpoint.pt'))

    def load(self):
        state = torch.load(self.path('checkpoint.pt'), map_location=self.device)
        self.model.load_state_dict(state['model'])
        self.optimiser.load(state['optimiser'])
        self.step, self.tokens, self.rows = state['step'], state['tokens'], state['rows']
        self.spent = state['spent']


def options(description, rows=batches.ROWS, data=True):
    """What every training program can be told."""
    p = argparse.ArgumentParser(description=description)
    if data:
        p.add_argument('data')
    p.add_argument('outdir')
    p.add_argument('--minutes', type=float, default=10)
    p.add_argument('--until', type=float, help='Unix time to end at, instead of --minutes')
    p.add_argument('--tokens', type=float, help='end earlier, after so many text tokens')
    p.add_argument('--rows', type=int, default=rows, help='token places of a batch')
    p.add_argument('--lr', type=float, default=4e-3, help='matrices')
    p.add_argument('--table-lr', type=float, default=2e-3, help='tables and norms')
    p.add_argument('--seed', type=int, default=1)
    p.add_argument('--resume', action='store_true')
    p.add_argument('--no-compile', dest='compile', action='store_false')
    p.add_argument('--log-every', type=int, default=100)
    p.add_argument('--save-seconds', type=float, default=120)
    return p


def source(args, make_batch):
    """A Trainer's make_source: batches of the encoded text's training side."""
    def make(device, seed, rank):
        stream = batches.Stream(batches.Side(args.data, 'train', device), seed, rank, args.rows)
        return lambda: make_batch(stream)
    return make


def main():
    args = options(__doc__.split('\n')[0]).parse_args()
    os.makedirs(args.outdir, exist_ok=True)
    torch.manual_seed(args.seed)
    Trainer(args, Llada(Config()), source(args, batches.masked_batch), loss_rows=0.5).run()


if __name__ == '__main__':
    main()
