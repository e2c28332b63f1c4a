"""The picture tokenizer: MaskGIT's VQGAN, with the released tensor names.

Pixels are RGB in [0, 1]. Convolutions and group norms without attention; where a block changes the
number of channels, its input does not reach the output through the shortcut, as in the original.
"""
import dataclasses

import torch
import torch.nn.functional as F
from torch import nn


@dataclasses.dataclass
class Config:
    ch: int = 32
    ch_mult: tuple = (1, 2, 2, 3)
    num_res_blocks: int = 1
    z_channels: int = 16
    n_embed: int = 2048
    resolution: int = 64
    norm_groups: int = 8

    @property
    def grid(self):
        return self.resolution >> (len(self.ch_mult) - 1)

    @property
    def widths(self):
        return [self.ch * m for m in self.ch_mult]


def conv(cin, cout, bias=False):
    return nn.Conv2d(cin, cout, 3, padding=1, bias=bias)


def norm(c, channels):
    return nn.GroupNorm(c.norm_groups, channels, eps=1e-6)


class ResBlock(nn.Module):
    def __init__(self, c, cin, cout):
        super().__init__()
        self.norm1, self.conv1 = norm(c, cin), conv(cin, cout)
        self.norm2, self.conv2 = norm(c, cout), conv(cout, cout)
        self.nin_shortcut = nn.Conv2d(cout, cout, 1, bias=False) if cin != cout else None

    def forward(self, x):
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return x + h if self.nin_shortcut is None else self.nin_shortcut(h) + h


class Level(nn.Module):
    def __init__(self, c, cin, cout, upsample=False):
        super().__init__()
        self.block = nn.ModuleList(ResBlock(c, cin if b == 0 else cout, cout) for b in range(c.num_res_blocks))
        if upsample:
            self.upsample = nn.ModuleDict({'conv': conv(cout, cout, bias=True)})

    def forward(self, x):
        for block in self.block:
            x = block(x)
        return x


class Mid(nn.Module):
    def __init__(self, c, width):
        super().__init__()
        self.block_1, self.block_2 = ResBlock(c, width, width), ResBlock(c, width, width)

    def forward(self, x):
        return self.block_2(self.block_1(x))


class Encoder(nn.Module):
    def __init__(self, c):
        super().__init__()
        widths = c.widths
        self.conv_in = conv(3, widths[0])
        self.down = nn.ModuleList(Level(c, a, b) for a, b in zip(widths[:1] + widths, widths))
        self.mid = Mid(c, widths[-1])
        self.norm_out = norm(c, widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], c.z_channels, 1)

    def forward(self, x):
        x = self.conv_in(x)
        for level, part in enumerate(self.down):
            x = part(x if level == 0 else F.avg_pool2d(x, 2))
        return self.conv_out(F.silu(self.norm_out(self.mid(x))))


class Decoder(nn.Module):
    def __init__(self, c):
        super().__init__()
        widths = c.widths
        self.conv_in = conv(c.z_channels, widths[-1], bias=True)
        self.mid = Mid(c, widths[-1])
        self.up = nn.ModuleList(Level(c, above, width, upsample=level > 0) for level, (above, width)
                                in enumerate(zip(widths[1:] + widths[-1:], widths)))
        self.norm_out = norm(c, widths[0])
        self.conv_out = conv(widths[0], 3, bias=True)

    def forward(self, z):
        x = self.mid(self.conv_in(z))
        for level in reversed(range(len(self.up))):
            x = self.up[level](x)
            if level:
                x = self.up[level].upsample['conv'](F.interpolate(x, scale_factor=2.0, mode='nearest'))
        return self.conv_out(F.silu(self.norm_out(x)))


class Quantiser(nn.Module):
    """Nearest row by squared distance. The rows follow the latents that chose them as a running
    mean; a row that nothing chooses is put where a latent of the batch is."""

    def __init__(self, c, decay=0.99, dead=0.2):
        super().__init__()
        self.embedding = nn.Embedding(c.n_embed, c.z_channels)
        self.embedding.weight.requires_grad_(False)
        self.decay, self.dead = decay, dead
        self.register_buffer('count', torch.ones(c.n_embed), persistent=False)
        self.register_buffer('total', self.embedding.weight.detach().clone(), persistent=False)

    def indices(self, z):
        """z [n, c, h, w] -> the codes [n, h * w]."""
        z = z.float().flatten(2).transpose(1, 2)
        rows = self.embedding.weight.float()
        return (rows.pow(2).sum(1) - 2 * z @ rows.t()).argmin(2)

    def rows(self, codes, grid):
        """codes [n, grid * grid] -> [n, c, grid, grid]."""
        return F.embedding(codes, self.embedding.weight).transpose(1, 2).reshape(len(codes), -1, grid, grid)

    @torch.no_grad()
    def restart(self, z, generator, everything=False):
        flat = z.float().transpose(0, 1).flatten(1).t()
        pick = flat[torch.randint(len(flat), (len(self.count),), generator=generator, device=z.device)]
        dead = (self.count < self.dead)[:, None] | everything
        self.count.copy_(torch.where(dead[:, 0], torch.ones_like(self.count), self.count))
        self.total.copy_(torch.where(dead, pick, self.total))
        self.embedding.weight.copy_(self.total / self.count[:, None])

    @torch.no_grad()
    def follow(self, z, codes):
        flat, codes = z.float().flatten(2).transpose(1, 2).flatten(0, 1), codes.flatten()
        count = torch.zeros_like(self.count).index_add_(0, codes, torch.ones_like(flat[:, 0]))
        total = torch.zeros_like(self.total).index_add_(0, codes, flat)
        self.count.lerp_(count, 1 - self.decay)
        self.total.lerp_(total, 1 - self.decay)
        self.embedding.weight.copy_(self.total / self.count.clamp(min=1e-6)[:, None])


class Vqgan(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.encoder, self.decoder, self.quantize = Encoder(config), Decoder(config), Quantiser(config)

    def encode(self, pixels):
        return self.quantize.indices(self.encoder(pixels))

    def decode(self, codes):
        """Not clamped."""
        return self.decoder(self.quantize.rows(codes, self.config.grid))


@torch.no_grad()
def in_parts(f, x, rows=256):
    return torch.cat([f(part) for part in x.split(rows)])
