#!/usr/bin/python3
"""Released image checkpoints to a folder that opens here: ENAT's .pth and a MaskGIT VQGAN's .ckpt, .pth or
.bin (offline; needs PyTorch).

usage: images.py ENAT.pth VQGAN.ckpt MODELDIR
"""
import json
import os
import struct
import sys

from names import ENAT_DEFAULTS, ENAT_HEADS, enat_config, enat_name, vqgan_config, vqgan_name


def load(path):
    """Tensors of a checkpoint by name, whether bare or in an entry of their own."""
    import torch
    state = torch.load(path, map_location='cpu', weights_only=True)
    for key in ('state_dict', 'model_ema', 'model'):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    return {name: t.float().contiguous() for name, t in state.items() if hasattr(t, 'shape')}


def rename(tensors, name_of):
    out = {}
    for name, t in tensors.items():
        new = name_of(name)
        if new in out:
            raise SystemExit(f'{name}: there is a {new} already')
        if new:
            out[new] = t
    return out


def write_safetensors(path, tensors):
    """Float32 tensors with .shape and .numpy()."""
    header, at = {}, 0
    for name, t in sorted(tensors.items()):
        size = 4 * t.numel()
        header[name] = {'dtype': 'F32', 'shape': list(t.shape), 'data_offsets': [at, at + size]}
        at += size
    text = json.dumps(header, separators=(',', ':')).encode()
    text += b' ' * (-len(text) % 8)
    with open(path, 'wb') as f:
        f.write(struct.pack('<Q', len(text)) + text)
        for _, t in sorted(tensors.items()):
            f.write(t.numpy().astype('<f4').tobytes())


def write_folder(folder, tensors, config):
    os.makedirs(folder, exist_ok=True)
    write_safetensors(os.path.join(folder, 'model.safetensors'), tensors)
    with open(os.path.join(folder, 'config.json'), 'w') as f:
        json.dump(config, f, indent=1)


def shapes_of(tensors):
    return {name: tuple(t.shape) for name, t in tensors.items()}


def main(enat_path, vqgan_path, folder):
    enat = rename(load(enat_path), enat_name)
    shapes = shapes_of(enat)
    width = shapes['x_embedder.word_embeddings.weight'][1]
    if width not in ENAT_HEADS:
        raise SystemExit(f'{enat_path}: width {width} is that of no released ENAT')
    config = enat_config(shapes, ENAT_HEADS[width])
    write_folder(folder, enat, config)
    with open(os.path.join(folder, 'generation_config.json'), 'w') as f:
        json.dump(ENAT_DEFAULTS[config['input_size']], f, indent=1)
    vqgan = rename(load(vqgan_path), vqgan_name)
    vqgan = {n: t for n, t in vqgan.items() if n.startswith(('encoder.', 'decoder.', 'quantize.'))}
    write_folder(os.path.join(folder, config['codec']), vqgan,
                 vqgan_config(shapes_of(vqgan), 16 * config['input_size']))


if __name__ == '__main__':
    if len(sys.argv) != 4:
        raise SystemExit(__doc__)
    main(*sys.argv[1:])
