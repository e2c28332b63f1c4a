"""Insertion language model (arXiv 2505.05755): the network, its loss, its way of writing.

Tensor names are the released checkpoints'.  Rows of all sequences lie end to end in one [rows,
width] matrix; a Layout says where sequences lie, what they may see and at which position a row
stands.  The same network without the stop classifier is the masked-diffusion baseline, and with
causal sight the autoregressive one.
"""
import dataclasses

import torch
import torch.nn.functional as F
from torch import nn

EPS = 1e-5
NEVER = -1e9                     # of a score that may not be chosen


@dataclasses.dataclass
class Config:
    vocab_size: int
    cls: int                     # special tokens
    bos: int
    eos: int
    unk: int
    pad: int
    mask: int
    d_model: int = 192
    num_layers: int = 6
    nhead: int = 6
    dim_feedforward: int = 640
    rotary_emb_dim: int = 16
    max_length: int = 136
    stop_head: bool = True
    causal: bool = False

    def suppressed(self):
        """Tokens that are never inserted."""
        return [self.mask, self.eos, self.cls, self.bos, self.pad]


@dataclasses.dataclass
class Layout:
    """parts: (sequences, places of each, key mask or None) in the order of the rows; a mask is
    added to the scores, [sequences, 1, 1 or places, places].  position: of every row."""
    parts: list
    position: torch.Tensor


def rotate(x, cos, sin):
    """Half-rotate on the first channels of a head, the others pass; x is [rows, heads, channels]."""
    half = cos.shape[-1]
    a, b, rest = x[..., :half], x[..., half:2 * half], x[..., 2 * half:]
    return torch.cat((a * cos - b * sin, b * cos + a * sin, rest), -1)


def attention_inputs(x, norm_w, norm_b, qkv_w, cos, sin, heads: int, dtype: torch.dtype):
    """Queries, keys and values, each [rows, heads, channels]; the residual stream x is float32."""
    h = F.layer_norm(x, (x.shape[-1],), norm_w, norm_b, EPS).to(dtype)
    q, k, v = F.linear(h, qkv_w.to(dtype)).view(x.shape[0], 3, heads, -1).unbind(1)
    return rotate(q.float(), cos, sin).to(dtype), rotate(k.float(), cos, sin).to(dtype), v


def block_output(x, a, out_w, norm_w, norm_b, w0, b0, w2, b2):
    """Residual around the attention's projection, then around the ReLU network."""
    dtype = a.dtype
    x = x + F.linear(a, out_w.to(dtype)).float()
    h = F.layer_norm(x, (x.shape[-1],), norm_w, norm_b, EPS).to(dtype)
    h = F.relu(F.linear(h, w0.to(dtype), b0.to(dtype)))
    return x + F.linear(h, w2.to(dtype), b2.to(dtype)).float()


PIECES = attention_inputs, block_output      # a trainer may put compiled ones into Insertion.pieces


def attend(q, k, v, layout, causal):
    """Attention part by part; returns [rows, width]."""
    out, at = [], 0
    for n, length, mask in layout.parts:
        end = at + n * length
        part = [t[at:end].view(n, length, *t.shape[1:]).transpose(1, 2) for t in (q, k, v)]
        sight = {'is_causal': True} if causal else {
            'attn_mask': None if mask is None else mask.to(q.dtype).expand(n, q.shape[1], -1, -1)}
        a = F.scaled_dot_product_attention(*part, **sight)
        out.append(a.transpose(1, 2).reshape(n * length, -1))
        at = end
    return out[0] if len(out) == 1 else torch.cat(out)


class Layer(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(c.d_model), nn.LayerNorm(c.d_model)
        self.attn_qkv = nn.Linear(c.d_model, 3 * c.d_model, bias=False)
        self.o_proj = nn.Linear(c.d_model, c.d_model, bias=False)
        self.mlp = nn.Sequential(nn.Linear(c.d_model, c.dim_feedforward), nn.ReLU(),
                                 nn.Linear(c.dim_feedforward, c.d_model))


class Head(nn.Module):
    """Scores of the tokens, or of the classes stop (0) and go on (1)."""

    def __init__(self, d, classes, classifier=False):
        super().__init__()
        if classifier:
            self.norm_final = nn.LayerNorm(d)
            self.mlp = nn.Sequential(nn.Linear(d, 2 * d), nn.Tanh(), nn.Linear(2 * d, d))
        self.linear = nn.Linear(d, classes, bias=False)


def is_table(name):
    """Parameters that AdamW trains although they are matrices."""
    return name.startswith(('embed_tokens.', 'output_layer.', 'length_output_layer.linear.'))


class Insertion(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config, self.pieces = config, PIECES
        c = config
        self.embed_tokens = nn.Embedding(c.vocab_size, c.d_model)
        self.encoder = nn.ModuleList(Layer(c) for _ in range(c.num_layers))
        self.output_layer = Head(c.d_model, c.vocab_size)
        self.length_output_layer = Head(c.d_model, 2, classifier=True) if c.stop_head else None
        inverse = 10000.0 ** (-torch.arange(0, c.rotary_emb_dim, 2).double() / c.rotary_emb_dim)
        angle = torch.arange(c.max_length + 1).double()[:, None] * inverse
        self.register_buffer('cos', angle.cos().float(), persistent=False)
        self.register_buffer('sin', angle.sin().float(), persistent=False)
        self.initialise()

    def initialise(self):
        for name, p in self.named_parameters():
            if p.ndim == 2:
                std = 0.1 if name.startswith('embed') else 0.6 * p.shape[1] ** -0.5
                residual = name.endswith(('o_proj.weight', 'mlp.2.weight'))
                nn.init.normal_(p, std=std / (2 * self.config.num_layers) ** 0.5 if residual else std)
            elif name.endswith('bias'):
                nn.init.zeros_(p)

    def hidden(self, ids, layout, dtype):
        """[rows] ids -> [rows, width] residual stream after the last layer, not normalised."""
        inputs, output = self.pieces
        cos, sin = (t[layout.position][:, None] for t in (self.cos, self.sin))
        x = F.embedding(ids, self.embed_tokens.weight)
        for m in self.encoder:
            q, k, v = inputs(x, m.norm1.weight, m.norm1.bias, m.attn_qkv.weight, cos, sin,
                             self.config.nhead, dtype)
            a = attend(q, k, v, layout, self.config.causal)
            x = output(x, a, m.o_proj.weight, m.norm2.weight, m.norm2.bias, m.mlp[0].weight,
                       m.mlp[0].bias, m.mlp[2].weight, m.mlp[2].bias)
        return x

    def logits(self, z, dtype):
        return F.linear(z.to(dtype), self.output_layer.linear.weight.to(dtype)).float()

    def classes(self, z):
        """Scores of stop and go on, from the states [n, width] of the first tokens."""
        m = self.length_output_layer
        h = F.layer_norm(z, (z.shape[-1],), m.norm_final.weight, m.norm_final.bias, EPS)
        h = F.linear(torch.tanh(F.linear(h, m.mlp[0].weight, m.mlp[0].bias)), m.mlp[2].weight,
                     m.mlp[2].bias)
        return F.linear(z + h, m.linear.weight)


@dataclasses.dataclass
class Batch:
    """Inputs and targets of one training step of an insertion model."""
    ids: torch.Tensor            # [rows]
    layout: Layout
    seq: torch.Tensor            # [rows] sequence of a row where something may be inserted, else n
    first: torch.Tensor          # [n] rows of the [CLS]
    target_row: torch.Tensor     # [targets] row after which the token is missing
    target: torch.Tensor         # [targets] the token
    target_seq: torch.Tensor     # [targets] its sequence
    weight: torch.Tensor         # [targets] 1 / missing tokens of the sequence; 0: no target
    counts: torch.Tensor         # [n] 1 for a sequence that counts, 0 for one cut off


def insertion_loss(model, b, dtype):
    """Mean over sequences of the token loss and the stop loss, and both apart.  One softmax runs
    over all open places of a sequence and the whole vocabulary."""
    n = len(b.first)
    z = model.hidden(b.ids, b.layout, dtype)
    logits = model.logits(z, dtype)
    row = logits.logsumexp(-1)
    top = torch.full((n + 1,), NEVER, device=row.device).scatter_reduce(0, b.seq, row.detach(), 'amax')
    total = torch.zeros(n + 1, device=row.device).index_add(0, b.seq, (row - top[b.seq]).exp())
    normal = top[:n] + total[:n].clamp(min=1e-30).log()   # a sample cut off has no rows
    picked = logits.view(-1).index_select(0, b.target_row * logits.shape[1] + b.target)
    missing = torch.zeros(n, device=row.device).index_add(0, b.target_seq, b.weight)
    token = missing * normal - torch.zeros(n, device=row.device).index_add(
        0, b.target_seq, b.weight * picked)
    stop = F.cross_entropy(model.classes(z[b.first]), (missing > 0).long(), reduction='none')
    size = b.counts.sum()
    token, stop = (token * b.counts).sum() / size, (stop * b.counts).sum() / size
    return token + stop, token.detach(), stop.detach()


@torch.no_grad()
def write(model, sequences, open_from, max_length, threshold=0.9, max_steps=200, closed=None):
    """Greedy two-step insertion.  sequences: [n, places] ids filled up with the padding token;
    open_from: [n] index of the first place after which tokens may be inserted (all inserted tokens
    and, unless `closed` [n, places] says otherwise, all later ones are open).  Returns ids and
    insertions of each row."""
    c, device = model.config, sequences.device
    n = len(sequences)
    ids = F.pad(sequences, (0, max_length - sequences.shape[1]), value=c.pad)
    length = (sequences != c.pad).sum(1)
    place = torch.arange(max_length, device=device)[None]
    open_ = (place >= open_from[:, None]).expand(n, -1).clone()
    if closed is not None:
        open_[:, :closed.shape[1]] &= ~closed
    going = torch.ones(n, dtype=torch.bool, device=device)
    start = length.clone()
    for _ in range(max_steps):
        alive = place < length[:, None]
        mask = torch.zeros(n, 1, 1, max_length, device=device).masked_fill(~alive[:, None, None], -1e30)
        layout = Layout([(n, max_length, mask)], place.expand(n, -1).reshape(-1))
        z = model.hidden(ids.reshape(-1), layout, torch.float32)
        stop = model.classes(z.view(n, max_length, -1)[:, 0]).softmax(-1)[:, 0]
        going = going & (stop < threshold) & (length < max_length)
        if not going.any():
            break
        logits = model.logits(z, torch.float32).view(n, max_length, -1)
        logits[..., c.suppressed()] = -torch.inf
        where = logits.logsumexp(-1).masked_fill(~(open_ & alive), -torch.inf).argmax(1)
        token = logits[torch.arange(n, device=device), where].argmax(-1)
        source = (place - (place > where[:, None]).long()).clamp(min=0)
        grown, grown_open = ids.gather(1, source), open_.gather(1, source)
        here = place == where[:, None] + 1
        grown, grown_open = torch.where(here, token[:, None], grown), grown_open | here
        ids = torch.where(going[:, None], grown, ids)
        open_ = torch.where(going[:, None], grown_open, open_)
        length = length + going
    return ids, length - start
