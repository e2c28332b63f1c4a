"""The feature space in which sets of pictures are compared, and Frechet's distance in it.

Features are the 768 channels of an Inception-v3's block mixed6, averaged over the picture; weights
from inception_weights.js. Pictures are enlarged to 299 pixels (bilinear) and scaled to [-1, 1].
The space is not the customary one (2,048 values of the last pooling), so distances in it can only
be compared with each other.
"""
import json

import numpy as np
import torch
import torch.nn.functional as F

SIDE = 299


def same(x, kernel, stride, value=0.0):
    """Pad as TensorFlow does: the odd line goes right and below."""
    pads = []
    for axis in (1, 0):
        n = x.shape[2 + axis]
        total = max((-(-n // stride[axis]) - 1) * stride[axis] + kernel[axis] - n, 0)
        pads += [total // 2, total - total // 2]
    return F.pad(x, pads, value=value)


class Features:
    def __init__(self, path, device):
        """path without .json and .bin"""
        with open(path + '.json', encoding='utf-8') as f:
            described = json.load(f)
        data = torch.from_numpy(np.fromfile(path + '.bin', np.uint8))
        self.layers, self.w = described['layers'], {}
        for name, t in described['tensors'].items():
            stored = data[t['at']:t['at'] + int(np.prod(t['shape']))].float()
            self.w[name] = (stored * t['scale'] + t['min']).view(t['shape']).to(device)

    def layer(self, layer, inputs):
        kind, name, x = layer['type'], layer['name'], inputs[0]
        padded = lambda size, value=0.0: same(x, size, layer['strides'], value) if layer['padding'] == 'same' else x
        if kind == 'Conv2D':
            weight = self.w[name + '/kernel'].permute(3, 2, 0, 1)
            return F.conv2d(padded(weight.shape[2:]), weight, self.w.get(name + '/bias'), layer['strides'])
        if kind == 'BatchNormalization':
            mean, variance, gamma, beta = (self.w.get('%s/%s' % (name, part)) for part in (
                'moving_mean', 'moving_variance', 'gamma', 'beta'))
            return F.batch_norm(x, mean, variance, gamma, beta, False, 0.0, layer['epsilon'])
        if kind == 'Activation':
            return F.relu(x)
        if kind == 'Concatenate':
            return torch.cat(inputs, 1)
        if kind == 'MaxPooling2D':
            return F.max_pool2d(padded(layer['size'], -1e30), layer['size'], layer['strides'])
        if kind == 'AveragePooling2D':
            share = same(torch.ones_like(x[:1, :1]), layer['size'], layer['strides'])
            pool = lambda y: F.avg_pool2d(y, layer['size'], layer['strides'])
            return pool(padded(layer['size'])) / pool(share) if layer['padding'] == 'same' else pool(x)
        raise ValueError(kind)

    @torch.no_grad()
    def __call__(self, pictures, rows=128):
        """pictures [n, 3, h, w] in [0, 1] -> [n, 768] on the CPU in float64."""
        out = []
        for part in pictures.split(rows):
            x = F.interpolate(part, size=(SIDE, SIDE), mode='bilinear', align_corners=False)
            done = {self.layers[0]['name']: x * 2 - 1}
            for layer in self.layers[1:]:
                done[layer['name']] = self.layer(layer, [done[name] for name in layer['from']])
            out.append(done[self.layers[-1]['name']].mean((2, 3)).double().cpu())
        return torch.cat(out)


def moments(features):
    return features.mean(0), features.t().cov()


def frechet(a, b):
    """Frechet's distance of the normal distributions fitted to two sets of features."""
    (m, s), (n, t) = moments(a), moments(b)
    values, vectors = torch.linalg.eigh(s)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.t()
    cross = torch.linalg.eigvalsh(root @ t @ root).clamp(min=0).sqrt().sum()
    return ((m - n).pow(2).sum() + s.trace() + t.trace() - 2 * cross).item()
