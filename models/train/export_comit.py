"""COMiT's shipped folder: configuration, and back into the networks. Matrices are int8 rows, everything
else is bfloat16."""
import dataclasses
import os

import torch

import comit
from export import INT8
from export_images import read_config, write_folder
from weights import SAME_NAMES, export_tensors, import_tensors, read_safetensors

VECTORS = torch.bfloat16


def comit_config(c, vae, geometry):
    levels = len(vae.block_out_channels)
    own = {'_class_name': 'AutoencoderKL', 'in_channels': 3, 'out_channels': 3,
           'down_block_types': ['DownEncoderBlock2D'] * levels, 'up_block_types': ['UpDecoderBlock2D'] * levels,
           'act_fn': 'silu', 'sample_size': geometry.picture, 'scaling_factor': vae.scaling_factor,
           'block_out_channels': list(vae.block_out_channels), 'layers_per_block': vae.layers_per_block,
           'latent_channels': vae.latent_channels, 'norm_num_groups': vae.norm_num_groups}
    predictor = {'_target_': 'comit.components.predictor.dit.RuledDiT', 'max_input_size': c.max_input_size,
                 'patch_size': c.patch_size, 'in_channels': c.in_channels, 'out_channels': c.in_channels,
                 'hidden_size': c.hidden_size, 'depth': c.depth, 'num_heads': c.num_heads,
                 'mlp_ratio': c.mlp_ratio, 'num_msg_tokens': c.num_msg_tokens, 'msg_tokens_dim': len(c.levels),
                 'representation_layer': 1}
    return {'architectures': ['COMiT'], 'model_type': 'comit', 'predictor': predictor,
            'quantizer': {'_target_': 'comit.components.quantizer.fsq.FSQ', 'levels': list(c.levels)},
            'vae': {'_target_': 'comit.components.vae.SDAutoencoderKL', 'model_type': 'ema',
                    'tutti_local_autoencoder_config': own},
            'tutti_geometry': dataclasses.asdict(geometry), **INT8}


def rounded(model):
    """The network with the weights that would be shipped."""
    model.load_state_dict(import_tensors(export_tensors(model.state_dict(), SAME_NAMES, VECTORS), SAME_NAMES))
    return model


def write_comit(folder, predictor, vae, geometry):
    parts = {'predictor.': predictor, 'vae.vae.': vae}
    state = {prefix + name: t for prefix, part in parts.items() for name, t in part.state_dict().items()}
    return write_folder(folder, comit_config(predictor.config, vae.config, geometry), state, VECTORS)


def load_comit(folder, device):
    """(predictor, autoencoder, quantiser, geometry), weights in float32."""
    k = read_config(folder)
    p, v = k['predictor'], k['vae']['tutti_local_autoencoder_config']
    c = comit.Config(p['max_input_size'], p['patch_size'], p['in_channels'], p['hidden_size'], p['depth'],
                     p['num_heads'], p['mlp_ratio'], p['num_msg_tokens'], tuple(k['quantizer']['levels']))
    vae = comit.VaeConfig(tuple(v['block_out_channels']), v['layers_per_block'], v['latent_channels'],
                          v['norm_num_groups'], v['scaling_factor'])
    state = import_tensors(read_safetensors(os.path.join(folder, 'model.safetensors')), SAME_NAMES)
    models = comit.Predictor(c), comit.Vae(vae)
    for model, prefix in zip(models, ('predictor.', 'vae.vae.')):
        own = {name[len(prefix):]: t for name, t in state.items() if name.startswith(prefix)}
        model.load_state_dict(own)
        model.to(device).eval()
    return (*models, comit.Fsq(c.levels, device), comit.Geometry(**k['tutti_geometry']))
