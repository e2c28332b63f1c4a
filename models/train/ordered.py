"""Causal generators over ordered image tokens, with the released tensor names: HAR (arXiv
2601.03955), which predicts whole levels, and LlamaGen (arXiv 2406.06525), one token after the other.

Position p predicts token p; position 0 reads the labels. Labels are of several groups, and the
network sees the sum of their rows, or the last row if none is given.
"""
import dataclasses

import torch
import torch.nn.functional as F
from torch import nn

from restok import attended, turned


@dataclasses.dataclass
class Config:
    tokens: int = 64
    codebook_size: int = 512
    ahead: int = 4              # tokens one by one before the levels; 0: all of them
    dim: int = 88
    n_layer: int = 4
    n_head: int = 4
    label_groups: tuple = ()
    multiple_of: int = 16
    norm_eps: float = 1e-5
    dropout: float = 0.0        # in training

    @property
    def specials(self):
        return self.tokens // 2 - 1 if self.ahead else 0

    @property
    def hidden(self):
        return -(-(2 * 4 * self.dim // 3) // self.multiple_of) * self.multiple_of

    @property
    def ends(self):
        """The end of the level of every position."""
        out = []
        for p in range(self.tokens):
            end = p + 1 if p < self.ahead or not self.ahead else 2 * self.ahead
            while end <= p:
                end *= 2
            out.append(end)
        return out

    @property
    def calls(self):
        """(begin, end) of what is predicted at once."""
        ends = sorted(set(self.ends))
        return list(zip([0] + ends, ends))


def sources(c):
    """What position p > 0 reads: a token's place, or -1 - i for special vector i."""
    out = [0]
    for p in range(1, c.tokens):
        if p < c.ahead or not c.ahead:
            out.append(p - 1)
            continue
        begin = c.ends[p] // 2
        before = 1 if begin == c.ahead else begin // 2
        i = p - begin
        out.append(begin - before + i if i < before else -1 - (i - 1))
    return torch.tensor(out)


class Norm(nn.Module):
    def __init__(self, width, eps):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(width)), eps

    def forward(self, x):
        x = x.float()
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * self.weight


class Attention(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.heads = c.n_head
        self.wqkv, self.wo = nn.Linear(c.dim, 3 * c.dim, bias=False), nn.Linear(c.dim, c.dim, bias=False)

    def forward(self, x, cos, sin, mask):
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in self.wqkv(x).chunk(3, -1))
        return self.wo(attended(turned(q, cos, sin), turned(k, cos, sin), v, mask).transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.w1, self.w3 = (nn.Linear(c.dim, c.hidden, bias=False) for _ in range(2))
        self.w2 = nn.Linear(c.hidden, c.dim, bias=False)

    def forward(self, x):
        return self.w2(F.silu(self.w1(x)) * self.w3(x))


class Layer(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.attention, self.feed_forward = Attention(c), FeedForward(c)
        self.attention_norm, self.ffn_norm = Norm(c.dim, c.norm_eps), Norm(c.dim, c.norm_eps)
        self.drop = nn.Dropout(c.dropout)

    def forward(self, x, cos, sin, mask):
        x = x + self.drop(self.attention(self.attention_norm(x), cos, sin, mask))
        return x + self.drop(self.feed_forward(self.ffn_norm(x)))


class Ordered(nn.Module):
    def __init__(self, config):
        super().__init__()
        c = self.config = config
        self.cls_embedding = nn.ModuleDict({'embedding_table': nn.Embedding(sum(c.label_groups) + 1, c.dim)})
        self.tok_embeddings = nn.Embedding(c.codebook_size, c.dim)
        if c.ahead:
            self.spe_tok_embeddings = nn.ModuleDict({'special_embeddings': nn.Embedding(c.specials, c.dim)})
        self.layers = nn.ModuleList(Layer(c) for _ in range(c.n_layer))
        self.norm, self.output = Norm(c.dim, c.norm_eps), nn.Linear(c.dim, c.codebook_size, bias=False)
        for name, p in self.named_parameters():
            if p.ndim == 2:
                nn.init.normal_(p, std=0.02)
        nn.init.zeros_(self.output.weight)
        first = [sum(c.label_groups[:i]) for i in range(len(c.label_groups))]
        place = torch.arange(c.tokens)
        half = c.dim // c.n_head // 2
        angle = place[:, None].double() * 10000 ** (-torch.arange(half, dtype=torch.float64) / half)
        source = sources(c)
        for name, t in {'first': torch.tensor(first), 'cos': angle.cos().float(), 'sin': angle.sin().float(),
                        'mask': place[None] < torch.tensor(c.ends)[:, None],
                        'token': source.clamp(min=0), 'special': (-1 - source).clamp(min=0),
                        'is_special': (source < 0)[:, None]}.items():
            self.register_buffer(name, t, persistent=False)

    @staticmethod
    def is_table(name):
        return 'embedding' in name or name.startswith('output')

    def labels(self, labels):
        """labels [n, groups], negative where none is given -> [n, dim]."""
        given = labels >= 0
        rows = torch.where(given, labels + self.first, sum(self.config.label_groups))
        given = given | ~given.any(1, keepdim=True) & (self.first == 0)     # "no class" once
        return (self.cls_embedding['embedding_table'](rows) * given[..., None]).sum(1)

    def inputs(self, labels, ids):
        """[n, tokens, dim]; of ids only what comes before a position's level is read."""
        x = self.tok_embeddings(ids[:, self.token])
        if self.config.ahead:
            special = self.spe_tok_embeddings['special_embeddings'](self.special)
            x = torch.where(self.is_special, special, x)
        return torch.cat((self.labels(labels)[:, None], x[:, 1:]), 1)

    def forward(self, labels, ids, upto=None):
        """Logits [n, upto or tokens, codes] of every position, for labels [n, groups]."""
        n = upto or self.config.tokens
        x, mask = self.inputs(labels, ids)[:, :n], self.mask[:n, :n]
        for layer in self.layers:
            x = layer(x, self.cos[:n], self.sin[:n], mask)
        return self.output(self.norm(x)).float()


@torch.no_grad()
def sample(model, labels, guidance=0.0, temperature=1.0, top_p=1.0, generator=None):
    """Tokens [n, tokens] for labels [n, groups]; logits are led away from "no class" by `guidance`."""
    n, c = len(labels), model.config
    ids = torch.zeros(n, c.tokens, dtype=torch.long, device=labels.device)
    both = torch.cat((labels, torch.full_like(labels, -1)))
    for begin, end in c.calls:
        if guidance:
            a, b = model(both, ids.repeat(2, 1), end)[:, begin:].chunk(2)
            logits = a + guidance * (a - b)
        else:
            logits = model(labels, ids, end)[:, begin:]
        p = (logits / max(temperature, 1e-5)).softmax(-1)
        if top_p < 1:
            ordered, place = p.sort(-1, descending=True)
            ordered = ordered.masked_fill(ordered.cumsum(-1) - ordered > top_p, 0)
            p = torch.zeros_like(p).scatter(-1, place, ordered)
        drawn = torch.multinomial(p.flatten(0, 1), 1, generator=generator)
        ids[:, begin:end] = drawn.view(n, end - begin)
    return ids
