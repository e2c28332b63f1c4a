"""COMiT with the released tensor names: an autoencoder of pictures, and a transformer that reads
crops into a message and paints the picture back from noise by flow matching.

Follows the released code as specs/comit.md describes it; pixels are RGB in [-1, 1] here. What the
released code fixes for pictures of 256 pixels is a Geometry.
"""
import dataclasses
import math

import torch
import torch.nn.functional as F
from torch import nn

from restok import attended


@dataclasses.dataclass
class Geometry:
    picture: int = 64
    crop: int = 24
    stride: int = 20

    def corners(self):
        """(top, left) of the nine crops in raster order."""
        return [(k // 3 * self.stride, k % 3 * self.stride) for k in range(9)]

    def places(self):
        """(x, y) of the crops' centres, [9, 2]; the picture's is (0, 0)."""
        half = self.picture / 2
        return torch.tensor([[(at + self.crop / 2) / half - 1 for at in (left, top)] for top, left in self.corners()])

    def crops(self, pictures):
        """[n, 3, h, w] -> [n, 9, 3, crop, crop]."""
        cut = lambda top, left: pictures[:, :, top:top + self.crop, left:left + self.crop]
        return torch.stack([cut(*corner) for corner in self.corners()], 1)


# --- the autoencoder ---

@dataclasses.dataclass
class VaeConfig:
    block_out_channels: tuple = (16, 24, 24)
    layers_per_block: int = 1
    latent_channels: int = 4
    norm_num_groups: int = 8
    scaling_factor: float = 1.0

    @property
    def factor(self):
        return 1 << (len(self.block_out_channels) - 1)


class Resnet(nn.Module):
    def __init__(self, c, cin, cout):
        super().__init__()
        norm = lambda width: nn.GroupNorm(c.norm_num_groups, width, eps=1e-6)
        self.norm1, self.conv1 = norm(cin), nn.Conv2d(cin, cout, 3, padding=1)
        self.norm2, self.conv2 = norm(cout), nn.Conv2d(cout, cout, 3, padding=1)
        if cin != cout:
            self.conv_shortcut = nn.Conv2d(cin, cout, 1)
        self.widens = cin != cout

    def forward(self, x):
        h = self.conv2(F.silu(self.norm2(self.conv1(F.silu(self.norm1(x))))))
        return (self.conv_shortcut(x) if self.widens else x) + h


class VaeAttention(nn.Module):
    def __init__(self, c, width):
        super().__init__()
        self.group_norm = nn.GroupNorm(c.norm_num_groups, width, eps=1e-6)
        self.to_q, self.to_k, self.to_v = (nn.Linear(width, width) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(width, width)])

    def forward(self, x):
        y = self.group_norm(x).flatten(2).transpose(1, 2)
        q, k, v = (to(y)[:, None] for to in (self.to_q, self.to_k, self.to_v))
        y = self.to_out[0](attended(q, k, v)[:, 0])
        return x + y.transpose(1, 2).reshape(x.shape)


class Middle(nn.Module):
    def __init__(self, c, width):
        super().__init__()
        self.resnets = nn.ModuleList(Resnet(c, width, width) for _ in range(2))
        self.attentions = nn.ModuleList([VaeAttention(c, width)])

    def forward(self, x):
        return self.resnets[1](self.attentions[0](self.resnets[0](x)))


class Sampler(nn.Module):
    def __init__(self, width, up):
        super().__init__()
        self.up, self.conv = up, nn.Conv2d(width, width, 3, padding=1 if up else 0, stride=1 if up else 2)

    def forward(self, x):
        if self.up:
            return self.conv(F.interpolate(x, scale_factor=2.0, mode='nearest'))
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Level(nn.Module):
    def __init__(self, c, cin, cout, n, sampler, up):
        super().__init__()
        self.resnets = nn.ModuleList(Resnet(c, cin if i == 0 else cout, cout) for i in range(n))
        self.sampler = ('upsamplers' if up else 'downsamplers') if sampler else None
        if sampler:
            setattr(self, self.sampler, nn.ModuleList([Sampler(cout, up)]))

    def forward(self, x):
        for resnet in self.resnets:
            x = resnet(x)
        return getattr(self, self.sampler)[0](x) if self.sampler else x


class Half(nn.Module):
    """The encoder, or with `up` the decoder."""

    def __init__(self, c, cin, cout, up):
        super().__init__()
        w = c.block_out_channels[::-1] if up else c.block_out_channels
        n, last = c.layers_per_block + up, len(w) - 1
        self.up, self.conv_in = up, nn.Conv2d(cin, w[0], 3, padding=1)
        levels = nn.ModuleList(Level(c, a, b, n, i < last, up) for i, (a, b) in enumerate(zip(w[:1] + w, w)))
        setattr(self, 'up_blocks' if up else 'down_blocks', levels)
        self.mid_block = Middle(c, w[0] if up else w[-1])
        self.conv_norm_out = nn.GroupNorm(c.norm_num_groups, w[-1], eps=1e-6)
        self.conv_out = nn.Conv2d(w[-1], cout, 3, padding=1)

    def forward(self, x):
        x = self.conv_in(x)
        parts = [self.mid_block, *self.up_blocks] if self.up else [*self.down_blocks, self.mid_block]
        for part in parts:
            x = part(x)
        return self.conv_out(F.silu(self.conv_norm_out(x)))


class Vae(nn.Module):
    def __init__(self, config):
        super().__init__()
        c, z = config, config.latent_channels
        self.config, self.encoder, self.decoder = c, Half(c, 3, 2 * z, False), Half(c, z, 3, True)
        self.quant_conv, self.post_quant_conv = nn.Conv2d(2 * z, 2 * z, 1), nn.Conv2d(z, z, 1)

    def moments(self, pixels):
        """(mean, logvar), unscaled."""
        mean, logvar = self.quant_conv(self.encoder(pixels)).chunk(2, 1)
        return mean, logvar.clamp(-30, 20)

    def encode(self, pixels):
        """Scaled means."""
        return self.moments(pixels)[0] * self.config.scaling_factor

    def decode(self, latents):
        """Of scaled latents; not clamped."""
        return self.decoder(self.post_quant_conv(latents / self.config.scaling_factor))


# --- the quantiser ---

class Fsq:
    def __init__(self, levels, device):
        level = torch.tensor(levels, dtype=torch.float32, device=device)
        self.levels, self.level = levels, level
        self.half, self.off = (level - 1) * 1.001 / 2, torch.where(level % 2 == 0, 0.5, 0.0)
        self.shift, self.width = torch.atanh(self.off / self.half), torch.floor(level / 2)
        self.basis = torch.tensor([math.prod(levels[:i]) for i in range(len(levels))], device=device)
        self.prior = self.lookup(torch.tensor(math.prod(levels) // 2, device=device))

    def bound(self, z):
        return torch.tanh(z + self.shift) * self.half - self.off

    def __call__(self, z):
        """Codes of z [..., dims], with the gradient of the bound."""
        bound = self.bound(z.float())
        return (bound + (bound.round() - bound).detach()) / self.width

    def ids(self, codes):
        return ((codes * self.width + self.width).round().long() * self.basis).sum(-1)

    def lookup(self, ids):
        digit = torch.div(ids[..., None], self.basis, rounding_mode='floor') % self.level.long()
        return (digit - self.width) / self.width


# --- the transformer ---

@dataclasses.dataclass
class Config:
    max_input_size: int = 16
    patch_size: int = 2
    in_channels: int = 4
    hidden_size: int = 64
    depth: int = 4
    num_heads: int = 4
    mlp_ratio: float = 4.0
    num_msg_tokens: int = 16
    levels: tuple = (8, 8, 8, 5, 5, 5)

    @property
    def grid(self):
        return self.max_input_size // self.patch_size


def two_layers(cin, width):
    return nn.Sequential(nn.Linear(cin, width), nn.SiLU(), nn.Linear(width, width))


def modulation(width, n):
    return nn.Sequential(nn.SiLU(), nn.Linear(width, n * width))


def bare(x):
    return F.layer_norm(x, x.shape[-1:], eps=1e-6)


def mod(x, shift, scale):
    return bare(x) * (1 + scale) + shift


class SelfAttention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads, self.qkv, self.proj = heads, nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x, bias):
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in self.qkv(x).chunk(3, -1))
        return self.proj(attended(q, k, v, bias.to(q.dtype)).transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    def __init__(self, width, hidden):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x):
        return self.fc2(F.gelu(self.fc1(x), approximate='tanh'))


class Block(nn.Module):
    def __init__(self, c):
        super().__init__()
        width = c.hidden_size
        self.attn, self.mlp = SelfAttention(width, c.num_heads), Mlp(width, int(width * c.mlp_ratio))
        self.x_adaLN_modulation, self.r_adaLN_modulation = modulation(width, 6), modulation(width, 6)

    def forward(self, rows, e, split, bias):
        """rows [n, 1 + patches + 2 tokens, width]; e [n or 1, width]; split: sizes of c, x, r, q."""
        mx, mr = self.x_adaLN_modulation(e)[:, None].chunk(6, -1), self.r_adaLN_modulation(e)[:, None].chunk(6, -1)
        for part, at in ((lambda s: self.attn(s, bias), 0), (self.mlp, 3)):
            c, x, r, q = rows.split(split, 1)
            modulated = [bare(c), mod(x, mx[at], mx[at + 1]), *(mod(t, mr[at], mr[at + 1]) for t in (r, q))]
            a, b, *rest = part(torch.cat([t.float() for t in modulated], 1)).split(split, 1)
            rows = torch.cat((c + a, x + mx[at + 2] * b, *(t + mr[at + 2] * y for t, y in zip((r, q), rest))), 1)
        return rows


def sincos(width, grid):
    """The 2-D table [1, grid * grid, width]: columns first, then rows."""
    k = width // 4
    wave = 10000 ** (-torch.arange(k, dtype=torch.float64) / k)
    axis = torch.arange(grid, dtype=torch.float64)[:, None] * wave
    one = torch.cat((axis.sin(), axis.cos()), 1)
    table = torch.cat((one[None].expand(grid, -1, -1), one[:, None].expand(-1, grid, -1)), 2)
    return table.reshape(1, grid * grid, width).float()


class Final(nn.Module):
    def __init__(self, width, out):
        super().__init__()
        self.linear, self.adaLN_modulation = nn.Linear(width, out), modulation(width, 2)

    def forward(self, x, e):
        shift, scale = self.adaLN_modulation(e)[:, None].chunk(2, -1)
        return self.linear(mod(x, shift, scale))


class Predictor(nn.Module):
    def __init__(self, config):
        super().__init__()
        c = self.config = config
        width, m, dims = c.hidden_size, c.num_msg_tokens, len(c.levels)
        small = lambda *shape: nn.Parameter(torch.randn(*shape) * 0.02)
        self.pos_embed = nn.Parameter(sincos(width, c.grid), requires_grad=False)
        self.r_pos_embed, self.r_to_pos_embed = small(1, m, width), small(1, m, width)
        self.c_pos_embed, self.r_to_token = small(1, 1, width), small(1, 1, width)
        self.x_embedder = nn.ModuleDict({'proj': nn.Conv2d(c.in_channels, width, c.patch_size, c.patch_size)})
        self.r_embedder, self.c_embedder = two_layers(dims, width), two_layers(2, width)
        self.t_embedder = nn.ModuleDict({'mlp': two_layers(256, width)})
        self.blocks = nn.ModuleList(Block(c) for _ in range(c.depth))
        self.final_layer = Final(width, c.patch_size ** 2 * c.in_channels)
        self.r_final_layer = nn.ModuleDict({'linear': nn.Linear(width, dims)})
        for name, p in self.named_parameters():
            if p.ndim == 2:
                zero = 'adaLN' in name or 'final_layer' in name and 'r_final' not in name
                nn.init.zeros_(p) if zero else nn.init.xavier_uniform_(p)
            elif name.endswith('.bias'):
                nn.init.zeros_(p)
        self.register_buffer('waves', 10000 ** (-torch.arange(128) / 128), persistent=False)

    @staticmethod
    def is_table(name):
        return False

    def bias(self, patches, device):
        """1 is added to scores of all columns but the queries', which only queries behind see so."""
        m = self.config.num_msg_tokens
        n = 1 + patches + 2 * m
        i, j = torch.arange(n, device=device)[:, None], torch.arange(n, device=device)[None]
        return ((j < n - m) | (i >= n - m) & (i >= j)).float()

    def forward(self, latent, message, t, offset):
        """latent [n, channels, h, w], message [n, tokens, dims], t [n or 1], offset [n, 2] ->
        (velocity like latent, new message before quantisation)."""
        c, p, m = self.config, self.config.patch_size, self.config.num_msg_tokens
        h, w = latent.shape[2] // p, latent.shape[3] // p
        place = self.pos_embed.view(1, c.grid, c.grid, -1)[:, :h, :w].flatten(1, 2)
        x = self.x_embedder['proj'](latent).flatten(2).transpose(1, 2) + place
        r = self.r_embedder(message) + self.r_pos_embed
        q = (self.r_to_token + self.r_to_pos_embed).expand(len(x), -1, -1)
        at = self.c_embedder(offset)[:, None] + self.c_pos_embed
        turn = 1000 * t.float()[:, None] * self.waves
        e = self.t_embedder['mlp'](torch.cat((turn.cos(), turn.sin()), 1))
        split, bias = [1, h * w, m, m], self.bias(h * w, x.device)
        rows = torch.cat([part.float() for part in (at, x, r, q)], 1)
        for block in self.blocks:
            rows = block(rows, e, split, bias)
        _, x, _, q = rows.split(split, 1)
        v = self.final_layer(x, e).view(len(x), h, w, p, p, c.in_channels)
        velocity = v.permute(0, 5, 1, 3, 2, 4).reshape(latent.shape)
        return velocity.float(), self.r_final_layer['linear'](bare(q)).float()


# --- both directions ---

def encode(predictor, fsq, whole, crops, places, order, first_whole):
    """Message [n, tokens, dims] and the offset at which it is painted, from latents of the picture
    [n, c, h, w] and of its crops [n, 9, c, h', w'], looked at in `order` [n, k]."""
    n, one = len(whole), torch.ones(1, device=whole.device)
    message = fsq.prior.expand(n, predictor.config.num_msg_tokens, -1)
    last = None
    looks = [None] * first_whole + list(order.unbind(1))
    rows = torch.arange(n, device=whole.device)
    for look in looks:
        z = whole if look is None else crops[rows, look]
        at = torch.zeros(n, 2, device=whole.device) if look is None else places[look]
        offset = torch.zeros_like(at) if last is None else at - last
        message = fsq(predictor(z, message, one, offset)[1])
        last = at
    return message, -last


@torch.no_grad()
def paint(predictor, message, offset, noise, steps=10):
    """Latents at the end of the flow, by Euler's steps without guidance."""
    x = noise
    for i in range(steps):
        t = torch.full((1,), i / steps, device=x.device)
        x = x + predictor(x, message, t, offset)[0] / steps
    return x
