"""A CLIP model with Hugging Face's tensor names: pictures and captions as vectors of one space.

Pixels are planes of RGB, already normalised; a text ends with the first of the largest id.
"""
import dataclasses

import torch
import torch.nn.functional as F
from torch import nn

from restok import attended


@dataclasses.dataclass
class Config:
    vocab: int = 800
    context: int = 32
    projection: int = 64
    image: int = 64
    patch: int = 8
    image_width: int = 64
    image_layers: int = 2
    image_heads: int = 4
    text_width: int = 48
    text_layers: int = 2
    text_heads: int = 4


class SelfAttention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x, mask):
        q, k, v = (p(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
                   for p in (self.q_proj, self.k_proj, self.v_proj))
        return self.out_proj(attended(q, k, v, mask).transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        h = self.fc1(x)
        return self.fc2(h * torch.sigmoid(1.702 * h))


class Layer(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.self_attn, self.mlp = SelfAttention(width, heads), Mlp(width)
        self.layer_norm1, self.layer_norm2 = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x, mask=None):
        x = x + self.self_attn(self.layer_norm1(x), mask)
        return x + self.mlp(self.layer_norm2(x))


class Layers(nn.Module):
    def __init__(self, width, heads, n):
        super().__init__()
        self.layers = nn.ModuleList(Layer(width, heads) for _ in range(n))

    def forward(self, x, mask=None):
        for layer in self.layers:
            x = layer(x, mask)
        return x


class ImageEmbeddings(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.class_embedding = nn.Parameter(torch.randn(c.image_width) * 0.02)
        self.patch_embedding = nn.Conv2d(3, c.image_width, c.patch, c.patch, bias=False)
        self.position_embedding = nn.Embedding((c.image // c.patch) ** 2 + 1, c.image_width)

    def forward(self, pixels):
        x = self.patch_embedding(pixels).flatten(2).transpose(1, 2)
        first = self.class_embedding.expand(len(x), 1, -1)
        return torch.cat((first, x.float()), 1) + self.position_embedding.weight


class ImageTower(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.embeddings, self.pre_layrnorm = ImageEmbeddings(c), nn.LayerNorm(c.image_width)
        self.encoder = Layers(c.image_width, c.image_heads, c.image_layers)
        self.post_layernorm = nn.LayerNorm(c.image_width)

    def forward(self, pixels):
        return self.post_layernorm(self.encoder(self.pre_layrnorm(self.embeddings(pixels)))[:, 0])


class TextTower(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.embeddings = nn.ModuleDict({'token_embedding': nn.Embedding(c.vocab, c.text_width),
                                         'position_embedding': nn.Embedding(c.context, c.text_width)})
        self.encoder = Layers(c.text_width, c.text_heads, c.text_layers)
        self.final_layer_norm = nn.LayerNorm(c.text_width)
        self.register_buffer('mask', torch.ones(c.context, c.context).tril().bool(), persistent=False)

    def forward(self, ids):
        n = ids.shape[1]
        x = self.embeddings['token_embedding'](ids) + self.embeddings['position_embedding'].weight[:n]
        x = self.encoder(x, self.mask[:n, :n])
        return self.final_layer_norm(x[torch.arange(len(ids), device=ids.device), ids.argmax(1)])


class Clip(nn.Module):
    def __init__(self, config):
        super().__init__()
        c = self.config = config
        self.vision_model, self.text_model = ImageTower(c), TextTower(c)
        self.visual_projection = nn.Linear(c.image_width, c.projection, bias=False)
        self.text_projection = nn.Linear(c.text_width, c.projection, bias=False)
        self.logit_scale = nn.Parameter(torch.tensor(2.6592))
        for name, p in self.named_parameters():
            if self.is_table(name):
                nn.init.normal_(p, std=0.02)

    @staticmethod
    def is_table(name):
        return 'token_embedding' in name or 'position_embedding' in name

    def images(self, pixels):
        return F.normalize(self.visual_projection(self.vision_model(pixels)).float(), dim=-1)

    def texts(self, ids):
        """ids [n, length], zeros after a text's end."""
        return F.normalize(self.text_projection(self.text_model(ids)).float(), dim=-1)
