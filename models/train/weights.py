"""Weight files: safetensors in and out, and rows of int8 with one bfloat16 scale each."""
import json
import struct

import numpy as np
import torch

PREFIX = 'model.transformer.'
TYPES = {'I8': torch.int8, 'BF16': torch.bfloat16, 'F32': torch.float32}


def quantise(weight):
    """(int8 rows, bfloat16 scales): of 31 scales per row, the one with the least square error."""
    weight = weight.float()
    top = weight.abs().amax(1).clamp(min=1e-8) / 127
    best = torch.full_like(top, float('inf'))
    scales = top.to(torch.bfloat16)
    for factor in torch.linspace(0.7, 1.0, 31).tolist():
        scale = (top * factor).to(torch.bfloat16)
        rows = scale.float()[:, None]
        error = ((weight / rows).round().clamp(-127, 127) * rows - weight).pow(2).sum(1)
        scales = torch.where(error < best, scale, scales)
        best = torch.minimum(best, error)
    return (weight / scales.float()[:, None]).round().clamp(-127, 127).to(torch.int8), scales


def export_tensors(state):
    """Tensors as they are shipped: matrices quantised, norms in float32."""
    out = {}
    for name, weight in sorted(state.items()):
        if weight.ndim == 2:
            out[PREFIX + name], out[PREFIX + name + '_scale'] = quantise(weight)
        else:
            out[PREFIX + name] = weight.float()
    return out


def import_tensors(tensors):
    """The float32 state dict of model.Llada from shipped tensors."""
    state = {}
    for name, t in tensors.items():
        if t.dtype == torch.int8:
            t = t.float() * tensors[name + '_scale'].float()[:, None]
        if not name.endswith('_scale'):
            state[name[len(PREFIX):]] = t
    return state


def write_safetensors(path, tensors):
    header, blobs, at = {'__metadata__': {'format': 'pt'}}, [], 0
    names = {dtype: name for name, dtype in TYPES.items()}
    for name, t in sorted(tensors.items(), key=lambda kv: -kv[1].element_size()):   # aligned
        plain = t.contiguous().cpu()
        plain = plain.view(torch.int16) if t.dtype == torch.bfloat16 else plain
        blob = plain.numpy().tobytes()
        header[name] = {'dtype': names[t.dtype], 'shape': list(t.shape), 'data_offsets': [at, at + len(blob)]}
        blobs.append(blob)
        at += len(blob)
    text = json.dumps(header, separators=(',', ':')).encode()
    text += b' ' * (-len(text) % 8)
    with open(path, 'wb') as f:
        f.write(struct.pack('<Q', len(text)) + text + b''.join(blobs))


def read_safetensors(path):
    data = open(path, 'rb').read()
    size = struct.unpack_from('<Q', data)[0]
    tensors = {}
    for name, info in json.loads(data[8:8 + size]).items():
        if name == '__metadata__':
            continue
        first, last = info['data_offsets']
        raw = np.frombuffer(data, np.uint8, last - first, 8 + size + first).copy()
        tensors[name] = torch.from_numpy(raw).view(TYPES[info['dtype']]).view(info['shape'])
    return tensors
