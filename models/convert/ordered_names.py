"""Names and configs of released image codecs and generators over ordered tokens: ResTok, HAR, COMiT, FlexTok,
FlexAR. No PyTorch needed."""

WRAPPERS = ('module.', '_orig_mod.')
# In checkpoints for training alone.
RESTOK_DEAD = ('decoder.feat_mask_token', 'vf_proj.', 'vf_proj_dec.', 'foundation_model.')
# HAR by width: layers, heads (arXiv 2601.03955 keeps LlamaGen's sizes).
HAR_SIZES = {768: (12, 12), 1024: (24, 16), 1280: (36, 20), 1536: (48, 24), 2560: (48, 40)}


def bare(name):
    while name.startswith(WRAPPERS):
        name = name[name.index('.') + 1:]
    return name


def restok_name(name):
    name = bare(name)
    return None if name.startswith(RESTOK_DEAD) else name


def restok_config(config):
    return {**config, 'architectures': ['ResTok']}


def har_name(name):
    """Rotary tables are made anew."""
    name = bare(name)
    return None if name in ('freqs_cis', 'causal_mask') else name


def har_config(shapes):
    """config.json of tensors {name: shape} with released sizes. Codes, classes and special vectors are read off
    them; what cannot be is as released: 128 tokens for HAR (levels from 4 on), 128 for the plain generator."""
    width = shapes['tok_embeddings.weight'][1]
    layers = 1 + max(int(n.split('.')[1]) for n in shapes if n.startswith('layers.'))
    if HAR_SIZES.get(width, (0,))[0] != layers:
        raise SystemExit(f'not a released HAR: width {width}, {layers} layers')
    special = shapes.get('spe_tok_embeddings.special_embeddings.weight')
    config = {'architectures': ['HAR' if special else 'LlamaGen'], 'model_type': 'c2i', 'dim': width,
              'n_layer': layers, 'n_head': HAR_SIZES[width][1], 'multiple_of': 256, 'rope_base': 10000,
              'norm_eps': 1e-5, 'vocab_size': shapes['output.weight'][0],
              'num_classes': shapes['cls_embedding.embedding_table.weight'][0] - 1, 'cls_token_num': 1,
              'block_size': special[0] + 1 if special else 128, 'codec': 'restok'}
    if special:
        config.update(ar_token_num=4, spe_token_num=special[0])
    return config


def comit_name(name):
    """The predictor and, where the file has it, the autoencoder; quantiser buffers are made anew."""
    name = bare(name)
    return name if name.startswith(('predictor.', 'vae.vae.')) else None


def vae_name(name):
    """Of an autoencoder's own file."""
    return 'vae.vae.' + bare(name)


def vae_sizes(config):
    """What of a diffusers AutoencoderKL config is read here."""
    keys = ('block_out_channels', 'layers_per_block', 'norm_num_groups', 'latent_channels', 'in_channels',
            'out_channels', 'scaling_factor')
    return {k: config[k] for k in keys if k in config}


def comit_config(config, vae=None):
    """COMiT multiplies latents by 0.18215 whatever the autoencoder's config says."""
    config = dict(config.get('config', config), architectures=['COMiT'])
    if vae:
        config['vae'] = {**config.get('vae', {}), 'tutti_local_autoencoder_config': {
            **vae_sizes(vae), 'scaling_factor': 0.18215}}
    return config


def flextok_name(name):
    name = bare(name)
    return None if 'repa' in name else name


def flextok_config(config, vae=None):
    """Some releases hold the config as texts of the safetensors file, each member JSON by itself."""
    config = {**config, 'architectures': ['FlexTok']}
    if vae:
        config['vae'] = {**config['vae'], 'tutti_local_autoencoder_config': vae_sizes(vae)}
    return config


def flexar_name(name):
    """The text encoder has a folder of its own."""
    name = bare(name)
    return None if '.t5_embedder.' in name else name


def flexar_config(tree):
    return {**tree, 'architectures': ['FlexAR'], 'codec': 'flextok', 'text_encoder': 't5'}


def flexar_defaults(tree):
    """generation_config.json: guidance here is what is added to the conditional branch; a top_p of 0 is none."""
    g = tree.get('generation', {})
    factor = g.get('cfg_factor', 3.0)
    return {'temperature': g.get('temperature', 1.0) if g.get('sample', True) else 0,
            'cfg_scale': factor - 1 if factor else 0, 'top_k': g.get('top_k') or 0, 'top_p': g.get('top_p') or 1}
