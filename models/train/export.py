#!/usr/bin/python3
"""Shipped model folders: averaged weights -> int8 rows and config.json, and back into the network.

usage: export.py mean.pt MODELDIR          (tutti-text; causal.py and sudoku.py export their own)
"""
import argparse
import json
import os

import torch

from common import EOS, IM_END, MASK
from model import Config, Llada
from weights import (HF_NAMES, LLADA_NAMES, export_tensors, import_tensors, read_safetensors,
                     write_safetensors)

INT8 = {'quantization': {'method': 'int8_rowwise'}}
TEXT_IDS = {'mask_token_id': MASK, 'eos_token_id': EOS, 'pad_token_id': EOS, 'eot_token_id': IM_END}


def llada_config(c, ids):
    """LLaDA's config.json; `ids` are its special tokens."""
    return {
        'architectures': ['LLaDAModelLM'], 'model_type': 'llada', 'block_type': 'llama',
        'd_model': c.d_model, 'n_layers': c.n_layers, 'n_heads': c.n_heads, 'n_kv_heads': c.n_heads,
        'mlp_hidden_size': c.mlp_hidden_size, 'mlp_ratio': 4, 'vocab_size': c.vocab_size,
        'embedding_size': c.vocab_size, 'max_sequence_length': c.max_sequence_length,
        'weight_tying': True, 'activation_type': 'silu', 'layer_norm_type': 'rms',
        'rms_norm_eps': c.rms_norm_eps, 'layer_norm_with_affine': True, 'rope': c.rope,
        'rope_theta': c.rope_theta, 'rope_full_precision': True, 'alibi': False, 'alibi_bias_max': 8.0,
        'attention_layer_norm': False, 'attention_layer_norm_with_affine': True,
        'bias_for_layer_norm': False, 'include_bias': False, 'include_qkv_bias': False,
        'input_emb_norm': False, 'scale_logits': False, 'multi_query_attention': None,
        'attention_dropout': 0.0, 'embedding_dropout': 0.0, 'residual_dropout': 0.0,
        'block_group_size': 1, 'flash_attention': False, 'init_device': 'meta', 'init_fn': 'normal',
        'init_std': 0.02, 'init_cutoff_factor': None, 'precision': 'amp_bf16', **ids,
        'use_cache': False, 'torch_dtype': 'float32', **INT8}


def qwen2_config(c):
    """Qwen2's config.json, for a causal network with biases on queries, keys and values."""
    return {
        'architectures': ['Qwen2ForCausalLM'], 'model_type': 'qwen2', 'hidden_act': 'silu',
        'hidden_size': c.d_model, 'num_hidden_layers': c.n_layers, 'num_attention_heads': c.n_heads,
        'num_key_value_heads': c.n_heads, 'intermediate_size': c.mlp_hidden_size,
        'vocab_size': c.vocab_size, 'max_position_embeddings': c.max_sequence_length,
        'rms_norm_eps': c.rms_norm_eps, 'rope_theta': c.rope_theta, 'tie_word_embeddings': True,
        'use_sliding_window': False, 'attention_dropout': 0.0, 'initializer_range': 0.02,
        'bos_token_id': None, 'eos_token_id': EOS, 'use_cache': True, 'torch_dtype': 'float32', **INT8}


def network(config):
    """(Config, causal) of a config.json."""
    if config['architectures'] == ['Qwen2ForCausalLM']:
        return Config(config['hidden_size'], config['num_hidden_layers'], config['num_attention_heads'],
                      config['intermediate_size'], config['vocab_size'], config['rope_theta'],
                      config['rms_norm_eps'], config['max_position_embeddings'], qkv_bias=True), True
    return Config(config['d_model'], config['n_layers'], config['n_heads'], config['mlp_hidden_size'],
                  config['vocab_size'], config['rope_theta'], config['rms_norm_eps'],
                  config['max_sequence_length'], config['rope']), False


def names_of(causal):
    return HF_NAMES if causal else LLADA_NAMES


def write_json(path, value):
    with open(path, 'w', encoding='utf-8') as f:
        json.dump(value, f, indent=2, ensure_ascii=False)
        f.write('\n')


def write_model(folder, config, state, names=None):
    """config.json and model.safetensors; returns the size of the latter.  `names` are the changed
    parts of tensor names, by default those of the architecture in `config`."""
    os.makedirs(folder, exist_ok=True)
    write_json(os.path.join(folder, 'config.json'), config)
    path = os.path.join(folder, 'model.safetensors')
    names = names_of(network(config)[1]) if names is None else names
    write_safetensors(path, export_tensors(state, names))
    return os.path.getsize(path)


def load_model(folder, device):
    """The network of a shipped folder, with its rounded weights in float32."""
    with open(os.path.join(folder, 'config.json'), encoding='utf-8') as f:
        config, causal = network(json.load(f))
    model = Llada(config, causal)
    tensors = read_safetensors(os.path.join(folder, 'model.safetensors'))
    model.load_state_dict(import_tensors(tensors, names_of(causal)))
    return model.to(device).eval()


def main():
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('weights')
    p.add_argument('model_dir')
    args = p.parse_args()
    state = torch.load(args.weights, map_location='cpu')
    size = write_model(args.model_dir, llada_config(Config(), TEXT_IDS), state)
    print(args.model_dir, size, 'bytes of weights')


if __name__ == '__main__':
    main()
