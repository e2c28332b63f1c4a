#!/usr/bin/python3
"""Train an autoregressive network on tutti-text's data, export it if it ships, write its loss.

usage: causal.py DATA.npz OUTDIR baseline|guide [--minutes M] [--tokens N] [--masked MODELDIR]
                 [--out results.json]

baseline  tutti-text's own network with causal attention: what next-token training reaches with as
          many text tokens (--tokens 147e6 is what its first short run saw)
guide     the small Qwen2 network that checks tutti-text's drafts (sampler `guided`), exported to
          OUTDIR/tutti-text-guide

The loss is taken on the same validation sequences as the bound of the masked model in MODELDIR,
which is written beside it.
"""
import os
import time

import torch

import batches
from common import record
from export import load_model, qwen2_config, write_model
from losses import causal_sums, losses, masked_sums, with_bits
from model import Config, Llada
from train import Trainer, options, source

NETS = {'baseline': (Config(), batches.causal_batch),
        'guide': (Config(d_model=128, n_layers=3, n_heads=4, mlp_hidden_size=256, qkv_bias=True),
                  batches.guide_batch)}
EXPORTED = 'tutti-text-guide'


def export_guide(outdir, config):
    """The guide's folder. Its tokenizer is tutti-text's, the folder beside it."""
    folder = os.path.join(outdir, EXPORTED)
    state = torch.load(os.path.join(outdir, 'mean.pt'), map_location='cpu')
    print(folder, write_model(folder, qwen2_config(config), state), 'bytes of weights', flush=True)
    for name in ('tokenizer.json', 'tokenizer_config.json'):
        link = os.path.join(folder, name)
        if not os.path.islink(link):
            os.symlink(os.path.join('..', 'tutti-text', name), link)
    return folder


def average(trainer):
    """The network with the averaged weights, uncompiled, in float32."""
    model = Llada(trainer.model.config, causal=True).to(trainer.device).eval()
    names = [name for name, _ in trainer.model.named_parameters()]
    model.load_state_dict(dict(zip(names, trainer.optimiser.mean)))
    return model


def main():
    p = options(__doc__.split('\n')[0])
    p.add_argument('--masked', help='model folder whose bound is written too')
    p.add_argument('--out', default='results.json')
    p.add_argument('--limit', type=int, default=600, help='validation sequences of a source')
    p.add_argument('net', choices=NETS)
    args = p.parse_args()
    os.makedirs(args.outdir, exist_ok=True)
    torch.manual_seed(args.seed)
    config, make_batch = NETS[args.net]
    trainer = Trainer(args, Llada(config, causal=True), source(args, make_batch))
    began = time.time()
    trainer.run()
    spent = time.time() - began
    model = average(trainer)
    if args.net == 'guide':
        model = load_model(export_guide(args.outdir, config), trainer.device)
    val = batches.Side(args.data, 'val', trainer.device)
    record(args.out, 'training ' + args.net, {
        'parameters': sum(w.numel() for w in model.parameters()), 'steps': trainer.step,
        'places': trainer.rows, 'text tokens': int(trainer.tokens), 'minutes': round(spent / 60, 2)})
    measures = {'loss causal, ' + args.net: (causal_sums, model)}
    if args.masked:
        measures['loss masked'] = masked_sums, load_model(args.masked, trainer.device)
    for name, (measure, network) in measures.items():
        table = with_bits(losses(measure, network, val, args.limit))
        record(args.out, name, table)
        print('%s: %s' % (name, table['all']), flush=True)


if __name__ == '__main__':
    main()
