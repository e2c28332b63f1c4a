"""The picture generator: ENAT (arXiv 2411.06959), with the released tensor names.

Visible tokens pass the encoder blocks, hidden ones the decoder blocks with the visible as context.
After the first step only newly revealed tokens are encoded; older ones keep their feature, put once
a step through `prev_proj`. Every picture of a batch has the same number of visible tokens, so
nothing is padded; attention has no positions, so the order of tokens is free.
"""
import dataclasses
import math

import torch
import torch.nn.functional as F
from torch import nn


@dataclasses.dataclass
class Config:
    input_size: int = 8
    hidden_size: int = 160
    num_heads: int = 5
    enc_dec: tuple = (3, 2)
    codebook_size: int = 2048
    label_groups: tuple = (1, 1, 1)     # labels of each group; their rows lie one after the other
    mlp_ratio: float = 4.0
    dropout: float = 0.1

    @property
    def tokens(self):
        return self.input_size ** 2

    @property
    def mask(self):
        return self.codebook_size

    @property
    def nothing(self):
        """The label row of "no class"."""
        return sum(self.label_groups)


def linear(x, weight, bias):
    return F.linear(x, weight.to(x.dtype), bias.to(x.dtype))


def layer_norm(x, weight=None, bias=None, eps=1e-6):
    return F.layer_norm(x.float(), x.shape[-1:], weight, bias, eps).to(x.dtype)


def modulated(x, scale, shift):
    return layer_norm(x) * (1 + scale) + shift


def heads_apart(x, heads):
    return x.view(x.shape[0], x.shape[1], heads, -1).transpose(1, 2)


def pair(module):
    return module.weight, module.bias


class Mlp(nn.Module):
    def __init__(self, width, hidden):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)


class Attention(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.q, self.proj = nn.Linear(width, width), nn.Linear(width, width)
        self.kv = nn.ModuleDict({'A': nn.Linear(width, 2 * width), 'B': nn.Linear(width, 2 * width)})


class Block(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.heads = c.num_heads
        self.attn = Attention(c.hidden_size)
        self.mlp = Mlp(c.hidden_size, int(c.hidden_size * c.mlp_ratio))
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(c.hidden_size, 8 * c.hidden_size))

    def forward(self, x, condition, context):
        """Tokens x [n, a, width] updated, with context [n, b, width] or None."""
        s = linear(F.silu(condition), *pair(self.adaLN_modulation[1]))[:, None]
        shift, scale, shift_context, scale_context, gate, shift_mlp, scale_mlp, gate_mlp = s.chunk(8, -1)
        h = modulated(x, scale, shift)
        q, kv = linear(h, *pair(self.attn.q)), linear(h, *pair(self.attn.kv['B']))
        if context is not None:
            context = modulated(context, scale_context, shift_context)
            kv = torch.cat((linear(context, *pair(self.attn.kv['A'])), kv), 1)
        q, k, v = (heads_apart(part, self.heads) for part in (q, *kv.chunk(2, -1)))
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = x + gate * linear(attended, *pair(self.attn.proj))
        h = F.gelu(linear(modulated(x, scale_mlp, shift_mlp), *pair(self.mlp.fc1)), approximate='tanh')
        return x + gate_mlp * linear(h, *pair(self.mlp.fc2))


class Embedder(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.word_embeddings = nn.Embedding(c.codebook_size + 1, c.hidden_size)
        self.position_embeddings = nn.Embedding(c.tokens, c.hidden_size)
        self.LayerNorm = nn.LayerNorm(c.hidden_size, eps=1e-6)


class Reuse(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.norm = nn.LayerNorm(c.hidden_size, eps=1e-6)
        self.mlp = Mlp(c.hidden_size, int(c.hidden_size * c.mlp_ratio))

    def forward(self, z):
        h = linear(layer_norm(z, *pair(self.norm)), *pair(self.mlp.fc1))
        return z + linear(F.gelu(h, approximate='tanh'), *pair(self.mlp.fc2))


class Head(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.fc, self.ln = nn.Linear(c.hidden_size, c.hidden_size), nn.LayerNorm(c.hidden_size, eps=1e-5)
        self.bias = nn.Parameter(torch.zeros(1, 1, c.codebook_size + 1))


class Enat(nn.Module):
    def __init__(self, config):
        super().__init__()
        c = self.config = config
        self.x_embedder = Embedder(c)
        self.y_embedder = nn.ModuleDict({'embedding_table': nn.Embedding(c.nothing + 1, c.hidden_size)})
        self.prev_proj = Reuse(c)
        self.blocks = nn.ModuleList(Block(c) for _ in range(sum(c.enc_dec)))
        self.norm = nn.LayerNorm(c.hidden_size, eps=1e-5)
        self.mlm_layer = Head(c)
        first = [sum(c.label_groups[:i]) for i in range(len(c.label_groups))]
        self.register_buffer('first_label', torch.tensor(first), persistent=False)
        self.initialise()

    def initialise(self):
        for name, p in self.named_parameters():
            if self.is_table(name):
                nn.init.normal_(p, std=0.02)
            elif p.ndim == 2:
                nn.init.zeros_(p) if 'adaLN' in name else nn.init.xavier_uniform_(p)
            elif name.endswith('.bias'):
                nn.init.zeros_(p)

    @staticmethod
    def is_table(name):
        return 'embedding' in name

    def condition(self, labels):
        """labels [n, groups], negative where none is given -> [n, width], the sum of their rows."""
        given = labels >= 0
        rows = torch.where(given, labels + self.first_label, self.config.nothing)
        # The row of "no class" once if nothing is given.
        given = given | ~given.any(1, keepdim=True) & (self.first_label == 0)
        return (F.embedding(rows, self.y_embedder['embedding_table'].weight) * given[..., None]).sum(1)

    def embed(self, ids, places, dtype):
        """Tokens `ids` at `places`, both [n, a]; ids None: hidden ones. A row that every hidden token
        looks up would be slow to sum a gradient for, so it is added instead."""
        e = self.x_embedder
        word = e.word_embeddings.weight
        x = word[self.config.mask] if ids is None else F.embedding(ids, word)
        x = x + F.embedding(places, e.position_embeddings.weight)
        x = F.layer_norm(x, x.shape[-1:], *pair(e.LayerNorm), 1e-6)
        return F.dropout(x, self.config.dropout, self.training).to(dtype)

    def encode(self, new, old, condition):
        """Features of the visible tokens, the old ones first: new [n, a, width] embedded, old
        [n, b, width] features of the step before; either may be None."""
        old = None if old is None else self.prev_proj(old)
        if new is None:
            return old
        for block in self.blocks[:self.config.enc_dec[0]]:
            new = block(new, condition, old)
        return new if old is None else torch.cat((old, new), 1)

    def decode(self, hidden, visible, condition):
        for block in self.blocks[self.config.enc_dec[0]:]:
            hidden = block(hidden, condition, visible)
        return hidden

    def logits(self, x):
        """Of the codes, in float32, for features [n, a, width]."""
        k, m = self.config.codebook_size, self.mlm_layer
        x = F.gelu(linear(layer_norm(x, *pair(self.norm), eps=1e-5), *pair(m.fc)))
        x = layer_norm(x, *pair(m.ln), eps=1e-5)
        word = self.x_embedder.word_embeddings.weight[:k]
        return F.linear(x, word.to(x.dtype)).float() + m.bias.view(-1)[:k]

    def step(self, ids, hidden, new, old, labels, dtype=torch.float32):
        """(logits at places `hidden`, features of the visible): ids [n, tokens], hidden and new
        [n, ...] places, old the features of the step before or None."""
        condition = self.condition(labels).to(dtype)
        seen = self.embed(ids.gather(1, new), new, dtype) if new.shape[1] else None
        visible = self.encode(seen, old, condition)
        return self.logits(self.decode(self.embed(None, hidden, dtype), visible, condition)), visible


def still_hidden(tokens, step, steps):
    return math.floor(tokens * math.cos((step + 1) / steps * math.pi * 0.5)) if step + 1 < steps else 0


@torch.no_grad()
def sample(model, labels, steps=8, guidance=1.5, temperature=3.0, order_temperature=1.5, reuse=True,
           generator=None, dtype=torch.float32):
    """Tokens [n, tokens] for labels [n, groups], all places revealed in `steps` steps."""
    n, length = len(labels), model.config.tokens
    gumbel = lambda x: -torch.empty_like(x).exponential_(generator=generator).clamp(min=1e-30).log()
    both = torch.cat((labels, torch.full_like(labels, -1)))
    ids = torch.full((n, length), model.config.mask, device=labels.device)
    hidden = torch.arange(length, device=labels.device).expand(n, -1)
    seen, fresh, features = hidden[:, :0], hidden[:, :0], None
    for step in range(steps):
        ratio, w = (step + 1) / steps, guidance * step / steps
        rows = 2 if guidance and step else 1
        new = fresh if reuse else seen
        logits, features = model.step(ids.repeat(rows, 1), hidden.repeat(rows, 1), new.repeat(rows, 1),
                                      features if reuse else None, both[:rows * n], dtype)
        logits = logits[:n] + w * (logits[:n] - logits[n:]) if rows == 2 else logits
        lp = logits.log_softmax(-1)
        token = (lp / max(temperature * (1 - ratio), 1e-3) + gumbel(lp)).argmax(-1)
        sure = lp.gather(-1, token[..., None])[..., 0]
        sure = sure + order_temperature * (1 - ratio) * gumbel(sure)
        ids = ids.scatter(1, hidden, token)
        order = sure.argsort(1)
        left = still_hidden(length, step, steps)
        fresh, hidden = hidden.gather(1, order[:, left:]), hidden.gather(1, order[:, :left])
        seen = torch.cat((seen, fresh), 1)
        ids = ids.scatter(1, hidden, torch.full_like(hidden, model.config.mask))
    return ids
