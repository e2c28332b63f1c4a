"""Shipped folders of the networks over ordered image tokens: configurations, and back into the
networks. Matrices are int8 rows, everything else is bfloat16."""
import os

import torch

import ordered
import restok
from export import INT8
from export_images import fill, read_config, write_folder

VECTORS = torch.bfloat16
CODEC = 'restok'                # the codec's folder in that of its generator
LABELS = '../tutti-image/labels.json'


def restok_config(c):
    vq = {'codebook_size': c.codes, 'token_size': c.token_size, 'use_l2_norm': True, 'commitment_cost': 0.25,
          'vit_enc_model_size': 'small', 'vit_dec_model_size': 'small',
          'vit_enc_patch_size': c.resolution // c.side, 'vit_dec_patch_size': c.resolution // c.side,
          'rope_base_len': int(c.theta), 'num_latent_tokens': c.tokens, 'num_min_tokens': 1,
          'test_num_latent_tokens': c.tokens, 'merge_tokens': True, 'hierarchy_stages': c.stages,
          'reduction_ratio': 0.5, 'residual_image_tokens': True, 'residual_latent_tokens': True,
          'learnable_latent_tokens': False, 'learnable_dec_image_tokens': True, 'multi_quant': True,
          'vae_encoder': True, 'latent_hierarchy': True}
    sizes = {'width': c.width, 'num_layers': c.layers, 'num_heads': c.heads, 'in_place': c.in_place,
             'pixel': {'hidden_channels': c.ch, 'channel_mult': list(c.ch_mult), 'norm_groups': c.norm_groups,
                       'num_res_blocks': c.num_res_blocks, 'z_channels': c.z_channels}}
    return {'architectures': ['ResTok'], 'model_type': 'restok',
            'dataset': {'preprocessing': {'crop_size': c.resolution}}, 'model': {'vq_model': vq},
            'tiny_overrides': sizes, **INT8}


def write_restok(folder, model):
    return write_folder(folder, restok_config(model.config), model.state_dict(), VECTORS)


def load_restok(folder, device):
    """The codec of a shipped folder, with its rounded weights in float32."""
    config = read_config(folder)
    vq, sizes = config['model']['vq_model'], config['tiny_overrides']
    pixel = sizes['pixel']
    c = restok.Config(config['dataset']['preprocessing']['crop_size'], vq['num_latent_tokens'], vq['codebook_size'],
                      vq['token_size'], sizes['width'], sizes['num_layers'], sizes['num_heads'],
                      vq['hierarchy_stages'], pixel['hidden_channels'], tuple(pixel['channel_mult']),
                      pixel['num_res_blocks'], pixel['z_channels'], pixel['norm_groups'],
                      float(vq['rope_base_len']), sizes.get('in_place', False))
    return fill(restok.ResTok(c), folder, device)


def ordered_config(c, codec):
    """`codec`: the codec's folder, seen from the generator's."""
    levels = {'ar_token_num': c.ahead, 'spe_token_num': c.specials} if c.ahead else {}
    return {'architectures': ['HAR' if c.ahead else 'LlamaGen'], 'model_type': 'c2i', 'dim': c.dim,
            'n_layer': c.n_layer, 'n_head': c.n_head, 'n_kv_head': None, 'multiple_of': c.multiple_of,
            'ffn_dim_multiplier': None, 'rope_base': 10000, 'norm_eps': c.norm_eps, 'vocab_size': c.codebook_size,
            'block_size': c.tokens, 'num_classes': sum(c.label_groups), 'label_groups': list(c.label_groups),
            'cls_token_num': 1, **levels, 'codec': codec, 'labels': LABELS, **INT8}


def write_ordered(folder, c, state, codec):
    return write_folder(folder, ordered_config(c, codec), state, VECTORS)


def load_ordered(folder, device):
    """(network, the codec's folder)"""
    k = read_config(folder)
    c = ordered.Config(k['block_size'], k['vocab_size'], k.get('ar_token_num', 0), k['dim'], k['n_layer'],
                       k['n_head'], tuple(k['label_groups']), k['multiple_of'], k['norm_eps'])
    return fill(ordered.Ordered(c), folder, device), os.path.normpath(os.path.join(folder, k['codec']))
