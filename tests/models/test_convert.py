#!/usr/bin/python3
"""The names that models/convert gives, on the shapes of the released checkpoints: no weights needed."""
import json
import os
import struct
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(__file__), '../../models/convert'))
import folder  # noqa: E402
import ordered_names as ordered  # noqa: E402
import tensors as raw  # noqa: E402
import verifier_names as verifiers  # noqa: E402
from names import enat_config, enat_name, vqgan_config, vqgan_name  # noqa: E402


def enat_shapes(width, blocks, tokens):
    shapes = {'x_embedder.word_embeddings.weight': (1025, width),
              'x_embedder.position_embeddings.weight': (tokens, width),
              'y_embedder.embedding_table.weight': (1001, width)}
    for i in range(blocks):
        shapes[f'blocks.{i}.mlp.fc1.weight'] = (4 * width, width)
    return shapes


class Names(unittest.TestCase):
    def test_wrappers_go_and_dead_tensors_stay_behind(self):
        self.assertEqual(enat_name('module.blocks.3.attn.kv.A.weight'), 'blocks.3.attn.kv.A.weight')
        self.assertEqual(enat_name('module._orig_mod.norm.bias'), 'norm.bias')
        self.assertIsNone(enat_name('module.prev_embedder.fc1.weight'))
        self.assertEqual(enat_name('prev_proj.mlp.fc1.weight'), 'prev_proj.mlp.fc1.weight')

    def test_both_ports_of_the_codec_have_one_name(self):
        for other, name in (
                ('encoder.mid.0.norm1.weight', 'encoder.mid.block_1.norm1.weight'),
                ('decoder.mid.1.conv2.weight', 'decoder.mid.block_2.conv2.weight'),
                ('decoder.up.4.upsample_conv.bias', 'decoder.up.4.upsample.conv.bias'),
                ('encoder.down.2.block.0.nin_shortcut.weight',) * 2,
                ('quantize.embedding.weight',) * 2):
            self.assertEqual(vqgan_name(other), name)
            self.assertEqual(vqgan_name(name), name)

    def test_sizes_of_released_models(self):
        large = enat_config(enat_shapes(1024, 24, 1024), 16)
        self.assertEqual(large['enc_dec'], [22, 2])
        self.assertEqual((large['input_size'], large['codebook_size']), (32, 1024))
        self.assertEqual((large['num_classes'], large['null_class_id']), (1000, 1000))
        small = enat_config(enat_shapes(366, 16, 256), 6)
        self.assertEqual((small['enc_dec'], small['mlp_ratio']), ([15, 1], 4))
        with self.assertRaises(SystemExit):
            enat_config(enat_shapes(366, 7, 256), 6)

    def test_codec_of_16_pixels_a_token(self):
        widths = [128, 128, 256, 256, 512]
        shapes = {'encoder.conv_in.weight': (128, 3, 3, 3), 'quantize.embedding.weight': (1024, 256)}
        for level, width in enumerate(widths):
            for block in range(2):
                shapes[f'encoder.down.{level}.block.{block}.conv2.weight'] = (width, width, 3, 3)
        config = vqgan_config(shapes, 256)
        self.assertEqual(config['ddconfig']['ch_mult'], [1, 1, 2, 2, 4])
        self.assertEqual(config['ddconfig']['num_res_blocks'], 2)
        self.assertEqual((config['n_embed'], config['embed_dim']), (1024, 256))


def floats(*values, shape=None):
    return 'F32', shape or (len(values),), struct.pack(f'<{len(values)}f', *values)


class Ordered(unittest.TestCase):
    def test_what_is_for_training_alone_stays_behind(self):
        self.assertIsNone(ordered.restok_name('_orig_mod.foundation_model.norm.weight'))
        self.assertIsNone(ordered.restok_name('vf_proj_dec.weight'))
        self.assertEqual(ordered.restok_name('_orig_mod.decoder.mask_token'), 'decoder.mask_token')
        self.assertIsNone(ordered.comit_name('quantizer._levels'))
        self.assertEqual(ordered.comit_name('predictor.pos_embed'), 'predictor.pos_embed')
        self.assertIsNone(ordered.flextok_name('decoder.module_dict.dec_repa_proj.weight'))
        self.assertIsNone(ordered.flexar_name('models.text_encoder.t5_embedder.model.shared.weight'))
        self.assertIsNone(ordered.har_name('module.freqs_cis'))

    def test_sizes_of_har(self):
        shapes = {'tok_embeddings.weight': (8192, 1024), 'output.weight': (8192, 1024),
                  'cls_embedding.embedding_table.weight': (1001, 1024),
                  'spe_tok_embeddings.special_embeddings.weight': (127, 1024)}
        shapes.update({f'layers.{i}.attention.wo.weight': (1024, 1024) for i in range(24)})
        config = ordered.har_config(shapes)
        self.assertEqual((config['architectures'], config['n_layer'], config['n_head']), (['HAR'], 24, 16))
        self.assertEqual((config['block_size'], config['ar_token_num'], config['num_classes']), (128, 4, 1000))
        del shapes['spe_tok_embeddings.special_embeddings.weight']
        self.assertEqual(ordered.har_config(shapes)['architectures'], ['LlamaGen'])
        del shapes['layers.23.attention.wo.weight']
        with self.assertRaises(SystemExit):
            ordered.har_config(shapes)

    def test_configs_know_their_family_and_their_autoencoder(self):
        vae = {'block_out_channels': [8, 8], 'scaling_factor': 0.4, 'act_fn': 'silu'}
        comit = ordered.comit_config({'config': {'predictor': {}, 'vae': {'model_type': 'ema'}}}, vae)
        self.assertEqual(comit['architectures'], ['COMiT'])
        own = comit['vae']['tutti_local_autoencoder_config']
        self.assertEqual(own, {'block_out_channels': [8, 8], 'scaling_factor': 0.18215})
        flextok = ordered.flextok_config({'vae': {}}, vae)
        self.assertEqual(flextok['vae']['tutti_local_autoencoder_config']['scaling_factor'], 0.4)

    def test_guidance_is_what_is_added(self):
        self.assertEqual(ordered.flexar_defaults({'generation': {'cfg_factor': 3.0, 'top_p': 0.0}}),
                         {'temperature': 1.0, 'cfg_scale': 2, 'top_k': 0, 'top_p': 1})
        self.assertEqual(ordered.flexar_defaults({'generation': {'sample': False}})['temperature'], 0)


class Verifiers(unittest.TestCase):
    def test_names_of_clip(self):
        for old, shape, want in (
                ('visual.transformer.resblocks.3.attn.in_proj_weight', (12, 4),
                 [(f'vision_model.encoder.layers.3.self_attn.{p}_proj.weight', (4 * i, 4))
                  for i, p in enumerate('qkv')]),
                ('transformer.resblocks.0.attn.in_proj_bias', (12,),
                 [(f'text_model.encoder.layers.0.self_attn.{p}_proj.bias', (4 * i, 4))
                  for i, p in enumerate('qkv')]),
                ('transformer.resblocks.11.attn.out_proj.bias', (4,),
                 [('text_model.encoder.layers.11.self_attn.out_proj.bias', None)]),
                ('visual.transformer.resblocks.0.mlp.c_fc.weight', (16, 4),
                 [('vision_model.encoder.layers.0.mlp.fc1.weight', None)]),
                ('transformer.resblocks.0.ln_2.weight', (4,),
                 [('text_model.encoder.layers.0.layer_norm2.weight', None)]),
                ('visual.ln_pre.bias', (4,), [('vision_model.pre_layrnorm.bias', None)]),
                ('ln_final.weight', (4,), [('text_model.final_layer_norm.weight', None)]),
                ('visual.proj', (4, 2), [('visual_projection.weight', 'T')]),
                ('text_projection', (4, 2), [('text_projection.weight', 'T')]),
                ('visual.positional_embedding', (5, 4),
                 [('vision_model.embeddings.position_embedding.weight', None)]),
                ('positional_embedding', (77, 4),
                 [('text_model.embeddings.position_embedding.weight', None)]),
                ('logit_scale', (), [('logit_scale', None)]), ('context_length', (), [])):
            self.assertEqual(verifiers.clip_plan(old, shape), want)

    def test_sizes_of_clip(self):
        shapes = {'visual.conv1.weight': (768, 3, 16, 16), 'visual.class_embedding': (768,),
                  'visual.positional_embedding': (197, 768), 'token_embedding.weight': (49408, 512),
                  'positional_embedding': (77, 512), 'text_projection': (512, 512),
                  'visual.transformer.resblocks.11.ln_1.bias': (768,),
                  'transformer.resblocks.11.ln_1.bias': (512,)}
        config = verifiers.clip_config(shapes)
        self.assertEqual(config['vision_config']['image_size'], 224)
        self.assertEqual((config['vision_config']['num_attention_heads'],
                          config['text_config']['num_hidden_layers']), (12, 12))
        with self.assertRaises(SystemExit):
            verifiers.clip_config({'visual.conv1.weight': (64, 3, 3, 3)})

    def test_stacked_and_transposed_tensors(self):
        stacked = floats(*range(6), shape=(6, 1))
        square = floats(1, 2, 3, 4, 5, 6, shape=(2, 3))
        out = folder.clip_tensors({'transformer.resblocks.0.attn.in_proj_weight': stacked, 'visual.proj': square})
        self.assertEqual(out['text_model.encoder.layers.0.self_attn.k_proj.weight'],
                         floats(2, 3, shape=(2, 1)))
        self.assertEqual(out['visual_projection.weight'], floats(1, 4, 2, 5, 3, 6, shape=(3, 2)))

    def test_image_reward(self):
        self.assertIsNone(verifiers.reward_name('blip.text_proj.weight'))
        self.assertIsNone(verifiers.reward_name('blip.text_encoder.embeddings.position_ids'))
        shapes = {'blip.visual_encoder.patch_embed.proj.weight': (1024, 3, 16, 16),
                  'blip.visual_encoder.pos_embed': (1, 197, 1024),
                  'blip.visual_encoder.blocks.23.norm1.bias': (1024,),
                  'blip.text_encoder.embeddings.word_embeddings.weight': (30524, 768)}
        config = verifiers.reward_config(shapes, {'vocab_size': 30522, 'hidden_size': 768})
        self.assertEqual((config['image_size'], config['vision_layers'], config['vision_heads']), (224, 24, 16))
        self.assertEqual(config['bert'], {'vocab_size': 30524, 'hidden_size': 768})


class Folders(unittest.TestCase):
    """Whole folders: COMiT and its autoencoder from files of their own."""

    def make(self, path, tensors, config, file='model.safetensors'):
        os.makedirs(path)
        raw.write_file(os.path.join(path, file), tensors)
        with open(os.path.join(path, 'config.json'), 'w') as f:
            json.dump(config, f)

    def test_parts_come_together(self):
        with tempfile.TemporaryDirectory() as t:
            a, b, out = (os.path.join(t, n) for n in 'abo')
            self.make(a, {'predictor.pos_embed': floats(1, 2), 'quantizer.basis': floats(3)},
                      {'predictor': {}, 'quantizer': {}, 'vae': {}})
            self.make(b, {'encoder.conv_in.bias': floats(4)}, {'block_out_channels': [8]},
                      'diffusion_pytorch_model.safetensors')
            with self.assertRaises(SystemExit):
                folder.comit(a, out)
            folder.comit(a, b, out)
            tensors, _ = raw.read_folder(out)
            self.assertEqual({n: (d, s, bytes(x)) for n, (d, s, x) in tensors.items()},
                             {'predictor.pos_embed': floats(1, 2), 'vae.vae.encoder.conv_in.bias': floats(4)})
            with open(os.path.join(out, 'config.json')) as f:
                self.assertEqual(json.load(f)['architectures'], ['COMiT'])

    def test_two_tensors_cannot_have_one_name(self):
        with self.assertRaises(SystemExit):
            raw.rename({'module.x': floats(1), 'x': floats(2)}, ordered.restok_name)


if __name__ == '__main__':
    suite = unittest.defaultTestLoader.loadTestsFromModule(sys.modules['__main__'])
    result = unittest.TextTestRunner().run(suite)
    bad = len(result.failures) + len(result.errors)
    print(f'{result.testsRun - bad} passed, {bad} failed')
    sys.exit(bad > 0)
