#!/usr/bin/python3
"""Train, export and measure tutti-insertion-stars, and the two baselines it is compared with.

usage: stars.py OUTDIR [--minutes M | --until T] [--out results.json]

Three networks of one size learn from the same graphs in the same run: the insertion model, a
masked-diffusion model of a fixed canvas (path, then end tokens) and an autoregressive model.
Writes OUTDIR/tutti-insertion-stars, the shipped folder; the baselines are only measured.
"""
import json
import os

import torch
import torch.nn.functional as F

import ilm
import loop
import star_graphs
from common import record
from export import write_json, write_model
from star_graphs import LEVELS, PAD, SPECIAL, VOCAB
from weights import import_tensors, read_safetensors

EXPORTED = 'tutti-insertion-stars'
LONGEST = LEVELS['hard'].longest
SMALL = 48
NET = dict(vocab_size=VOCAB, max_length=LONGEST, **SPECIAL)
TEST = 3                         # seed; training has 1


# ---- the shipped folder -------------------------------------------------------------------

def ilm_config(c, suppress=()):
    """config.json of an insertion model."""
    return {
        'architectures': ['RotaryTransformerILMModelWithStoppingClassification'], 'model_type': 'ilm',
        'head': 'stopping', 'd_model': c.d_model, 'num_layers': c.num_layers, 'nhead': c.nhead,
        'dim_feedforward': c.dim_feedforward, 'activation': 'relu', 'layer_norm_eps': ilm.EPS,
        'rotary_emb_dim': c.rotary_emb_dim, 'max_length': c.max_length,
        'final_layer_without_normalization': True, 'num_classes': 2, 'num_embeddings': c.vocab_size,
        'cls_token_id': c.cls, 'bos_token_id': c.bos, 'eos_token_id': c.eos, 'unk_token_id': c.unk,
        'pad_token_id': c.pad, 'mask_token_id': c.mask,
        'tokens_to_suppress': sorted({*c.suppressed(), *suppress}),
        'torch_dtype': 'float32', 'quantization': {'method': 'int8_rowwise'}}


def read_model(folder, config):
    """The network of a shipped folder, with its rounded weights in float32."""
    model = ilm.Insertion(config)
    model.load_state_dict(import_tensors(read_safetensors(os.path.join(folder, 'model.safetensors')), {}))
    return model.to(loop.device()).eval()


def tokenizer_json():
    """A number is a token; numbers stand apart by blanks."""
    special = {'[CLS]': SPECIAL['cls'], '[BOS]': SPECIAL['bos'], '[EOS]': SPECIAL['eos'],
               '[UNK]': SPECIAL['unk'], '[PAD]': SPECIAL['pad'], '[MASK]': SPECIAL['mask'],
               '[EDGE]': VOCAB - 2, '[GOAL]': VOCAB - 1}
    vocab = {**{str(i): i for i in range(star_graphs.NODES)}, **special}
    added = [{'id': i, 'content': s, 'single_word': False, 'lstrip': False, 'rstrip': False,
              'normalized': False, 'special': True} for s, i in special.items()]
    return {'version': '1.0', 'truncation': None, 'padding': None, 'added_tokens': added,
            'normalizer': None, 'pre_tokenizer': {'type': 'WhitespaceSplit'}, 'post_processor': None,
            'decoder': None, 'model': {'type': 'WordLevel', 'vocab': vocab, 'unk_token': '[UNK]'}}


def export(outdir, state, config):
    folder = os.path.join(outdir, EXPORTED)
    size = write_model(folder, ilm_config(config, range(star_graphs.NODES, VOCAB)), state, {})
    write_json(os.path.join(folder, 'tokenizer.json'), tokenizer_json())
    write_json(os.path.join(folder, 'tokenizer_config.json'), {
        'tokenizer_class': 'PreTrainedTokenizerFast', 'unk_token': '[UNK]', 'pad_token': '[PAD]',
        'mask_token': '[MASK]', 'model_max_length': config.max_length - 2,
        'clean_up_tokenization_spaces': False})
    write_json(os.path.join(folder, 'generation_config.json'), {'sampler': 'insertion', 'temperature': 0})
    return folder, size


# ---- training -----------------------------------------------------------------------------

class Mixture:
    """Batches of all three levels: `hard` hard graphs, and half of `others` of each other level."""

    def __init__(self, args):
        self.source = star_graphs.Source(loop.device(), args.seed)
        self.sizes = {'easy': args.others // 2, 'medium': args.others // 2, 'hard': args.hard}

    def draw(self):
        return {name: self.source.draw(LEVELS[name], n) for name, n in self.sizes.items() if n}

    def insertion(self, graphs):
        pieces = [star_graphs.insertion_batch(g, self.source.rand, LONGEST if name == 'hard' else SMALL)
                  for name, g in graphs.items()]
        return star_graphs.join(pieces, [len(p.ids) for p in pieces])

    def plain(self, graphs, make):
        """(ids, layout, targets, weights) of a baseline, weights adding up to about 1."""
        pieces = [make(g, LONGEST if name == 'hard' else SMALL) for name, g in graphs.items()]
        ids, layouts, targets, weights = zip(*pieces)
        layout = ilm.Layout([part for x in layouts for part in x.parts], torch.cat([x.position for x in layouts]))
        return torch.cat(ids), layout, torch.cat(targets), torch.cat(weights) / sum(self.sizes.values())

    def canvas(self, graphs):
        return self.plain(graphs, lambda g, length: star_graphs.canvas_batch(g, self.source.rand, length))

    def causal(self, graphs):
        return self.plain(graphs, star_graphs.causal_batch)


def plain_loss(model, batch, dtype):
    ids, layout, targets, weights = batch
    logits = model.logits(model.hidden(ids, layout, dtype), dtype)
    return (F.cross_entropy(logits, targets, reduction='none') * weights).sum()


def configs(args):
    size = dict(NET, d_model=args.width, num_layers=args.layers, nhead=args.width // 32,
                dim_feedforward=args.feed_forward)
    return {'insertion': ilm.Config(**size), 'masked': ilm.Config(**size, stop_head=False),
            'causal': ilm.Config(**size, stop_head=False, causal=True)}


def train(args, nets, clock):
    """{name: Learner} after the time is up."""
    learners = {name: loop.Learner(ilm.Insertion(c), args, ilm.is_table) for name, c in nets.items()}
    if args.compile:
        compiled = tuple(torch.compile(f, dynamic=False) for f in ilm.PIECES)
        for learner in learners.values():
            learner.model.pieces = compiled
    mixture, used = Mixture(args), 0.0
    while True:
        graphs = mixture.draw()
        one = learners['insertion']
        loss, token, stop = ilm.insertion_loss(one.model, mixture.insertion(graphs), one.dtype)
        one.learn(loss, used, token=token, stop=stop)
        for name, make in (('masked', mixture.canvas), ('causal', mixture.causal)):
            if name in learners:
                other = learners[name]
                other.learn(plain_loss(other.model, make(graphs), other.dtype), used)
        more = clock.tick()
        used = min(1.0, clock.used())
        if clock.step % args.log_every == 0 or not more:
            line = {'step': clock.step, 'used': round(used, 4), 'minutes': clock.minutes()}
            print(json.dumps({**line, **{n: x.report() for n, x in learners.items()}}), flush=True)
        if clock.to_save() or not more:
            export(args.outdir, one.mean_state(), nets['insertion'])
        if not more:
            return learners


# ---- measuring ----------------------------------------------------------------------------

def compacted(graphs, length):
    slots = torch.cat((graphs.prefix, graphs.path), 1)
    return star_graphs.compact(slots, slots >= 0, length, PAD)


@torch.no_grad()
def insertion_right(model, graphs, threshold):
    """Whether each path is written exactly, and insertions a graph."""
    level = graphs.level
    start = star_graphs.compact(graphs.prefix, graphs.prefix >= 0, level.prefix, PAD)
    open_from = (graphs.prefix >= 0).sum(1) - 1
    room = min(level.longest + 2, LONGEST)
    ids, made = ilm.write(model, start, open_from, room, threshold, level.targets + 2)
    return (ids == compacted(graphs, room)).all(1), made.float().mean()


@torch.no_grad()
def masked_right(model, graphs, passes):
    """Whether each canvas is filled exactly; every pass fills the surest places."""
    ones = lambda *shape: torch.ones(*shape, device=graphs.path.device)
    ids, layout, target, _ = star_graphs.canvas_batch(graphs, ones, graphs.level.longest)
    n = len(graphs.path)
    ids, target = ids.view(n, -1).clone(), target.view(n, -1)
    hole = target != PAD
    hole &= torch.arange(ids.shape[1], device=ids.device) >= (graphs.prefix >= 0).sum(1, keepdim=True)
    ids[hole] = star_graphs.MASK
    for left in range(min(passes, graphs.level.targets), 0, -1):
        logits = model.logits(model.hidden(ids.flatten(), layout, torch.float32), torch.float32).view(*ids.shape, -1)
        logits[..., [SPECIAL['mask'], PAD, SPECIAL['cls'], SPECIAL['bos']]] = -torch.inf
        sure, token = logits.softmax(-1).max(-1)
        empty = ids == star_graphs.MASK
        rank = sure.masked_fill(~empty, -1).argsort(dim=1, descending=True).argsort(dim=1)
        ids = torch.where(empty & (rank < -(-empty.sum(1, keepdim=True) // left)), token, ids)
    return (ids == target).all(1)


@torch.no_grad()
def causal_right(model, graphs):
    """Whether greedy decoding writes each path: it does if every token is the likeliest one behind
    the right ones before it."""
    ids, layout, target, weight = star_graphs.causal_batch(graphs, graphs.level.longest)
    best = model.logits(model.hidden(ids, layout, torch.float32), torch.float32).argmax(-1)
    return ((best == target) | (weight == 0)).view(len(graphs.path), -1).all(1)


def measure(models, n):
    """{level: {way: exact paths in %}} on fresh graphs."""
    table, percent = {}, lambda right: round(100 * right.float().mean().item(), 1)
    for name, level in LEVELS.items():
        graphs = star_graphs.Source(loop.device(), TEST).draw(level, n)
        row = table[name] = {}
        for threshold in (0.9, 0.5):
            right, made = insertion_right(models['insertion'], graphs, threshold)
            row['insertion, threshold %s' % threshold] = percent(right)
            row['insertions'] = round(made.item(), 2)
        if 'masked' in models:
            row['masked, one token a pass'] = percent(masked_right(models['masked'], graphs, level.targets))
            row['masked, 4 passes'] = percent(masked_right(models['masked'], graphs, 4))
        if 'causal' in models:
            row['causal, greedy'] = percent(causal_right(models['causal'], graphs))
    return table


def main():
    p = loop.options(__doc__.split('\n')[0])
    p.add_argument('--hard', type=int, default=384, help='hard graphs of a step')
    p.add_argument('--others', type=int, default=256, help='easy and medium graphs of a step, together')
    p.add_argument('--width', type=int, default=192)
    p.add_argument('--layers', type=int, default=6)
    p.add_argument('--feed-forward', type=int, default=576)
    p.add_argument('--graphs', type=int, default=1000, help='of each level, to measure with')
    p.add_argument('--alone', action='store_true', help='no baselines')
    args = p.parse_args()
    os.makedirs(args.outdir, exist_ok=True)
    torch.manual_seed(args.seed)
    nets = configs(args)
    if args.alone:
        nets = {'insertion': nets['insertion']}
    clock = loop.Clock(args)
    learners = train(args, nets, clock)
    folder, size = export(args.outdir, learners['insertion'].mean_state(), nets['insertion'])
    print(folder, size, 'bytes of weights', flush=True)
    record(args.out, 'training stars', {
        'parameters': {name: x.parameters() for name, x in learners.items()}, 'steps': clock.step,
        'graphs of each network': clock.step * (args.hard + args.others), 'of them hard': clock.step * args.hard,
        'minutes, all networks in turn': clock.minutes(), 'losses': {n: x.report() for n, x in learners.items()}})
    models = {name: x.averaged(ilm.Insertion(nets[name])) for name, x in learners.items()}
    models['insertion'] = read_model(folder, nets['insertion'])
    table = measure(models, args.graphs)
    record(args.out, 'star graphs, exact paths in %', {'graphs of a level': args.graphs, **table})
    print(json.dumps(table, indent=1), flush=True)


if __name__ == '__main__':
    main()
