#!/usr/bin/python3
"""The names that models/convert gives, on the shapes of the released checkpoints: no weights needed."""
import os
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(__file__), '../../models/convert'))
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


if __name__ == '__main__':
    result = unittest.TextTestRunner().run(unittest.defaultTestLoader.loadTestsFromTestCase(Names))
    bad = len(result.failures) + len(result.errors)
    print(f'{result.testsRun - bad} passed, {bad} failed')
    sys.exit(bad > 0)
