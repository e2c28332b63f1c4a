"""Batches drawn on the GPU, and the ways a masked model sees them spoilt.

A batch is ROWS token places: sequences of one length L, as many as fit.  L changes from step to
step, so the model meets every amount of padding; a record is followed by end-of-text up to L,
and long prose is sometimes cut off, so that canvases without an end exist as well.
"""
import numpy as np
import torch

from common import EOS, MASK
from records import GROUPS

LENGTHS = (16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 512)
ROWS = 107520                                   # a multiple of every length
PROSE = ('wn-sentences', 'kjv', 'austen', 'moby', 'sotu', 'devil', 'jargon')
SHARES = {'wn-cards': 17.5, 'wn-sentences': 3.5, 'kjv': 7, 'austen': 4.5, 'moby': 2.5, 'sotu': 5,
          'devil': 1, 'jargon': 2.5, 'elements': 0.5, 'cmudict': 6,
          'task-add': 3, 'task-sub': 3, 'task-mul': 3, 'task-numwords': 2, 'task-roman': 2.5,
          'task-date': 4, 'task-cron': 1.5, 'task-unit': 2, 'task-json': 1.5, 'task-sort': 2,
          'task-reverse': 1.5, 'task-count': 2, 'chat-book': 13, 'chat-task': 9}
PAD_LOSSES = 8              # at most about so many padding places of a sequence count
TAGGED = 0.8


class Side:
    """One side (train or val) of the encoded data, on the device."""

    def __init__(self, path, side, device):
        data = np.load(path)
        get = lambda name: torch.from_numpy(data['%s_%s' % (side, name)]).to(device)
        self.tokens, self.start, self.length = get('tokens'), get('start'), get('length').long()
        self.tag, self.group = get('tag').long(), get('group').long()
        self.spans, self.boost = get('spans').long(), get('boost')
        self.device = device

    def canvas(self, chosen, length, tagged, crop=None):
        """Token ids [n, length], number of content places, and how far content was shifted."""
        shift = (tagged & (self.tag[chosen] >= 0)).long()
        crop = torch.zeros_like(shift) if crop is None else crop
        place = torch.arange(length, device=self.device)[None] - (shift - crop)[:, None]
        size = self.length[chosen][:, None]
        known = (place >= 0) & (place < size)
        at = self.start[chosen][:, None] + place.clamp(min=0).minimum(size - 1)
        ids = torch.where(known, self.tokens[at].long(), torch.full_like(at, EOS))
        ids[:, 0] = torch.where(shift > 0, self.tag[chosen], ids[:, 0])
        count = (self.length[chosen] + shift - crop).clamp(max=length)
        return ids, count, shift - crop, shift > 0


def draw_weights(side):
    """Chance of each sample per draw, so that token shares come out as SHARES."""
    weight = torch.zeros(len(side.length), dtype=torch.float64, device=side.device)
    for number, name in enumerate(GROUPS):
        of = side.group == number
        mass = (side.boost[of] * side.length[of]).sum()
        if mass > 0:
            weight[of] = SHARES[name] * side.boost[of].double() / mass.double()
    return weight


def length_chances(size, is_prose):
    """[samples, lengths]: how likely a record of `size` tokens is put on each canvas length.

    Mostly the smallest canvas that holds it, sometimes the next two, seldom any larger one;
    prose is put on a canvas too small for it in 8 % of the draws."""
    lengths = torch.tensor(LENGTHS, device=size.device)
    fit = torch.searchsorted(lengths, size + 2)
    index = torch.arange(len(LENGTHS), device=size.device)[None]
    far = (index > fit[:, None] + 2) * lengths[None].double() ** -1.5
    chance = 0.1 * far / far.sum(1, keepdim=True).clamp(min=1e-12)
    for step, share in ((0, 0.6), (1, 0.2), (2, 0.1)):
        at = (fit + step).clamp(max=len(LENGTHS) - 1)
        chance[torch.arange(len(size), device=size.device), at] += share
    small = (index < fit[:, None]) * is_prose[:, None] * 1.0
    return chance + 0.08 * small / small.sum(1, keepdim=True).clamp(min=1)


class Stream:
    """Endless training batches.  `plan` picks lengths (the same on every rank), `noise` the rest."""

    def __init__(self, side, seed, rank, rows=ROWS):
        self.side, self.rows = side, rows
        weight = draw_weights(side)
        prose = torch.tensor([name in PROSE for name in GROUPS], device=side.device)[side.group]
        sums = []
        for part in range(0, len(weight), 1 << 19):       # in parts: the table is wide
            of = slice(part, part + (1 << 19))
            sums.append(length_chances(side.length[of], prose[of]) * weight[of, None])
        table = torch.cat(sums)
        mass = table.sum(0)
        self.cumulated = [table[:, i].cumsum(0) for i in range(len(LENGTHS))]
        share = (mass.cpu() * torch.tensor(LENGTHS)).numpy()
        self.share = share / share.sum()
        self.plan = np.random.default_rng(seed)
        self.noise = torch.Generator(device=side.device).manual_seed(seed * 1000 + rank)

    def rand(self, *shape):
        return torch.rand(*shape, generator=self.noise, device=self.side.device)

    def next(self):
        """ids [n, L], content counts, shifts, tagged flags, the chosen samples."""
        which = self.plan.choice(len(LENGTHS), p=self.share)
        length = LENGTHS[which]
        n = max(1, self.rows // length)
        sums = self.cumulated[which]
        spots = (torch.arange(n, device=self.side.device) + self.rand(n)).double() / n
        chosen = torch.searchsorted(sums, spots * sums[-1]).clamp(max=len(sums) - 1)
        tagged = self.rand(n) < TAGGED
        over = (self.side.length[chosen] + 1 - length).clamp(min=0)
        crop = (self.rand(n) * over).long() * (self.rand(n) < 0.5)
        return (*self.side.canvas(chosen, length, tagged, crop), chosen)


def mask_chances(stream, ids, count, shift, chosen):
    """How likely each place is masked, and the level t of its sequence.

    Five views of a sequence, as serving meets them: everything alike; everything alike with the
    padding unknown; one span asked for; a block being written with nothing after it known; and
    holes in the middle."""
    n, length = ids.shape
    rand, device = stream.rand, ids.device
    place = torch.arange(length, device=device)[None]
    pad = place >= count[:, None]
    t = ((torch.arange(n, device=device) + rand(1)) / n)[rand(n).argsort()] * 0.98 + 0.02
    group = stream.side.group[chosen]
    asked = torch.where(group >= GROUPS.index('task-add'), 0.45, 0.2)
    view = rand(n)
    is_span = view < asked
    is_block = (view >= asked) & (view < asked + 0.1)
    is_holes = (view >= asked + 0.1) & (view < asked + 0.23)
    t = torch.where((is_span | is_holes) & (rand(n) < 0.3), torch.ones_like(t), t)
    level = t[:, None].expand(n, length)
    unknown_pad = (rand(n) < 0.5)[:, None]
    chance = torch.where(pad & unknown_pad, torch.ones_like(level), level)

    spans = stream.side.spans[chosen].view(n, 2, 2)
    span = spans[torch.arange(n, device=device), (rand(n) < 0.25).long()] + shift[:, None]
    inside = (place >= span[:, :1]) & (place < span[:, 1:])
    chance = torch.where(is_span[:, None], torch.where(inside | pad, chance, chance * 0), chance)

    begin = (rand(n) * count).long()[:, None]
    width = (2 ** (2 + 3 * rand(n))).long()[:, None]
    after = place >= begin + width
    block = torch.where(after, torch.ones_like(level), level * (place >= begin))
    chance = torch.where(is_block[:, None], block, chance)

    holes = torch.zeros_like(pad)
    for _ in range(2):
        middle = (rand(n) * count)[:, None]
        holes |= (place - middle).abs() < (1 + 9 * rand(n) ** 2)[:, None]
    hole_pad = pad & (rand(n) < 0.3)[:, None]
    hollow = torch.where(hole_pad, torch.ones_like(level), level * (holes & ~pad))
    return torch.where(is_holes[:, None], hollow, chance), t


def masked_batch(stream):
    """(spoilt ids, targets, loss weights, content tokens) of one training step."""
    ids, count, shift, tagged, chosen = stream.next()
    chance, t = mask_chances(stream, ids, count, shift, chosen)
    chance[:, 0] *= ~tagged
    place = torch.arange(ids.shape[1], device=ids.device)[None]
    hidden = stream.rand(*ids.shape) < chance
    free = torch.where(chance == 1, torch.ones_like(chance), (1 / t.clamp(min=0.1))[:, None])
    pads = (ids.shape[1] - 1 - count).clamp(min=1)
    counted = (place <= count[:, None]) | (stream.rand(*ids.shape) < (PAD_LOSSES / pads)[:, None])
    weights = free * (hidden & counted)
    return torch.where(hidden, torch.full_like(ids, MASK), ids), ids, weights, count.sum()


def causal_batch(stream):
    """The same sequences for next-token training: end-of-text starts a sequence, tags are given."""
    ids, count, _, tagged, _ = stream.next()
    place = torch.arange(ids.shape[1], device=ids.device)[None]
    weights = (place <= count[:, None]).float()
    weights[:, 0] *= ~tagged
    return torch.cat((torch.full_like(ids[:, :1], EOS), ids[:, :-1]), 1), ids, weights, count.sum()


def guide_batch(stream):
    """Like causal_batch, but half of the sequences start with their own first token, as a guide
    meets them that reads a prompt from its first column on."""
    fed, ids, weights, count = causal_batch(stream)
    whole = (stream.rand(len(ids)) < 0.5)[:, None]
    ahead = lambda x, last: torch.cat((x[:, 1:], last), 1)
    end, nothing = torch.full_like(ids[:, :1], EOS), torch.zeros_like(weights[:, :1])
    weights = torch.where(whole, weights, ahead(weights, nothing))
    return torch.where(whole, fed, ids), torch.where(whole, ids, ahead(ids, end)), weights, weights.sum()
