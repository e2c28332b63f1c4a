#!/usr/bin/python3
"""Write the shipped model: averaged weights -> int8 rows, and LLaDA's config.json.

usage: export.py mean.pt MODELDIR
"""
import argparse
import json
import os

import torch

from common import EOS, IM_END, MASK
from model import Config
from weights import export_tensors, write_safetensors


def config_json(c):
    return {
        'architectures': ['LLaDAModelLM'], 'model_type': 'llada', 'block_type': 'llama',
        'd_model': c.d_model, 'n_layers': c.n_layers, 'n_heads': c.n_heads, 'n_kv_heads': c.n_heads,
        'mlp_hidden_size': c.mlp_hidden_size, 'mlp_ratio': 4, 'vocab_size': c.vocab_size,
        'embedding_size': c.vocab_size, 'max_sequence_length': c.max_sequence_length,
        'weight_tying': True, 'activation_type': 'silu', 'layer_norm_type': 'rms',
        'rms_norm_eps': c.rms_norm_eps, 'layer_norm_with_affine': True, 'rope': True,
        'rope_theta': c.rope_theta, 'rope_full_precision': True, 'alibi': False, 'alibi_bias_max': 8.0,
        'attention_layer_norm': False, 'attention_layer_norm_with_affine': True,
        'bias_for_layer_norm': False, 'include_bias': False, 'include_qkv_bias': False,
        'input_emb_norm': False, 'scale_logits': False, 'multi_query_attention': None,
        'attention_dropout': 0.0, 'embedding_dropout': 0.0, 'residual_dropout': 0.0,
        'block_group_size': 1, 'flash_attention': False, 'init_device': 'meta', 'init_fn': 'normal',
        'init_std': 0.02, 'init_cutoff_factor': None, 'precision': 'amp_bf16',
        'mask_token_id': MASK, 'eos_token_id': EOS, 'pad_token_id': EOS, 'eot_token_id': IM_END,
        'use_cache': False, 'torch_dtype': 'float32',
        'quantization': {'method': 'int8_rowwise'}}


def main():
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('weights')
    p.add_argument('model_dir')
    args = p.parse_args()
    os.makedirs(args.model_dir, exist_ok=True)
    with open(os.path.join(args.model_dir, 'config.json'), 'w') as f:
        json.dump(config_json(Config()), f, indent=2)
        f.write('\n')
    path = os.path.join(args.model_dir, 'model.safetensors')
    write_safetensors(path, export_tensors(torch.load(args.weights, map_location='cpu')))
    print(path, os.path.getsize(path), 'bytes')


if __name__ == '__main__':
    main()
