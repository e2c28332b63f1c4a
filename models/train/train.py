#!/usr/bin/python3
"""Train tutti-text (masked) or its autoregressive baseline (causal) for a given time.

usage: train.py DATA.npz OUTDIR --minutes M [--objective masked|causal]
       torchrun --standalone --nproc_per_node 2 train.py ...         (data parallel)

Writes OUTDIR/checkpoint.pt (everything, to go on from with --resume), OUTDIR/mean.pt (averaged
weights in bfloat16: what is exported) and OUTDIR/log.jsonl.  The learning rate follows the share
of the time that is used up, so a run always ends with a finished schedule.
"""
import argparse
import json
import os
import time

import torch
import torch.distributed as dist
import torch.nn.functional as F

import batches
from model import Config, Llada, attention_inputs, block_output
from optim import Optimiser

LOSS_ROWS = 0.5              # share of the rows that can carry a loss


def weighted_loss(hidden, table, targets, weights):
    logits = F.linear(hidden, table.to(hidden.dtype)).float()
    return (F.cross_entropy(logits, targets, reduction='none') * weights).sum()


def rate_scale(step, used, hold=0.35, warm=150):
    """Warm-up by steps, then constant, then a straight line down to zero over time."""
    return min(1.0, (step + 1) / warm) * min(1.0, max(0.0, (1 - used) / (1 - hold)))


class Trainer:
    def __init__(self, args):
        self.args = args
        self.rank, self.world = int(os.environ.get('RANK', 0)), int(os.environ.get('WORLD_SIZE', 1))
        cuda = torch.cuda.is_available()
        self.device = torch.device('cuda', int(os.environ.get('LOCAL_RANK', 0))) if cuda else torch.device('cpu')
        if cuda:
            torch.cuda.set_device(self.device)
        if self.world > 1:
            dist.init_process_group('nccl' if cuda else 'gloo')
        self.dtype = torch.bfloat16 if cuda else torch.float32
        torch.manual_seed(args.seed)
        self.model = Llada(Config(), causal=args.objective == 'causal').to(self.device)
        self.loss = weighted_loss
        if args.compile:
            self.model.parts = torch.compile(attention_inputs), torch.compile(block_output)
            self.loss = torch.compile(weighted_loss)
        self.optimiser = Optimiser(self.model, args.lr, args.table_lr)
        self.step, self.tokens, self.spent = 0, 0, 0.0
        if args.resume and os.path.exists(self.path('checkpoint.pt')):
            self.load()
        side = batches.Side(args.data, 'train', self.device)
        self.stream = batches.Stream(side, args.seed + self.step, self.rank)

    def path(self, name):
        return os.path.join(self.args.outdir, name)

    def batch(self):
        make = batches.causal_batch if self.args.objective == 'causal' else batches.masked_batch
        return make(self.stream)

    def gradient(self):
        """One batch forth and back; returns (loss per content token, share of losses left out)."""
        ids, targets, weights, content = self.batch()
        weights, limit = weights.reshape(-1), int(weights.numel() * LOSS_ROWS)
        if self.args.objective == 'causal':
            limit = weights.numel()
        kept = torch.argsort((weights > 0).to(torch.int8), descending=True, stable=True)[:limit]
        lost = 1 - weights[kept].sum() / weights.sum()
        hidden = self.model.hidden(ids, self.dtype)[kept]
        loss = self.loss(hidden, self.model.wte.weight, targets.reshape(-1)[kept], weights[kept]) / content
        loss.backward()
        self.seen = content
        return loss.detach(), lost

    def reduce(self):
        if self.world > 1:
            dist.all_reduce(self.optimiser.flat)
            self.optimiser.flat.div_(self.world)

    def used(self, began):
        """Share of the time that is gone, the same on every rank."""
        share = torch.tensor((self.spent + time.time() - began) / (60 * self.args.minutes),
                             dtype=torch.float64, device=self.device)
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
            self.tokens, self.step = self.tokens + self.seen, self.step + 1
            if self.step == 20:                     # compilation does not count
                self.spent -= time.time() - began
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
                'rows': self.step * batches.ROWS * self.world, 'tokens': int(self.tokens) * self.world}
        print(json.dumps(line), flush=True)
        with open(self.path('log.jsonl'), 'a') as f:
            f.write(json.dumps(line) + '\n')

    def save(self, began):
        names = [n for n, _ in self.model.named_parameters()]
        mean = {n: p.to(torch.bfloat16) for n, p in zip(names, self.optimiser.mean)}
        torch.save(mean, self.path('mean.tmp'))
        os.replace(self.path('mean.tmp'), self.path('mean.pt'))
        state = {'model': self.model.state_dict(), 'optimiser': self.optimiser.state(), 'step': self.step,
                 'tokens': int(self.tokens), 'spent': self.spent + time.time() - began}
        torch.save(state, self.path('checkpoint.tmp'))
        os.replace(self.path('checkpoint.tmp'), self.path('checkpoint.pt'))

    def load(self):
        state = torch.load(self.path('checkpoint.pt'), map_location=self.device)
        self.model.load_state_dict(state['model'])
        self.optimiser.load(state['optimiser'])
        self.step, self.tokens, self.spent = state['step'], state['tokens'], state['spent']


def main():
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('data')
    p.add_argument('outdir')
    p.add_argument('--minutes', type=float, required=True)
    p.add_argument('--objective', choices=('masked', 'causal'), default='masked')
    p.add_argument('--lr', type=float, default=4e-3, help='matrices')
    p.add_argument('--table-lr', type=float, default=2e-3, help='token table and norms')
    p.add_argument('--seed', type=int, default=1)
    p.add_argument('--resume', action='store_true')
    p.add_argument('--no-compile', dest='compile', action='store_false')
    p.add_argument('--log-every', type=int, default=100)
    p.add_argument('--save-seconds', type=float, default=120)
    args = p.parse_args()
    os.makedirs(args.outdir, exist_ok=True)
    Trainer(args).run()


if __name__ == '__main__':
    main()
