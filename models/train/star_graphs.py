"""Star graphs: one path to find among arms that meet in a node, drawn by thousands at once.

The recipe is that of the insertion-LM paper's three levels.  Every arm is a chain of nodes; all
arms share one node, the junction, at a place of their own.  The task is arm 0: given all edges in
any order, its first and its last node, write its edges.  In the two harder levels the path begins
before the junction, and there it has to choose among the other arms' ways on.
"""
import dataclasses

import torch

from ilm import Batch, Layout

NODES = 56
CLS, BOS, EOS, UNK, PAD, MASK = range(NODES, NODES + 6)
VOCAB = 64                       # two separators of the original vocabulary are unused
SPECIAL = {'cls': CLS, 'bos': BOS, 'eos': EOS, 'unk': UNK, 'pad': PAD, 'mask': MASK}


@dataclasses.dataclass(frozen=True)
class Level:
    degree: int
    least: int                   # nodes of an arm, the junction counted in each
    most: int
    min_plan: int                # nodes behind the junction, at least; -1: the junction is first
    labels: int

    @property
    def targets(self):
        return 2 * (self.most - 1)

    @property
    def prefix(self):
        """Places before the path: [CLS], edges, source, goal, [BOS]."""
        return 2 * (self.degree * (self.most - 1)) + 4

    @property
    def longest(self):
        return self.prefix + self.targets


LEVELS = {'easy': Level(3, 5, 5, -1, 20), 'medium': Level(3, 3, 6, 2, 20), 'hard': Level(5, 6, 12, 5, 56)}


@dataclasses.dataclass
class Graphs:
    """prefix: [n, level.prefix] with -1 in unused places; path: [n, level.targets] tokens of the
    path's edges, -1 behind its end."""
    level: Level
    prefix: torch.Tensor
    path: torch.Tensor


class Source:
    """An endless stream of graphs from a seed."""

    def __init__(self, device, seed):
        self.device = device
        self.generator = torch.Generator(device=device).manual_seed(seed)

    def rand(self, *shape):
        return torch.rand(*shape, generator=self.generator, device=self.device)

    def draw(self, level, n):
        degree, most = level.degree, level.most
        length = level.least + (self.rand(n, degree) * (most - level.least + 1)).long()
        room = length - level.min_plan if level.min_plan >= 0 else torch.ones_like(length)
        junction = (self.rand(n, degree) * room).long()
        label = self.rand(n, level.labels).argsort(1)
        first = 1 + (length - 1).cumsum(1) - (length - 1)
        t = torch.arange(most, device=self.device)
        own = first[:, :, None] + t - (t > junction[:, :, None]).long()
        own = torch.where(t == junction[:, :, None], torch.zeros_like(own), own)
        node = label.gather(1, own.clamp(max=level.labels - 1).flatten(1)).view(n, degree, most)
        edge = torch.stack((node[:, :, :-1], node[:, :, 1:]), 3)
        there = t[1:] < length[:, :, None]
        edge = edge.masked_fill(~there[..., None], -1)
        path = edge[:, 0].flatten(1)
        order = (self.rand(n, degree * (most - 1)) + 2.0 * (~there).flatten(1)).argsort(1)
        edges = edge.flatten(1, 2).gather(1, order[:, :, None].expand(-1, -1, 2)).flatten(1)
        goal = node[:, 0].gather(1, length[:, :1] - 1)
        one = torch.ones(n, 1, dtype=torch.long, device=self.device)
        prefix = torch.cat((one * CLS, edges, node[:, 0, :1], goal, one * BOS), 1)
        return Graphs(level, prefix, path)


def compact(slots, keep, length, fill):
    """What is kept of every row moved to its front, cut or filled up to `length` places."""
    order = (~keep).to(torch.uint8).argsort(dim=1, stable=True)
    moved = slots.masked_fill(~keep, fill).gather(1, order)[:, :length]
    return torch.nn.functional.pad(moved, (0, length - moved.shape[1]), value=fill)


def key_mask(alive):
    return torch.zeros(alive.shape, device=alive.device).masked_fill(~alive, -1e30)[:, None, None]


def join(pieces, rows_of):
    """One Batch of several, whose row and sequence numbers follow each other."""
    out, row, seq = {}, 0, 0
    total = sum(len(p.first) for p in pieces)
    for p, rows in zip(pieces, rows_of):
        n = len(p.first)
        shift = {'ids': 0, 'first': row, 'target_row': row, 'target': 0, 'target_seq': seq, 'weight': 0,
                 'counts': 0}
        for name, by in shift.items():
            out.setdefault(name, []).append(getattr(p, name) + by)
        out.setdefault('seq', []).append(torch.where(p.seq == n, torch.full_like(p.seq, total), p.seq + seq))
        out.setdefault('position', []).append(p.layout.position)
        out.setdefault('parts', []).extend(p.layout.parts)
        row, seq = row + rows, seq + n
    parts, position = out.pop('parts'), torch.cat(out.pop('position'))
    return Batch(layout=Layout(parts, position), **{name: torch.cat(list_) for name, list_ in out.items()})


def insertion_batch(graphs, noise, length):
    """Some tokens of every path left out, any number of them equally likely.  noise(n, k) draws
    uniform numbers."""
    n, prefix = graphs.prefix.shape
    slots = torch.cat((graphs.prefix, graphs.path), 1)
    present, path = slots >= 0, graphs.path >= 0
    sizes = path.sum(1)
    missing = (noise(n, 1)[:, 0] * (sizes + 1)).long()
    rank = noise(n, path.shape[1]).masked_fill(~path, 2.0).argsort(1).argsort(1)
    dropped = path & (rank < missing[:, None])
    keep = present & ~torch.cat((torch.zeros_like(graphs.prefix, dtype=torch.bool), dropped), 1)
    ids = compact(slots, keep, length, PAD)
    alive = ids != PAD
    number = torch.arange(n, device=ids.device)
    left = keep.cumsum(1)[:, prefix:] - 1                # last kept place before a dropped one
    weight = dropped / (missing[:, None] + 1e-9)
    seq = number[:, None].expand(-1, length).clone()
    seq[:, 0] = n
    seq = torch.where(alive, seq, torch.full_like(seq, n))
    place = torch.arange(length, device=ids.device).repeat(n)
    return Batch(
        ids.flatten(), Layout([(n, length, key_mask(alive))], place), seq.flatten(), number * length,
        (number[:, None] * length + left).flatten(), graphs.path.clamp(min=0).flatten(),
        number[:, None].expand_as(path).flatten(), weight.flatten().float(), torch.ones(n, device=ids.device))


def canvas_batch(graphs, noise, length):
    """For the masked baseline: (ids, layout, targets, weights); the path is followed by end tokens
    up to the level's longest path, every place of it is masked with the sequence's own chance, and
    a masked one weighs 1 / chance."""
    n, prefix = graphs.prefix.shape
    path = torch.where(graphs.path < 0, torch.full_like(graphs.path, EOS), graphs.path)
    level = ((torch.arange(n, device=path.device)[:, None] + noise(1, 1)) / n)[noise(n, 1)[:, 0].argsort()]
    hidden = noise(*path.shape) < level
    slots = torch.cat((graphs.prefix, path), 1)
    spoilt = torch.cat((graphs.prefix, path.masked_fill(hidden, MASK)), 1)
    weight = torch.cat((torch.zeros_like(graphs.prefix), hidden / level.clamp(min=0.1) / path.shape[1]), 1)
    keep = slots >= 0
    ids, target = compact(spoilt, keep, length, PAD), compact(slots, keep, length, PAD)
    weight = compact(weight, keep, length, 0.0)
    place = torch.arange(length, device=ids.device).repeat(n)
    return ids.flatten(), Layout([(n, length, key_mask(target != PAD))], place), target.flatten(), \
        weight.flatten()


def causal_batch(graphs, length):
    """For the autoregressive baseline: every token of the path and the end after it is learned;
    targets stand where they are predicted."""
    n, prefix = graphs.prefix.shape
    ends = torch.full_like(graphs.path[:, :1], -1)
    path = torch.cat((graphs.path, ends), 1)
    size = (graphs.path >= 0).sum(1, keepdim=True)
    path = path.scatter(1, size, torch.full_like(size, EOS))
    slots = torch.cat((graphs.prefix, path), 1)
    known = torch.cat((torch.zeros_like(graphs.prefix), (path >= 0).long()), 1)
    keep = slots >= 0
    ids = compact(slots, keep, length + 1, PAD)
    learned = compact(known, keep, length + 1, 0)
    weight = learned[:, 1:].float() / learned.sum(1, keepdim=True)
    place = torch.arange(length, device=ids.device).repeat(n)
    return ids[:, :-1].flatten(), Layout([(n, length, None)], place), ids[:, 1:].flatten(), weight.flatten()
