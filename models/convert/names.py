"""Names and shapes of released image checkpoints, as the folders here have them. No PyTorch needed."""
import math
import re

# ENAT (arXiv 2411.06959): the released .pth is a bare dict, which training wrappers may prefix.
DEAD = re.compile(r'prev_embedder\.')  # in the file, in no forward pass
WRAPPERS = ('module.', '_orig_mod.')


def enat_name(name):
    """The tensor's name in the folder, or None when it is not kept."""
    while name.startswith(WRAPPERS):
        name = name[name.index('.') + 1:]
    return None if DEAD.match(name) else name


def enat_config(shapes, heads):
    """config.json of tensors {name: shape}; heads cannot be read off them."""
    codes, width = shapes['x_embedder.word_embeddings.weight']
    tokens = shapes['x_embedder.position_embeddings.weight'][0]
    side = math.isqrt(tokens)
    classes = shapes['y_embedder.embedding_table.weight'][0] - 1
    blocks = 1 + max(int(n.split('.')[1]) for n in shapes if n.startswith('blocks.'))
    decoders = {16: 1, 24: 2}.get(blocks)  # S and B: 15 + 1, L: 22 + 2
    if side * side != tokens or width % heads or not decoders:
        raise SystemExit(f'not a released ENAT: {tokens} positions, width {width}, {blocks} blocks')
    return {'architectures': ['ENAT'], 'model_type': 'enat', 'input_size': side, 'hidden_size': width,
            'num_heads': heads, 'enc_dec': [blocks - decoders, decoders],
            'mlp_ratio': shapes['blocks.0.mlp.fc1.weight'][0] / width, 'codebook_size': codes - 1,
            'num_classes': classes, 'mask_token_id': codes - 1, 'null_class_id': classes,
            'codec': 'vqgan'}


# heads by width: ENAT-S, -B, -L
ENAT_HEADS = {366: 6, 768: 8, 1024: 16}
# Released settings by side of the token grid: 256 and 512 pixels.
ENAT_DEFAULTS = {
    16: {'steps': 8, 'cfg_scale': 2.5, 'order_temperature': 1.5, 'temperature': 6},
    32: {'steps': 8, 'cfg_scale': 3.5, 'order_temperature': 1.5, 'temperature': 4}}


def vqgan_name(name):
    """The name in the port that ENAT uses, from either port's."""
    name = re.sub(r'\.mid\.(\d)\.', lambda m: f'.mid.block_{int(m[1]) + 1}.', name)
    return name.replace('.upsample_conv.', '.upsample.conv.')


def vqgan_config(shapes, resolution):
    """config.json of tensors {name: shape}, as the port that ENAT uses calls them."""
    levels = 1 + max(int(n.split('.')[2]) for n in shapes if n.startswith('encoder.down.'))
    blocks = 1 + max(int(n.split('.')[4]) for n in shapes if n.startswith('encoder.down.'))
    ch = shapes['encoder.conv_in.weight'][0]
    codes, latent = shapes['quantize.embedding.weight']
    mult = [shapes[f'encoder.down.{i}.block.0.conv2.weight'][0] // ch for i in range(levels)]
    return {'architectures': ['VQGAN'], 'model_type': 'vqgan_f_avgpool',
            'ddconfig': {'double_z': False, 'z_channels': latent, 'resolution': resolution,
                         'in_channels': 3, 'out_ch': 3, 'ch': ch, 'ch_mult': mult,
                         'num_res_blocks': blocks, 'attn_resolutions': [], 'dropout': 0.0},
            'n_embed': codes, 'embed_dim': latent}
