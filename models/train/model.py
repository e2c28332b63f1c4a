"""The network: LLaDA's transformer (RMSNorm, rotary positions, SwiGLU, tied table), and two turns of
it: a learned vector per position instead of the rotation, and biases on queries, keys and values.

Parameter names are the released checkpoint's.  Rows of all sequences lie end to end in one
[rows, width] matrix, so every product sees the same shape whatever the sequence length, and one
compiled graph serves all lengths; only attention looks at sequences.
"""
import dataclasses

import torch
import torch.nn.functional as F
from torch import nn


@dataclasses.dataclass
class Config:
    d_model: int = 320
    n_layers: int = 10
    n_heads: int = 5
    mlp_hidden_size: int = 704
    vocab_size: int = 8192
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-5
    max_sequence_length: int = 512
    rope: bool = True               # False: the table wpe, one row a position, added to the input
    qkv_bias: bool = False


def rms_norm(x, weight, eps):
    """In float32; the cast back comes before the weight, as in the released code."""
    y = x.float()
    y = y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + eps)
    return weight.to(x.dtype) * y.to(x.dtype)


def rotate(x, cos, sin):
    """Half-rotate layout, in float32; x is [rows, heads, head width]."""
    a, b = x.float().chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1).to(x.dtype)


def attention_inputs(x, norm, wq, wk, wv, biases, cos, sin, eps):
    """Queries, keys and values, each [rows, heads, head width]; one product for all three."""
    h = rms_norm(x, norm, eps)
    bias = torch.cat(biases).to(x.dtype) if biases else None
    qkv = F.linear(h, torch.cat((wq, wk, wv)).to(x.dtype), bias)
    q, k, v = qkv.view(x.shape[0], 3, -1, 2 * cos.shape[-1]).unbind(1)
    return rotate(q, cos, sin), rotate(k, cos, sin), v


def block_output(x, a, w_out, norm, w_gate, w_up, w_down, eps):
    """Residual around the attention's projection, then around the SwiGLU."""
    x = x + F.linear(a, w_out.to(x.dtype))
    h = rms_norm(x, norm, eps)
    gate, up = F.linear(h, torch.cat((w_gate, w_up)).to(x.dtype)).chunk(2, -1)
    return x + F.linear(F.silu(gate) * up, w_down.to(x.dtype))


class Weight(nn.Module):
    """A bare tensor under the name NAME.weight, and NAME.bias if there is one."""

    def __init__(self, *shape, bias=False):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(shape))
        self.register_parameter('bias', nn.Parameter(torch.zeros(shape[0])) if bias else None)


class Block(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.attn_norm, self.ff_norm = Weight(c.d_model), Weight(c.d_model)
        self.q_proj = Weight(c.d_model, c.d_model, bias=c.qkv_bias)
        self.k_proj = Weight(c.d_model, c.d_model, bias=c.qkv_bias)
        self.v_proj = Weight(c.d_model, c.d_model, bias=c.qkv_bias)
        self.attn_out = Weight(c.d_model, c.d_model)
        self.ff_proj = Weight(c.mlp_hidden_size, c.d_model)
        self.up_proj = Weight(c.mlp_hidden_size, c.d_model)
        self.ff_out = Weight(c.d_model, c.mlp_hidden_size)

    def inputs(self):
        biases = [w.bias for w in (self.q_proj, self.k_proj, self.v_proj) if w.bias is not None]
        return [w.weight for w in (self.attn_norm, self.q_proj, self.k_proj, self.v_proj)] + [biases]

    def outputs(self):
        return [w.weight for w in (self.attn_out, self.ff_norm, self.ff_proj, self.up_proj, self.ff_out)]


class Llada(nn.Module):
    """causal=True turns the same network into the autoregressive baseline."""

    def __init__(self, config, causal=False):
        super().__init__()
        self.config, self.causal = config, causal
        self.parts = attention_inputs, block_output     # the trainer puts compiled ones here
        self.wte = Weight(config.vocab_size, config.d_model)
        self.wpe = None if config.rope else Weight(config.max_sequence_length, config.d_model)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layers))
        self.ln_f = Weight(config.d_model)
        half = config.d_model // config.n_heads // 2
        inverse = config.rope_theta ** (-torch.arange(half).double() / half)
        angle = torch.arange(config.max_sequence_length).double()[:, None] * inverse * config.rope
        self.register_buffer('cos', angle.cos().float(), persistent=False)
        self.register_buffer('sin', angle.sin().float(), persistent=False)
        self.initialise()

    @staticmethod
    def is_table(name):
        """Whether a parameter's rows are looked up, by token or by position."""
        return name.startswith(('wte.', 'wpe.'))

    def initialise(self):
        for name, p in self.named_parameters():
            if p.ndim == 2:
                residual = name.endswith(('attn_out.weight', 'ff_out.weight'))
                std = 0.02 if self.is_table(name) else p.shape[1] ** -0.5 * 0.6
                nn.init.normal_(p, std=std / (2 * self.config.n_layers) ** 0.5 if residual else std)

    def attend(self, q, k, v, batch, valid):
        q, k, v = (x.view(batch, -1, *x.shape[1:]).transpose(1, 2) for x in (q, k, v))
        visible = {'is_causal': self.causal} if valid is None else {'attn_mask': valid[:, None, None]}
        a = F.scaled_dot_product_attention(q, k, v, **visible)
        return a.transpose(1, 2).reshape(-1, self.config.d_model)

    def hidden(self, ids, dtype=torch.float32, valid=None):
        """[batch, length] ids -> [batch * length, width] normalised states.  Places where
        `valid` is false are padding that no other place sees."""
        batch, length = ids.shape
        eps = self.config.rms_norm_eps
        cos = self.cos[:length].repeat(batch, 1)[:, None]
        sin = self.sin[:length].repeat(batch, 1)[:, None]
        inputs, output = self.parts
        x = F.embedding(ids.reshape(-1), self.wte.weight)
        if self.wpe is not None:
            x = x + self.wpe.weight[:length].repeat(batch, 1)
        x = x.to(dtype)
        for block in self.blocks:
            q, k, v = inputs(x, *block.inputs(), cos, sin, eps)
            x = output(x, self.attend(q, k, v, batch, valid), *block.outputs(), eps)
        return rms_norm(x, self.ln_f.weight, eps)

    def forward(self, ids, dtype=torch.float32, valid=None):
        hidden = self.hidden(ids, dtype, valid)
        return F.linear(hidden, self.wte.weight.to(dtype)).view(*ids.shape, -1)
