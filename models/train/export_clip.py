"""Shipped folders of the verifiers: configuration, vocabulary, and back into the network. Matrices are
int8 rows, everything else is bfloat16."""
import os

import torch

import clip
from export import INT8, write_json
from export_images import fill, read_config, write_folder

VECTORS = torch.bfloat16
MEAN, DEVIATION = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)


def clip_config(c, ends):
    """`ends`: ids of the start and the end of a text."""
    tower = lambda width, layers, heads: {
        'hidden_size': width, 'intermediate_size': 4 * width, 'num_hidden_layers': layers,
        'num_attention_heads': heads, 'hidden_act': 'quick_gelu', 'layer_norm_eps': 1e-5}
    text = {**tower(c.text_width, c.text_layers, c.text_heads), 'max_position_embeddings': c.context,
            'vocab_size': c.vocab, 'bos_token_id': ends[0], 'eos_token_id': ends[1]}
    image = {**tower(c.image_width, c.image_layers, c.image_heads), 'image_size': c.image, 'patch_size': c.patch,
             'num_channels': 3}
    return {'architectures': ['CLIPModel'], 'model_type': 'clip', 'projection_dim': c.projection,
            'logit_scale_init_value': 2.6592, 'text_config': text, 'vision_config': image, **INT8}


def write_clip(folder, config, state, bpe):
    size = write_folder(folder, clip_config(config, (config.vocab - 2, config.vocab - 1)), state, VECTORS)
    write_json(os.path.join(folder, 'preprocessor_config.json'), {
        'size': {'shortest_edge': config.image}, 'crop_size': config.image, 'resample': 3,
        'image_mean': MEAN, 'image_std': DEVIATION})
    bpe.save(folder)
    return size


def load_clip(folder, device):
    k = read_config(folder)
    t, v = k['text_config'], k['vision_config']
    c = clip.Config(t['vocab_size'], t['max_position_embeddings'], k['projection_dim'], v['image_size'],
                    v['patch_size'], v['hidden_size'], v['num_hidden_layers'], v['num_attention_heads'],
                    t['hidden_size'], t['num_hidden_layers'], t['num_attention_heads'])
    return fill(clip.Clip(c), folder, device)


def pixels_of(pictures):
    """Pictures in [0, 1] as the network wants them."""
    return (pictures - MEAN[0]) / DEVIATION[0]
