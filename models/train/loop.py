"""What training programs of several small networks share: a clock that sets the learning rate, and
learners that can be saved at any time."""
import argparse
import time

import torch

from optim import Optimiser
from train import rate_scale


def options(description, minutes=6.0, data=False):
    p = argparse.ArgumentParser(description=description)
    if data:
        p.add_argument('pack')
    p.add_argument('outdir')
    p.add_argument('--minutes', type=float, default=minutes)
    p.add_argument('--until', type=float, help='Unix time to end at, instead of --minutes')
    p.add_argument('--steps', type=float, default=float('inf'), help='end earlier, after so many steps')
    p.add_argument('--lr', type=float, default=4e-3, help='matrices')
    p.add_argument('--table-lr', type=float, default=2e-3, help='tables and norms')
    p.add_argument('--seed', type=int, default=1)
    p.add_argument('--no-compile', dest='compile', action='store_false')
    p.add_argument('--log-every', type=int, default=100)
    p.add_argument('--save-seconds', type=float, default=60)
    p.add_argument('--out', default='results.json')
    return p


def device():
    return torch.device('cuda' if torch.cuda.is_available() else 'cpu')


class Clock:
    """The share of the time that is used up; the first steps, in which code is compiled, do not
    count."""

    def __init__(self, args, first_steps=10):
        self.args, self.first_steps = args, first_steps
        self.step, self.began = 0, time.time()
        self.end = args.until or self.began + 60 * args.minutes
        self.saved = self.began

    def tick(self):
        """Called after every step; returns whether there is time for another."""
        self.step += 1
        if self.step == self.first_steps:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            self.began = time.time()
        return self.used() < 1

    def used(self):
        left = max(1e-3, self.end - self.began)
        return max((time.time() - self.began) / left, self.step / self.args.steps)

    def minutes(self):
        return round((time.time() - self.began) / 60, 2)

    def to_save(self):
        if time.time() - self.saved < self.args.save_seconds:
            return False
        self.saved = time.time()
        return True


class Learner:
    """A network, its optimiser and running means of what it reports."""

    def __init__(self, model, args, is_table, average=0.998):
        self.model = model.to(device())
        self.optimiser = Optimiser(self.model, args.lr, args.table_lr, average, is_table)
        self.dtype = torch.bfloat16 if torch.cuda.is_available() else torch.float32
        self.steps, self.means = 0, {}

    def learn(self, loss, used, **reports):
        """One step down the gradient of `loss`; reports are scalars on the device."""
        loss.backward()
        norm = self.optimiser.step(rate_scale(self.steps, used))
        self.steps += 1
        for name, value in {'loss': loss.detach(), 'norm': norm, **reports}.items():
            old = self.means.get(name, value)
            self.means[name] = old + (value - old) * 0.02

    def report(self):
        return {name: round(float(value), 4) for name, value in self.means.items()}

    def parameters(self):
        return sum(p.numel() for p in self.model.parameters())

    def mean_state(self):
        """The averaged weights by name."""
        names = [name for name, _ in self.model.named_parameters()]
        return {name: w.detach().clone() for name, w in zip(names, self.optimiser.mean)}

    def averaged(self, fresh):
        """`fresh`, a network like the trained one, with the averaged weights."""
        fresh.load_state_dict(self.mean_state())
        return fresh.to(device()).eval()
