"""Filling masks the way the model is served: the places it is most certain of come first."""
import itertools

import torch

from common import EOS, IM_END, MASK


ENDS = (EOS, IM_END)


def guess(model, canvas, valid, never, temperature, generator):
    """(ids, probabilities of them) for every place; the mask and `never` are not guessed."""
    logits = model(canvas, valid=valid).float()
    logits[..., [MASK, *never]] = -torch.inf
    if temperature:
        noise = -torch.empty_like(logits).exponential_(generator=generator).log()
        ids = (logits / temperature + noise).argmax(-1)
    else:
        ids = logits.argmax(-1)
    return ids, logits.softmax(-1).gather(-1, ids[..., None])[..., 0]


@torch.no_grad()
def fill(model, canvas, steps=None, threshold=None, block=None, first=0, valid=None, never=(),
         temperature=0, generator=None):
    """Fill every mask of canvas [n, length] in place; returns the forward passes each row took.

    With `steps` each pass commits an even share of a block's masks; with `threshold` it commits
    all places at least so certain, and the best one anyway.  Blocks of `block` places are
    counted from column `first` on; None is one block.  A row that has ended in a block is not
    written further."""
    n, length = canvas.shape
    passes = torch.zeros(n, dtype=torch.long, device=canvas.device)
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
            ids, sure = guess(model, canvas, valid, never, temperature, generator)
            sure = sure.masked_fill(~open_, -1)
            quota = torch.ones_like(count) if threshold else -(-count // left)
            rank = sure.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
            take = open_ & (rank < quota[:, None])
            if threshold:
                take |= open_ & (sure >= threshold)
            canvas[take] = ids[take]
            passes += count > 0
            left = max(1, left - 1)
        ended = ((canvas == EOS) | (canvas == IM_END))[:, start:end].any(1, keepdim=True)
        canvas[(canvas == MASK) & ended] = EOS
    return passes


def answers(model, tokenizer, prompts, gen_length, batch=400, **how):
    """Texts that follow the prompts, and the mean number of passes.  With blocks, only prompts of
    one length share a batch; else shorter ones are padded by places that nothing sees."""
    ids = [e.ids for e in tokenizer.encode_batch(prompts, add_special_tokens=False)]
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    parts = [list(part) for _, part in itertools.groupby(order, key=lambda i: len(ids[i]))] \
        if how.get('block') else [order]
    out, passes = [None] * len(prompts), 0
    for part in parts:
        for at in range(0, len(part), batch):
            group = part[at:at + batch]
            texts, used = continuations(model, tokenizer, [ids[i] for i in group], gen_length, **how)
            passes += used.sum().item()
            for i, text in zip(group, texts):
                out[i] = text
    return out, passes / max(1, len(prompts))


def continuations(model, tokenizer, prompts, gen_length, **how):
    """One batch of `answers`: (texts, passes of each)."""
    device = next(model.parameters()).device
    longest = max(map(len, prompts)) + gen_length
    rows = [p + [MASK] * gen_length + [EOS] * (longest - len(p) - gen_length) for p in prompts]
    sizes = torch.tensor([len(p) + gen_length for p in prompts], device=device)
    canvas = torch.tensor(rows, device=device)
    valid = torch.arange(longest, device=device)[None] < sizes[:, None]
    passes = fill(model, canvas, first=min(map(len, prompts)), valid=valid, **how)
    texts = [tokenizer.decode(until_end(row[len(p):len(p) + gen_length]))
             for p, row in zip(prompts, canvas.tolist())]
    return texts, passes


def until_end(ids):
    for i, token in enumerate(ids):
        if token in ENDS:
            return ids[:i]
    return ids


def infill(model, tokenizer, pieces, tail=4, **how):
    """pieces: texts and numbers in turn, a number being a hole of so many tokens.  Holes never
    end the text; `tail` end tokens after it say that it ends here."""
    ids = []
    for piece in pieces:
        ids += [MASK] * piece if isinstance(piece, int) else tokenizer.encode(
            piece, add_special_tokens=False).ids
    canvas = torch.tensor([ids + [EOS] * tail], device=next(model.parameters()).device)
    fill(model, canvas, never=ENDS, **how)
    return tokenizer.decode(canvas[0, :len(ids)].tolist())
