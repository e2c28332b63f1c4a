"""Shipped folders of the picture models: configurations, int8 rows, and back into the networks."""
import dataclasses
import json
import os

import torch

import enat
import vqgan
from export import INT8, write_json
from weights import SAME_NAMES, export_tensors, import_tensors, read_safetensors, write_safetensors

CODEC = 'vqgan'                 # the tokenizer's folder in the generator's


def vqgan_config(c):
    return {'architectures': ['VQGAN'], 'model_type': 'vqgan_f_avgpool',
            'ddconfig': {'double_z': False, 'z_channels': c.z_channels, 'resolution': c.resolution,
                         'in_channels': 3, 'out_ch': 3, 'ch': c.ch, 'ch_mult': list(c.ch_mult),
                         'num_res_blocks': c.num_res_blocks, 'attn_resolutions': [], 'dropout': 0.0,
                         'norm_groups': c.norm_groups},
            'n_embed': c.n_embed, 'embed_dim': c.z_channels, **INT8}


def enat_config(c):
    config = dataclasses.asdict(c)
    config.pop('dropout')
    config.update(enc_dec=list(c.enc_dec), label_groups=list(c.label_groups))
    return {'architectures': ['ENAT'], 'model_type': 'enat', **config, 'num_classes': c.nothing,
            'mask_token_id': c.mask, 'null_class_id': c.nothing, 'codec': CODEC, **INT8}


def read_config(folder):
    with open(os.path.join(folder, 'config.json'), encoding='utf-8') as f:
        return json.load(f)


def write_folder(folder, config, state, vectors=torch.float32):
    """config.json and model.safetensors; returns the size of the latter."""
    os.makedirs(folder, exist_ok=True)
    write_json(os.path.join(folder, 'config.json'), config)
    path = os.path.join(folder, 'model.safetensors')
    write_safetensors(path, export_tensors(state, SAME_NAMES, vectors))
    return os.path.getsize(path)


def fill(model, folder, device):
    tensors = read_safetensors(os.path.join(folder, 'model.safetensors'))
    model.load_state_dict(import_tensors(tensors, SAME_NAMES))
    return model.to(device).eval()


def load_vqgan(folder, device):
    """The tokenizer of a shipped folder, with its rounded weights in float32."""
    config = read_config(folder)
    d = config['ddconfig']
    c = vqgan.Config(d['ch'], tuple(d['ch_mult']), d['num_res_blocks'], d['z_channels'], config['n_embed'],
                     d['resolution'], d['norm_groups'])
    return fill(vqgan.Vqgan(c), folder, device)


def load_enat(folder, device):
    config = read_config(folder)
    names = [f.name for f in dataclasses.fields(enat.Config) if f.name in config]
    c = enat.Config(**{name: tuple(config[name]) if isinstance(config[name], list) else config[name]
                       for name in names})
    return fill(enat.Enat(c), folder, device)


def write_labels(folder, names):
    groups = [{'name': group, 'labels': labels} for group, labels in names.items()]
    write_json(os.path.join(folder, 'labels.json'), {'groups': groups})
