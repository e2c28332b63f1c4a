"""Names and configs of released verifiers: CLIP as OpenAI stored it to Hugging Face's CLIPModel, ImageReward. A
tensor may become several: plans are lists of (new name, how), how None, 'T' (transposed) or (first row, rows).
No PyTorch needed."""
import re

CLIP_BLOCK = {'ln_1': 'layer_norm1', 'ln_2': 'layer_norm2', 'mlp.c_fc': 'mlp.fc1', 'mlp.c_proj': 'mlp.fc2',
              'attn.out_proj': 'self_attn.out_proj'}
CLIP_REST = {'visual.class_embedding': 'vision_model.embeddings.class_embedding',
             'visual.conv1.weight': 'vision_model.embeddings.patch_embedding.weight',
             'visual.positional_embedding': 'vision_model.embeddings.position_embedding.weight',
             'visual.ln_pre.': 'vision_model.pre_layrnorm.', 'visual.ln_post.': 'vision_model.post_layernorm.',
             'token_embedding.weight': 'text_model.embeddings.token_embedding.weight',
             'positional_embedding': 'text_model.embeddings.position_embedding.weight',
             'ln_final.': 'text_model.final_layer_norm.', 'logit_scale': 'logit_scale'}
CLIP_TRANSPOSED = {'visual.proj': 'visual_projection.weight', 'text_projection': 'text_projection.weight'}


def clip_plan(name, shape):
    """Where a tensor of OpenAI's file goes; [] for what only tells sizes."""
    if name in CLIP_TRANSPOSED:
        return [(CLIP_TRANSPOSED[name], 'T')]
    block = re.fullmatch(r'(visual\.)?transformer\.resblocks\.(\d+)\.(.+?)\.?(in_proj_)?(weight|bias)', name)
    if not block:
        for old, new in CLIP_REST.items():
            if name == old or (old.endswith('.') and name.startswith(old)):
                return [(new + name[len(old):] if old.endswith('.') else new, None)]
        return []
    tower = 'vision_model' if block[1] else 'text_model'
    at = f'{tower}.encoder.layers.{block[2]}.'
    if block[4]:
        n = shape[0] // 3
        return [(f'{at}self_attn.{p}_proj.{block[5]}', (i * n, n)) for i, p in enumerate('qkv')]
    return [(f'{at}{CLIP_BLOCK[block[3]]}.{block[5]}', None)]


def clip_config(shapes):
    """config.json of OpenAI's ViT models, of tensors {name: shape}; heads have 64 numbers there."""
    def layers(prefix):
        return 1 + max(int(n[len(prefix):].split('.')[0]) for n in shapes if n.startswith(prefix))

    if 'visual.conv1.weight' not in shapes or 'visual.class_embedding' not in shapes:
        raise SystemExit('not a CLIP with a vision transformer')
    wide, _, patch, _ = shapes['visual.conv1.weight']
    places = shapes['visual.positional_embedding'][0] - 1
    vocab, width = shapes['token_embedding.weight']
    return {'architectures': ['CLIPModel'], 'model_type': 'clip',
            'projection_dim': shapes['text_projection'][1],
            'vision_config': {'hidden_size': wide, 'intermediate_size': 4 * wide, 'num_attention_heads': wide // 64,
                              'num_hidden_layers': layers('visual.transformer.resblocks.'),
                              'image_size': patch * round(places ** 0.5), 'patch_size': patch,
                              'hidden_act': 'quick_gelu', 'layer_norm_eps': 1e-5},
            'text_config': {'hidden_size': width, 'intermediate_size': 4 * width, 'num_attention_heads': width // 64,
                            'num_hidden_layers': layers('transformer.resblocks.'), 'vocab_size': vocab,
                            'max_position_embeddings': shapes['positional_embedding'][0],
                            'hidden_act': 'quick_gelu', 'layer_norm_eps': 1e-5, 'eos_token_id': vocab - 1}}


def reward_name(name):
    """ImageReward.pt; what its forward pass does not use stays behind."""
    dead = ('blip.vision_proj.', 'blip.text_proj.')
    return None if name.startswith(dead) or name.endswith('position_ids') else name


def reward_config(shapes, bert):
    """config.json of tensors {name: shape} and the released med_config.json."""
    wide, _, patch, _ = shapes['blip.visual_encoder.patch_embed.proj.weight']
    places = shapes['blip.visual_encoder.pos_embed'][1] - 1
    blocks = 1 + max(int(n.split('.')[3]) for n in shapes if n.startswith('blip.visual_encoder.blocks.'))
    words = shapes['blip.text_encoder.embeddings.word_embeddings.weight'][0]
    return {'architectures': ['ImageReward'], 'model_type': 'imagereward',
            'image_size': patch * round(places ** 0.5), 'patch_size': patch, 'vision_width': wide,
            'vision_layers': blocks, 'vision_heads': wide // 64, 'bert': {**bert, 'vocab_size': words},
            'max_length': 35, 'mean': 0.16717362830052426, 'std': 1.0333394966054072}
