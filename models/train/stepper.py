"""Steps of small picture networks: a CUDA graph for every kind of step, the optimiser of this folder,
and weights that a later run can go on from."""
import os

import torch

from loop import Clock
from optim import Optimiser
from train import rate_scale


def autocast(device):
    """bfloat16 products on a GPU. Nothing is cached, so that a graph holds its own casts."""
    cuda = torch.device(device).type == 'cuda'
    return torch.autocast('cuda' if cuda else 'cpu', torch.bfloat16, enabled=cuda, cache_enabled=False)


class Captured:
    """f(kind, *tensors) -> tensors, as one CUDA graph for every kind; on a CPU it is simply called.

    The tensors of a kind always have the same shapes. f runs three times before its graph is made,
    so `clear` undoes what it leaves behind (gradients)."""

    def __init__(self, f, clear, enabled):
        self.f, self.clear, self.enabled, self.graphs, self.pool = f, clear, enabled, {}, None

    def __call__(self, kind, *inputs):
        if not self.enabled:
            return self.f(kind, *inputs)
        if kind not in self.graphs:
            self.capture(kind, inputs)
        graph, mine, out = self.graphs[kind]
        for a, b in zip(mine, inputs):
            a.copy_(b)
        graph.replay()
        return out

    def capture(self, kind, inputs):
        mine, side = [t.clone() for t in inputs], torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                self.f(kind, *mine)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.pool):
            out = self.f(kind, *mine)
        self.pool = self.pool or graph.pool()
        self.graphs[kind] = graph, mine, out
        self.clear()


class Training:
    """A network being trained until the time is up.

    losses(kind, *tensors) -> (loss to go down, whatever is to be seen of it). The gradient is taken
    here, unless losses took it itself and gives None."""

    def __init__(self, model, args, device, losses, is_table=lambda name: False, hold=0.4):
        self.model, self.args, self.device, self.hold = model.to(device), args, torch.device(device), hold
        self.optimiser = Optimiser(self.model, args.lr, args.table_lr, 0.999, is_table)
        graphs = args.compile and self.device.type == 'cuda'
        self.losses = losses
        self.captured = Captured(self.passes, self.optimiser.flat.zero_, graphs)
        self.begin()
        if args.init:
            self.go_on_from(args.init)

    def begin(self):
        """From now on the time runs; what was learned so far is kept, gradients are not."""
        self.optimiser.flat.zero_()
        self.clock, self.steps, self.mean = Clock(self.args, 5), 0, None

    def passes(self, kind, *inputs):
        loss, *seen = self.losses(kind, *inputs)
        if loss is not None:
            loss.backward()
        return [t.detach() for t in (seen if loss is None else (loss, *seen))]

    def gradient(self, kind, *inputs):
        """Fills the gradients; returns what losses gave, the loss first."""
        return self.captured(kind, *inputs)

    def update(self):
        """One step along the gradients; returns whether there is time for another."""
        self.optimiser.step(rate_scale(self.steps, self.clock.used(), self.hold))
        self.steps += 1
        return self.clock.tick()

    def note(self, value):
        """A running mean of what a step showed; printed now and then."""
        self.mean = value.clone() if self.mean is None else self.mean.lerp(value, 0.02)
        if self.steps % self.args.log_every == 0:
            print('step %d used %.3f loss %.4f' % (self.steps, self.clock.used(), self.mean.item()), flush=True)
        if self.clock.to_save():
            self.save()

    def mean_state(self):
        names = [name for name, _ in self.model.named_parameters()]
        state = {name: t.detach().clone() for name, t in self.model.state_dict().items()}
        state.update({name: w.detach().clone() for name, w in zip(names, self.optimiser.mean)})
        return state

    def save(self):
        path = os.path.join(self.args.outdir, self.args.name + '.pt')
        torch.save({name: t.to(torch.bfloat16) for name, t in self.mean_state().items()}, path + '.tmp')
        os.replace(path + '.tmp', path)

    def go_on_from(self, path):
        state = {name: t.float() for name, t in torch.load(path, map_location='cpu').items()}
        self.model.load_state_dict(state)
        with torch.no_grad():
            for mean, p in zip(self.optimiser.mean, self.optimiser.params):
                mean.copy_(p)


def options(description, name, lr, table_lr, minutes=6.0):
    import loop
    p = loop.options(description, minutes, data=True)
    p.add_argument('--init', help='averaged weights of an earlier run to go on from')
    p.add_argument('--name', default=name, help='of the file of averaged weights')
    p.set_defaults(lr=lr, table_lr=table_lr, log_every=500)
    return p
