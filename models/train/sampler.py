"""Filling masks the way the model is served: the places it is most certain of come first."""
import torch

from common import EOS, IM_END, MASK


def guess(model, canvas, temperature, generator):
    """(ids, probabilities of them) for every place; the mask itself is never guessed."""
    logits = model(canvas).float()
    logits[..., MASK] = -torch.inf
    if temperature:
        noise = -torch.empty_like(logits).exponential_(generator=generator).log()
        ids = (logits / temperature + noise).argmax(-1)
    else:
        ids = logits.argmax(-1)
    return ids, logits.softmax(-1).gather(-1, ids[..., None])[..., 0]


@torch.no_grad()
def fill(model, canvas, steps=None, threshold=None, block=None, first=0, temperature=0, generator=None):
    """Fill every mask of canvas [n, length] in place; returns the number of forward passes.

    With `steps` each pass commits an even share of a block's masks; with `threshold` it commits
    all places at least so certain, and the best one anyway.  Blocks of `block` places are
    counted from column `first` on; None is one block."""
    length, passes = canvas.shape[1], 0
    block = block or length - first
    starts = list(range(first, length, block))
    for number, start in enumerate(starts):
        end = start + block if number + 1 < len(starts) else length
        left = max(1, (steps or 1) // len(starts))
        while True:
            open_ = canvas == MASK
            open_[:, end:] = False
            count = open_.sum(1)
            if not count.any():
                break
            ids, sure = guess(model, canvas, temperature, generator)
            sure = sure.masked_fill(~open_, -1)
            quota = torch.ones_like(count) if threshold else -(-count // left)
            rank = sure.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
            take = open_ & (rank < quota[:, None])
            if threshold:
                take |= open_ & (sure >= threshold)
            canvas[take] = ids[take]
            passes, left = passes + 1, max(1, left - 1)
    return passes


def answers(model, tokenizer, prompts, gen_length, batch=128, **how):
    """Texts that follow the prompts, and the mean number of passes.  Prompts of one length share
    a batch, so nothing is padded."""
    device = next(model.parameters()).device
    ids = [e.ids for e in tokenizer.encode_batch(prompts, add_special_tokens=False)]
    out, passes = [None] * len(prompts), 0
    by_length = {}
    for i, prompt in enumerate(ids):
        by_length.setdefault(len(prompt), []).append(i)
    for length, group in by_length.items():
        for at in range(0, len(group), batch):
            part = group[at:at + batch]
            canvas = torch.full((len(part), length + gen_length), MASK, device=device)
            canvas[:, :length] = torch.tensor([ids[i] for i in part], device=device)
            passes += fill(model, canvas, first=length, **how) * len(part)
            for i, row in zip(part, canvas[:, length:].tolist()):
                out[i] = tokenizer.decode(until_end(row))
    return out, passes / max(1, len(prompts))


def until_end(ids):
    for i, token in enumerate(ids):
        if token in (EOS, IM_END):
            return ids[:i]
    return ids


def infill(model, tokenizer, pieces, **how):
    """pieces: texts and numbers in turn, a number being a hole of so many tokens."""
    ids = []
    for piece in pieces:
        ids += [MASK] * piece if isinstance(piece, int) else tokenizer.encode(
            piece, add_special_tokens=False).ids
    canvas = torch.tensor([ids], device=next(model.parameters()).device)
    fill(model, canvas, **how)
    return tokenizer.decode(until_end(canvas[0].tolist()))
