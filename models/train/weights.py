"""Weight files: safetensors in and out, and rows of int8 with one bfloat16 scale each."""
import json
import re
import struct

import numpy as np
import torch

LLADA_NAMES = {'': 'model.transformer.'}
SAME_NAMES = {'': ''}
# The parts of a name that change between LLaDA's network and Qwen2's.
HF_NAMES = {'blocks.': 'model.layers.', 'attn_norm.': 'input_layernorm.', 'q_proj.': 'self_attn.q_proj.',
            'k_proj.': 'self_attn.k_proj.', 'v_proj.': 'self_attn.v_proj.', 'attn_out.': 'self_attn.o_proj.',
            'ff_norm.': 'post_attention_layernorm.', 'ff_proj.': 'mlp.gate_proj.', 'up_proj.': 'mlp.up_proj.',
            'ff_out.': 'mlp.down_proj.', 'wte.': 'model.embed_tokens.', 'ln_f.': 'model.norm.'}
TYPES = {'I8': torch.int8, 'BF16': torch.bfloat16, 'F32': torch.float32, 'I32': torch.int32,
         'I64': torch.int64}


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


def shipped_name(name, names):
    """blocks.0.q_proj.weight -> as the shipped file calls it."""
    if '' in names:
        return names[''] + name
    return re.sub('[a-z_]+[.]', lambda part: names.get(part.group(0), part.group(0)), name)


def export_tensors(state, names, vectors=torch.float32):
    """Tensors as they are shipped: matrices and convolutions quantised, a row or an output channel
    with one scale; norms, biases and other vectors in the type `vectors`."""
    out = {}
    for name, weight in sorted(state.items()):
        shipped = shipped_name(name, names)
        if weight.ndim in (2, 4):
            rows, out[shipped + '_scale'] = quantise(weight.flatten(1))
            out[shipped] = rows.view(weight.shape)
        else:
            out[shipped] = weight.to(vectors)
    return out


def own_name(shipped, names):
    for own, other in sorted(names.items(), key=lambda pair: -len(pair[1])):
        shipped = re.sub(r'(^|(?<=\.))' + re.escape(other), own, shipped)
    return shipped


def import_tensors(tensors, names):
    """The float32 state dict of a network from shipped tensors."""
    state = {}
    for name, t in tensors.items():
        if t.dtype == torch.int8:
            t = t.float() * tensors[name + '_scale'].float().view(-1, *[1] * (t.ndim - 1))
        if not (name.endswith('_scale') and name[:-len('_scale')] in tensors):
            state[own_name(name, names)] = t.float()
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
