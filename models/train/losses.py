"""Losses on the validation side, in nats per token, end-of-text included.

The masked model's is an upper bound, estimated with 16 masked counts per sequence; the
autoregressive one's is exact.  Both look at the same sequences with the source tag given.
"""
import math

import torch
import torch.nn.functional as F

import batches
import records
from common import EOS, MASK


def canvases(side, group, limit, batch=192):
    """Validation canvases of a group, by length: (ids, content counts, tagged flags)."""
    chosen = torch.nonzero(side.group == group)[:limit, 0]
    lengths = torch.tensor(batches.LENGTHS, device=side.device)
    fit = torch.searchsorted(lengths, side.length[chosen] + 2)
    for which in fit.unique().tolist():
        for part in chosen[fit == which].split(batch):
            tagged = torch.ones_like(part, dtype=torch.bool)
            ids, count, _, tagged = side.canvas(part, batches.LENGTHS[which], tagged)
            yield ids, count, tagged


def token_losses(model, ids, targets):
    logits = model(ids).float()
    return F.cross_entropy(logits.flatten(0, 1), targets.reshape(-1), reduction='none').view(ids.shape)


def masked_sums(model, ids, count, tagged, generator, draws=16):
    """Bound on the negative log-likelihood of each canvas, padding included, tag given."""
    n, length = ids.shape
    places = length - tagged.long()
    total = torch.zeros(n, device=ids.device)
    for draw in range(draws):
        u = (torch.rand(n, generator=generator, device=ids.device) + draw) / draws
        masks = (u * places).long() + 1
        order = torch.rand(n, length, generator=generator, device=ids.device)
        order[:, 0] += 2 * tagged
        hidden = order.argsort(1).argsort(1) < masks[:, None]
        losses = token_losses(model, torch.where(hidden, torch.full_like(ids, MASK), ids), ids)
        total += (losses * hidden).sum(1) * places / masks / draws
    return total


def causal_sums(model, ids, count, tagged, generator):
    fed = torch.cat((torch.full_like(ids[:, :1], EOS), ids[:, :-1]), 1)
    place = torch.arange(ids.shape[1], device=ids.device)[None]
    counted = (place <= count[:, None]) & ~((place == 0) & tagged[:, None])
    return (token_losses(model, fed, ids) * counted).sum(1)


@torch.no_grad()
def losses(measure, model, side, limit=600):
    """{group: nats per token} on the validation side; `all` is over the tokens of every group."""
    out, whole = {}, [0.0, 0.0]
    generator = torch.Generator(device=side.device).manual_seed(11)
    for number, name in enumerate(records.GROUPS):
        total = tokens = 0.0
        for ids, count, tagged in canvases(side, number, limit):
            total += measure(model, ids, count, tagged, generator).sum().item()
            tokens += (count + 1 - tagged.long()).sum().item()
        if tokens:
            out[name] = round(total / tokens, 4)
            whole = [whole[0] + total, whole[1] + tokens]
    return {**out, 'all': round(whole[0] / whole[1], 4)}


def with_bits(table):
    return {name: {'nats': nats, 'bits': round(nats / math.log(2), 4)} for name, nats in table.items()}


def unigram(train, val, limit=600):
    """Nats per token of single-token frequencies, each group with its own."""
    out = {}
    for number, name in enumerate(records.GROUPS):
        chosen, asked = torch.nonzero(train.group == number)[:60000, 0], torch.nonzero(val.group == number)[:limit, 0]
        if not len(asked):
            continue
        counts = torch.bincount(gather(train, chosen), minlength=8192).double() + 0.5
        counts[EOS] += len(chosen)
        nats = -(counts / counts.sum()).log()
        tokens = gather(val, asked)
        out[name] = round((nats[tokens].sum() + len(asked) * nats[EOS]).item() / (len(tokens) + len(asked)), 4)
    return out


def gather(side, chosen):
    return torch.cat([side.tokens[s:s + n] for s, n in zip(
        side.start[chosen].tolist(), side.length[chosen].tolist())]).long()
