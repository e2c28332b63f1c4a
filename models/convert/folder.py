#!/usr/bin/python3
"""Released models to folders that open here (offline; .pt and .pth files need PyTorch, FlexAR's config PyYAML).

usage: folder.py comit COMIT [VAE] OUT      COMIT, VAE: downloaded folders; VAE where COMIT has none within
       folder.py restok RESTOK OUT
       folder.py har HAR.pth RESTOK OUT     the generator and its codec
       folder.py flextok FLEXTOK VAE OUT
       folder.py flexar FLEXAR FLEXTOK VAE T5 OUT
       folder.py clip CLIP.pt OUT           OpenAI's file; then put its vocab.json and merges.txt beside it
       folder.py imagereward ImageReward.pt med_config.json OUT
"""
import json
import os
import shutil
import sys

import ordered_names as names
import verifier_names as verifiers
from tensors import read_file, read_folder, rename, rows, transposed, write_file


def load_torch(path):
    """Tensors of a PyTorch file as raw float32, whether bare, in an entry of their own or in TorchScript."""
    import torch
    try:
        state = torch.load(path, map_location='cpu', weights_only=True)
    except Exception:
        state = torch.jit.load(path, map_location='cpu').state_dict()
    for key in ('ema', 'model_ema', 'model', 'state_dict'):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    return {n: ('F32', tuple(t.shape), t.float().contiguous().numpy().astype('<f4').tobytes())
            for n, t in state.items() if hasattr(t, 'shape') and t.is_floating_point()}


def read_json(path):
    with open(path) as f:
        return json.load(f)


def config_of(folder, texts=None):
    path = os.path.join(folder, 'config.json')
    if os.path.exists(path):
        return read_json(path)
    return {k: json.loads(v) for k, v in (texts or {}).items() if v[:1] in '{['}


def write_json(folder, name, tree):
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, name), 'w') as f:
        json.dump(tree, f, indent=1)


def write(folder, tensors, config):
    write_json(folder, 'config.json', config)
    write_file(os.path.join(folder, 'model.safetensors'), tensors)


def shapes_of(tensors):
    return {n: t[1] for n, t in tensors.items()}


def vae_tensors(folder):
    """The autoencoder of a folder of its own, in either of the names diffusers gives its files."""
    path = os.path.join(folder, 'diffusion_pytorch_model.safetensors')
    tensors = read_file(path)[0] if os.path.exists(path) else read_folder(folder)[0]
    return rename(tensors, names.vae_name), read_json(os.path.join(folder, 'config.json'))


def comit(source, *rest):
    out, vae = rest[-1], None
    tensors, texts = read_folder(source)
    tensors = rename(tensors, names.comit_name)
    if len(rest) > 1:
        more, vae = vae_tensors(rest[0])
        tensors.update(more)
    if not any(n.startswith('vae.') for n in tensors):
        raise SystemExit(f'{source} holds no autoencoder: name its folder, too')
    write(out, tensors, names.comit_config(config_of(source, texts), vae))


def restok(source, out):
    tensors, texts = read_folder(source)
    write(out, rename(tensors, names.restok_name), names.restok_config(config_of(source, texts)))


def har(path, codec, out):
    tensors = rename(load_torch(path), names.har_name)
    write(out, tensors, names.har_config(shapes_of(tensors)))
    restok(codec, os.path.join(out, 'restok'))


def flextok(source, vae, out):
    tensors, texts = read_folder(source)
    tensors = rename(tensors, names.flextok_name)
    more, sizes = vae_tensors(vae)
    for name, t in more.items():
        tensors.setdefault(name, t)
    write(out, tensors, names.flextok_config(config_of(source, texts), sizes))


def flexar(source, codec, vae, t5, out):
    import yaml
    with open(os.path.join(source, 'config.yaml')) as f:
        tree = yaml.safe_load(f)
    write(out, rename(read_folder(source)[0], names.flexar_name), names.flexar_config(tree))
    write_json(out, 'generation_config.json', names.flexar_defaults(tree))
    flextok(codec, vae, os.path.join(out, 'flextok'))
    shutil.copytree(t5, os.path.join(out, 't5'), ignore=shutil.ignore_patterns('*.bin', '*.h5', '*.msgpack'),
                    dirs_exist_ok=True)


def clip_tensors(tensors):
    out = {}
    for name, t in tensors.items():
        for new, how in verifiers.clip_plan(name, t[1]):
            out[new] = t if how is None else transposed(t) if how == 'T' else rows(t, *how)
    return out


def clip(path, out):
    tensors = load_torch(path)
    write(out, clip_tensors(tensors), verifiers.clip_config(shapes_of(tensors)))


def imagereward(path, bert, out):
    tensors = rename(load_torch(path), verifiers.reward_name)
    write(out, tensors, verifiers.reward_config(shapes_of(tensors), read_json(bert)))


KINDS = {'comit': (comit, 2, 3), 'restok': (restok, 2, 2), 'har': (har, 3, 3), 'flextok': (flextok, 3, 3),
         'flexar': (flexar, 5, 5), 'clip': (clip, 2, 2), 'imagereward': (imagereward, 3, 3)}

if __name__ == '__main__':
    kind, least, most = KINDS.get(sys.argv[1] if len(sys.argv) > 1 else '', (None, 0, 0))
    if not kind or not least <= len(sys.argv) - 2 <= most:
        raise SystemExit(__doc__)
    kind(*sys.argv[2:])
