"""ResTok: pictures as tokens in levels, coarse to fine, with the released tensor names.

A convolutional encoder; a transformer in which image tokens are merged into coarser grids and the
latents, which begin as pooled residuals, become the tokens; and the same backwards. Pixels are RGB
in [0, 1]. Follows arXiv 2601.03955 and its released code as specs/restok.md describes them.
"""
import dataclasses

import torch
import torch.nn.functional as F
from torch import nn

from vqgan import ResBlock, conv, norm

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
POOLS = {1: (1, 1), 2: (1, 2), 4: (2, 2), 8: (2, 4), 16: (4, 4), 32: (4, 8), 64: (8, 8), 128: (8, 16)}


@dataclasses.dataclass
class Config:
    resolution: int = 64
    tokens: int = 64
    codes: int = 512
    token_size: int = 8
    width: int = 80
    layers: int = 3
    heads: int = 2
    stages: int = 3
    ch: int = 8                 # of the convolutions
    ch_mult: tuple = (2, 3, 5, 7)
    num_res_blocks: int = 1
    z_channels: int = 16
    norm_groups: int = 8
    theta: float = 10000.0
    in_place: bool = True       # tokens come of their own latents, image tokens begin each with a vector

    @property
    def widths(self):
        return [self.ch * m for m in self.ch_mult]

    @property
    def side(self):
        return self.resolution >> (len(self.ch_mult) - 1)

    @property
    def levels(self):
        return [1] + [1 << i for i in range(self.tokens.bit_length() - 1)]

    @property
    def merges(self):
        return {int(i / self.stages * self.layers) - 1 for i in range(1, self.stages)}


def blocks(c, cin, cout, n):
    return nn.ModuleList(ResBlock(c, cin if i == 0 else cout, cout) for i in range(n))


def run(parts, x):
    for part in parts:
        x = part(x)
    return x


class PixelEncoder(nn.Module):
    def __init__(self, c):
        super().__init__()
        w, n = c.widths, c.num_res_blocks
        self.conv_in = conv(3, w[0])
        self.down = nn.ModuleList(nn.ModuleDict({'block': blocks(c, a, b, n)}) for a, b in zip(w[:1] + w, w))
        self.mid = blocks(c, w[-1], w[-1], n)
        self.norm_out, self.conv_out = norm(c, w[-1]), nn.Conv2d(w[-1], c.z_channels, 1)

    def forward(self, x):
        x = self.conv_in(x)
        for level, part in enumerate(self.down):
            x = run(part['block'], x if level == 0 else F.avg_pool2d(x, 2))
        return self.conv_out(F.silu(self.norm_out(run(self.mid, x))))


class PixelDecoder(nn.Module):
    def __init__(self, c):
        super().__init__()
        w, n = c.widths, c.num_res_blocks
        self.conv_in = conv(c.z_channels, w[-1], bias=True)
        self.mid = blocks(c, w[-1], w[-1], n)
        level = lambda i, above, width: nn.ModuleDict({
            'block': blocks(c, above, width, n),
            **({'upsample_conv': conv(width, width, bias=True)} if i else {})})
        self.up = nn.ModuleList(level(i, *pair) for i, pair in enumerate(zip(w[1:] + w[-1:], w)))
        self.norm_out, self.conv_out = norm(c, w[0]), conv(w[0], 3, bias=True)

    def forward(self, z):
        x = run(self.mid, self.conv_in(z))
        for i in reversed(range(len(self.up))):
            x = run(self.up[i]['block'], x)
            if i:
                x = self.up[i]['upsample_conv'](F.interpolate(x, scale_factor=2.0, mode='nearest'))
        return self.conv_out(F.silu(self.norm_out(x)))


def turned(x, cos, sin):
    """Neighbouring pairs of x [n, heads, rows, d] rotated."""
    a, b = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack((a * cos - b * sin, a * sin + b * cos), -1).flatten(-2).to(x.dtype)


def attended(q, k, v, mask=None):
    """mask: bool, true where seen, or added to the scores."""
    if hasattr(F, 'scaled_dot_product_attention'):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
    if mask is not None:
        scores = scores.masked_fill(~mask, -1e30) if mask.dtype == torch.bool else scores + mask
    return scores.softmax(-1) @ v


class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads, size = heads, width // heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_bias, self.v_bias = nn.Parameter(torch.zeros(width)), nn.Parameter(torch.zeros(width))
        self.q_norm, self.k_norm = nn.LayerNorm(size), nn.LayerNorm(size)
        self.proj = nn.Linear(width, width)

    def forward(self, x, cos, sin, mask):
        q, k, v = self.qkv(x).chunk(3, -1)
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2)
                   for t in (q + self.q_bias.to(q.dtype), k, v + self.v_bias.to(v.dtype)))
        q, k = (turned(n(t), cos, sin).to(v.dtype) for n, t in ((self.q_norm, q), (self.k_norm, k)))
        return self.proj(attended(q, k, v, mask).transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.gamma_1, self.gamma_2 = (nn.Parameter(torch.full((c.width,), 0.5)) for _ in range(2))
        self.attn, self.mlp = Attention(c.width, c.heads), Mlp(c.width)
        self.norm1, self.norm2 = nn.LayerNorm(c.width), nn.LayerNorm(c.width)

    def forward(self, x, cos, sin, mask=None, between=None):
        x = x + self.gamma_1 * self.attn(self.norm1(x), cos, sin, mask)
        x = between(x) if between else x
        return x + self.gamma_2 * self.mlp(self.norm2(x))


def tables(places, c):
    """(cos, sin) [rows, head size / 2] of places [rows, 2]."""
    quarter = c.width // c.heads // 4
    frequency = c.theta ** (-2.0 * torch.arange(quarter, dtype=torch.float64) / (2 * quarter))
    angle = torch.cat([places[:, axis, None].double() * frequency for axis in (0, 1)], 1)
    return angle.cos().float(), angle.sin().float()


def grid_places(rows, columns, offset):
    return torch.stack(torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing='ij'), -1).view(-1, 2) + offset


def latent_places(c, offset):
    return (torch.arange(c.tokens) + offset)[:, None].expand(-1, 2)


def encoder_view(c, merges):
    """(cos, sin, mask) after so many merges: grids coarsest first, then the latents by levels."""
    places, sizes, offset = [], [], 0
    for g in reversed(range(merges + 1)):
        sizes.append(c.side * (c.side >> g))
        places.append(grid_places(c.side, c.side >> g, offset))
        offset += sizes[-1]
    places.append(latent_places(c, offset))
    group = torch.repeat_interleave(torch.arange(len(sizes + c.levels)), torch.tensor(sizes + c.levels))
    return (*tables(torch.cat(places), c), group[:, None] >= group[None])


class Vectors(nn.Module):
    """Parameters with numbers for names."""

    def __init__(self, n, *shape):
        super().__init__()
        for i in range(n):
            self.register_parameter(str(i), nn.Parameter(torch.randn(*shape) * 0.02))

    def __getitem__(self, i):
        return getattr(self, str(i))


class Encoder(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.config = c
        self.patch_embed = nn.Conv2d(c.z_channels, c.width, 1)
        self.ln_pre, self.ln_post = nn.LayerNorm(c.width), nn.LayerNorm(c.width)
        self.blocks = nn.ModuleList(Block(c) for _ in range(c.layers))
        self.level_embedding = Vectors(c.stages, 1, c.width)
        self.latent_token_level_embedding = Vectors(len(c.levels), 1, c.width)
        self.conv_out = nn.ModuleList(nn.Conv2d(c.width, c.token_size, 1) for _ in c.levels)
        for merges in range(len(c.merges) + 1):
            for name, t in zip(('cos', 'sin', 'mask'), encoder_view(c, merges)):
                self.register_buffer('%s%d' % (name, merges), t, persistent=False)

    def residuals(self, f):
        """Means of what the coarser levels left over: f [n, d, side, side] -> [n, tokens, d]."""
        rest, out = f.float(), []
        for i, size in enumerate(self.config.levels):
            pooled = F.adaptive_avg_pool2d(rest, POOLS[size])
            out.append(pooled.flatten(2).transpose(1, 2) + self.latent_token_level_embedding[i])
            rest = rest - F.interpolate(pooled, size=rest.shape[2:], mode='nearest')
        return torch.cat(out, 1)

    def forward(self, latent):
        """[n, z, side, side] -> z [n, tokens, token size]."""
        c, f, merges = self.config, self.patch_embed(latent), 0
        image = f.flatten(2).transpose(1, 2) + self.level_embedding[0]
        x = self.ln_pre(torch.cat((image.float(), self.residuals(f)), 1))
        for i, block in enumerate(self.blocks):
            view = [getattr(self, '%s%d' % (name, merges)) for name in ('cos', 'sin', 'mask')]
            if i not in c.merges:
                x = block(x, *view)
                continue
            group = c.side * (c.side >> merges)
            merges += 1
            x = block(x, *view, between=lambda x: merged(x, group))
            x = torch.cat((x[:, :group // 2] + self.level_embedding[merges], x[:, group // 2:]), 1)
        y = self.ln_post(x[:, -c.tokens:])
        y = y.transpose(1, 2) if c.in_place else y.reshape(len(x), c.width, c.tokens)   # as released: re-read
        parts = y[..., None].split(c.levels, 2)
        return torch.cat([conv(part) for conv, part in zip(self.conv_out, parts)], 2)[..., 0].transpose(1, 2)


def merged(x, group):
    """Every second row of the first `group` goes in front, and is taken from its two."""
    first = x[:, :group]
    picked = first[:, ::2]
    return torch.cat((picked, first - picked.repeat_interleave(2, 1), x[:, group:]), 1)


class Decoder(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.config = c
        self.latent_mask_token = nn.Parameter(torch.randn(1, 1, c.token_size) * 0.02)
        self.mask_token = nn.Parameter(torch.randn(1, c.side ** 2 if c.in_place else 1, c.width) * 0.02)
        self.decoder_embed = nn.ModuleList(nn.Linear(c.token_size, c.width) for _ in c.levels)
        self.latent_token_level_embedding = Vectors(len(c.levels), 1, c.width)
        self.ln_pre, self.ln_post = nn.LayerNorm(c.width), nn.LayerNorm(c.width)
        self.blocks = nn.ModuleList(Block(c) for _ in range(c.layers))
        self.ffn = nn.Conv2d(c.width, c.z_channels, 1)
        places = torch.cat((latent_places(c, 0), grid_places(c.side, c.side, c.tokens)))
        for name, t in zip(('cos', 'sin'), tables(places, c)):
            self.register_buffer(name, t, persistent=False)

    def forward(self, rows, keep=None):
        """rows [n, tokens, token size] of length 1, keep [n]: tokens that count -> [n, z, side, side]."""
        c = self.config
        if keep is not None:
            kept = torch.arange(c.tokens, device=rows.device)[None] < keep[:, None]
            rows = torch.where(kept[..., None], rows, self.latent_mask_token.to(rows.dtype))
        parts = [embed(part).float() + self.latent_token_level_embedding[i] for i, (embed, part)
                 in enumerate(zip(self.decoder_embed, rows.split(c.levels, 1)))]
        x = torch.cat((*parts, self.mask_token.expand(len(rows), c.side ** 2, -1)), 1)
        x = self.ln_pre(x)
        for block in self.blocks:
            x = block(x, self.cos, self.sin)
        x = self.ln_post(x[:, c.tokens:])
        return self.ffn(x.transpose(1, 2).reshape(len(x), c.width, c.side, c.side))


class Quantiser(nn.Module):
    """Nearest row by angle. In training the rows follow the latents that chose them; a row that
    nothing chooses is put where a latent of the batch is."""

    def __init__(self, c, decay=0.98, dead=0.5):
        super().__init__()
        self.embedding = nn.Embedding(c.codes, c.token_size)
        self.embedding.weight.requires_grad_(False)
        self.decay, self.dead = decay, dead
        self.register_buffer('count', torch.ones(c.codes), persistent=False)
        self.register_buffer('total', F.normalize(self.embedding.weight.detach().clone(), dim=1), persistent=False)

    def unit(self):
        return F.normalize(self.embedding.weight.float(), dim=1)

    def indices(self, z):
        """z [..., token size] -> codes [...]."""
        return (F.normalize(z.float(), dim=-1) @ self.unit().t()).argmax(-1)

    def rows(self, codes):
        return F.embedding(codes, self.unit())

    @torch.no_grad()
    def restart(self, z, generator, everything=False):
        flat = F.normalize(z.float().flatten(0, 1), dim=1)
        pick = flat[torch.randint(len(flat), (len(self.count),), generator=generator, device=z.device)]
        dead = (self.count < self.dead)[:, None] | everything
        self.count.copy_(torch.where(dead[:, 0], torch.ones_like(self.count), self.count))
        self.total.copy_(torch.where(dead, pick, self.total))
        self.embedding.weight.copy_(F.normalize(self.total, dim=1))

    @torch.no_grad()
    def follow(self, z, codes):
        flat, codes = F.normalize(z.float().flatten(0, 1), dim=1), codes.flatten()
        count = torch.zeros_like(self.count).index_add_(0, codes, torch.ones_like(flat[:, 0]))
        total = torch.zeros_like(self.total).index_add_(0, codes, flat)
        self.count.lerp_(count, 1 - self.decay)
        self.total.lerp_(total, 1 - self.decay)
        self.embedding.weight.copy_(F.normalize(self.total, dim=1))


class ResTok(nn.Module):
    def __init__(self, config):
        super().__init__()
        c = self.config = config
        self.pixel_encoder, self.encoder = PixelEncoder(c), Encoder(c)
        self.decoder, self.pixel_decoder = Decoder(c), PixelDecoder(c)
        self.quantize = Quantiser(c)
        for name, value in (('mean', MEAN), ('deviation', DEVIATION)):
            self.register_buffer(name, torch.tensor(value)[:, None, None], persistent=False)

    @staticmethod
    def is_table(name):
        return 'level_embedding' in name or name.endswith('quantize.embedding.weight')

    def latents(self, pixels):
        """[n, 3, h, w] in [0, 1] -> [n, tokens, token size], before quantisation."""
        x = (pixels - self.mean) / self.deviation
        return self.encoder(self.pixel_encoder(x.contiguous(memory_format=torch.channels_last)))

    def paint(self, rows, keep=None):
        z = self.decoder(rows, keep).contiguous(memory_format=torch.channels_last)
        return self.pixel_decoder(z)

    def encode(self, pixels):
        return self.quantize.indices(self.latents(pixels))

    def decode(self, codes, keep=None):
        """Not clamped."""
        return self.paint(self.quantize.rows(codes), keep)
