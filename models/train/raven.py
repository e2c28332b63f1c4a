"""Recurrent-depth network (Huginn, arXiv 2502.05171): a few layers applied again and again.

Prelude layers turn tokens into an input embedding e; the core reads e and a state s and gives the
next state; coda layers turn the last state into scores.  Tensor names are the released
checkpoint's.  Rows of all sequences lie end to end in one [rows, width] matrix.
"""
import dataclasses

import torch
import torch.nn.functional as F
from torch import nn


@dataclasses.dataclass
class Config:
    vocab_size: int
    n_embd: int = 256
    n_heads: int = 8
    intermediate_size: int = 448
    prelude: int = 1
    core: int = 2
    coda: int = 1
    mean_recurrence: int = 12
    mean_backprop_depth: int = 8
    block_size: int = 256
    rope_base: float = 50000.0
    norm_eps: float = 1e-6

    def std(self):
        return (2 / (5 * self.n_embd)) ** 0.5


def norm(x, weight, eps):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * weight


def rotate(x, cos, sin):
    """Pairs of neighbouring channels; x is [rows, heads, channels]."""
    a, b = x[..., 0::2], x[..., 1::2]
    return torch.stack((a * cos - b * sin, b * cos + a * sin), -1).flatten(-2)


def attention_inputs(x, norm_w, qkv_w, qk_bias, cos, sin, eps: float, dtype: torch.dtype):
    """Queries, keys and values, each [rows, heads, channels]; the stream x is float32."""
    heads, width = qk_bias.shape[2:]
    h = norm(x, norm_w, eps).to(dtype)
    q, k, v = F.linear(h, qkv_w.to(dtype)).view(x.shape[0], 3, heads, width).unbind(1)
    q, k = q.float() + qk_bias[0, 0], k.float() + qk_bias[1, 0]
    return rotate(q, cos, sin).to(dtype), rotate(k, cos, sin).to(dtype), v


def block_output(x, a, proj_w, norm2, norm3, fc_w, out_w, norm4, eps: float):
    """Each residual sum is normalised."""
    dtype = a.dtype
    x = norm(x + F.linear(a, proj_w.to(dtype)).float(), norm2, eps)
    gate, up = F.linear(norm(x, norm3, eps).to(dtype), fc_w.to(dtype)).chunk(2, -1)
    return norm(x + F.linear(F.silu(gate) * up, out_w.to(dtype)).float(), norm4, eps)


PIECES = attention_inputs, block_output      # a trainer may put compiled ones into Raven.pieces


class Weight(nn.Module):
    """A bare tensor under the name NAME.weight."""

    def __init__(self, *shape):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(shape))


class Attention(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.Wqkv, self.proj = Weight(3 * c.n_embd, c.n_embd), Weight(c.n_embd, c.n_embd)
        self.qk_bias = nn.Parameter(torch.zeros(2, 1, c.n_heads, c.n_embd // c.n_heads))


class Mlp(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.fc, self.proj = Weight(2 * c.intermediate_size, c.n_embd), Weight(c.n_embd, c.intermediate_size)


class Block(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.norm_1, self.norm_2, self.norm_3, self.norm_4 = (Weight(c.n_embd) for _ in range(4))
        self.attn, self.mlp = Attention(c), Mlp(c)


class Layers(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.wte = Weight(c.vocab_size, c.n_embd)
        self.prelude = nn.ModuleList(Block(c) for _ in range(c.prelude))
        self.adapter = Weight(c.n_embd, 2 * c.n_embd)
        self.core_block = nn.ModuleList(Block(c) for _ in range(c.core))
        self.coda = nn.ModuleList(Block(c) for _ in range(c.coda))
        self.ln_f = Weight(c.n_embd)


def is_table(name):
    return name.startswith('transformer.wte.')


@dataclasses.dataclass
class Sight:
    """What the rows of one batch see: [sequences, 1, length, length] to be added to the scores."""
    cos: torch.Tensor
    sin: torch.Tensor
    mask: torch.Tensor


class Raven(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config, self.pieces = config, PIECES
        self.transformer = Layers(config)
        width = config.n_embd // config.n_heads
        inverse = config.rope_base ** (-torch.arange(0, width, 2).double() / width)
        angle = torch.arange(config.block_size).double()[:, None] * inverse
        self.register_buffer('cos', angle.cos().float(), persistent=False)
        self.register_buffer('sin', angle.sin().float(), persistent=False)
        self.initialise()

    def initialise(self):
        c = self.config
        small = c.std() / (2 * (c.prelude + c.coda + c.core * c.mean_recurrence)) ** 0.5
        for name, p in self.named_parameters():
            if p.ndim == 2:
                nn.init.trunc_normal_(p, std=c.std(), a=-3 * c.std(), b=3 * c.std())
                with torch.no_grad():
                    if name.endswith('proj.weight'):
                        p.mul_(small / c.std())
                    elif name.endswith('fc.weight'):
                        p[c.intermediate_size:].mul_(small / c.std())

    def sight(self, position, mask):
        """position [sequences, length]; mask as in Sight, of the type that is computed in."""
        cos, sin = (t[position.flatten()][:, None] for t in (self.cos, self.sin))
        heads = self.config.n_heads
        return Sight(cos, sin, mask.expand(-1, heads, -1, -1))

    def block(self, m, x, sight, dtype):
        inputs, output = self.pieces
        eps = self.config.norm_eps
        q, k, v = inputs(x, m.norm_1.weight, m.attn.Wqkv.weight, m.attn.qk_bias, sight.cos, sight.sin, eps, dtype)
        n, _, length, _ = sight.mask.shape
        q, k, v = (t.view(n, length, *t.shape[1:]).transpose(1, 2) for t in (q, k, v))
        a = F.scaled_dot_product_attention(q, k, v, attn_mask=sight.mask)
        a = a.transpose(1, 2).reshape(x.shape)
        return output(x, a, m.attn.proj.weight, m.norm_2.weight, m.norm_3.weight, m.mlp.fc.weight,
                      m.mlp.proj.weight, m.norm_4.weight, eps)

    def prelude(self, ids, sight, dtype):
        e = F.embedding(ids, self.transformer.wte.weight) * self.config.n_embd ** 0.5
        for m in self.transformer.prelude:
            e = self.block(m, e, sight, dtype)
        return e

    def core(self, s, e, sight, dtype):
        x = F.linear(torch.cat((s, e), -1).to(dtype), self.transformer.adapter.weight.to(dtype)).float()
        for m in self.transformer.core_block:
            x = self.block(m, x, sight, dtype)
        return x

    def head(self, s, sight, dtype):
        """The normalised states that the table turns into scores."""
        ln_f, eps = self.transformer.ln_f.weight, self.config.norm_eps
        z = norm(s, ln_f, eps)
        for m in self.transformer.coda:
            z = self.block(m, z, sight, dtype)
        return norm(z, ln_f, eps)

    def fresh(self, rows, generator=None):
        """Random states: a normal law cut at three deviations, as in the released code."""
        limit = 0.9973002039367398                       # 2 Phi(3) - 1
        device = self.transformer.wte.weight.device
        u = torch.rand(rows, self.config.n_embd, generator=generator, device=device) * 2 * limit - limit
        return torch.erfinv(u) * (2 ** 0.5 * self.config.std() * self.config.n_embd ** 0.5)

    def train_states(self, ids, sight, recurrences, dtype):
        """States after so many recurrences, the last `mean_backprop_depth` of them with gradient."""
        e = self.prelude(ids, sight, dtype)
        s = self.fresh(len(ids))
        learned = min(recurrences, self.config.mean_backprop_depth)
        with torch.no_grad():
            for _ in range(recurrences - learned):
                s = self.core(s, e, sight, dtype)
        for _ in range(learned):
            s = self.core(s, e, sight, dtype)
        return self.head(s, sight, dtype)

    def scores(self, h):
        return F.linear(h, self.transformer.wte.weight)


def raven_config(c, **ids):
    """config.json, with the released model's keys."""
    return {
        'architectures': ['RavenForCausalLM'], 'model_type': 'huginn_raven',
        'architecture_class_name': 'RecurrentGPT', 'block_class_name': 'SandwichBlock',
        'norm_class_name': 'RMSNorm_llama', 'mlp_class_name': 'GatedMLP', 'nonlin_name': 'SiLU',
        'n_embd': c.n_embd, 'n_heads': c.n_heads, 'num_attention_heads': c.n_heads,
        'num_key_value_heads': c.n_heads, 'intermediate_size': c.intermediate_size,
        'vocab_size': c.vocab_size, 'padded_vocab_size': c.vocab_size, 'padding_multiple': 1,
        'block_size': c.block_size, 'n_layers_in_prelude': c.prelude,
        'n_layers_in_recurrent_block': c.core, 'n_layers_in_coda': c.coda,
        'n_layers': c.prelude + c.core + c.coda, 'mean_recurrence': c.mean_recurrence,
        'mean_backprop_depth': c.mean_backprop_depth, 'qk_bias': True, 'bias': False,
        'norm_eps': c.norm_eps, 'rope_base': c.rope_base, 'tie_embeddings': True,
        'injection_type': 'linear', 'state_init': 'like-init', 'init_strategy': 'takase',
        'sampling_scheme': 'poisson-lognormal-filling', **ids, 'torch_dtype': 'float32',
        'quantization': {'method': 'int8_rowwise'}}
