#!/usr/bin/python3
"""Train COMiT for a given time: first its autoencoder, then the network that reads and paints.

usage: train_comit.py PACK OUTDIR [--minutes M | --until T] [--vae vae.pt] [--init comit.pt]

The paper does not tell all of its training; here a step draws how many crops are looked at and in
which order, reads them with the gradient of the whole chain, and learns the velocity of the flow to
the picture's latents from the message (now and then from the empty one, for guidance). Writes
OUTDIR/tutti-comit (the shipped folder), OUTDIR/crops.png, figures into results.json and averaged
weights to go on from (vae.pt, comit.pt).
"""
import copy
import json
import os
import random
import time

import torch
import torch.nn.functional as F

from comit import Config, Fsq, Geometry, Predictor, Vae, VaeConfig, encode, paint
from common import record
from export_comit import load_comit, rounded, write_comit
from images import Pictures, psnr, sheet
from loop import device
from pixel_error import PixelError
from stepper import Training, autocast, options
from vqgan import in_parts

LOOKS = (0, True), (1, False), (3, False), (9, False), (4, True), (9, True)
FIRST_WEIGHTS = 1, 0, 0, 0, 0, 0         # while reading is learned at all
LOOK_WEIGHTS = 6, 2, 2, 4, 1, 2
READING = 0.35                  # of the time: the whole picture alone is read
NO_MESSAGE = 0.05
EARLY = -0.8                    # of the times' logit: most is to be learned where the message decides
VIEWS = 10                      # of every training picture
NARROW = 1e-3                   # weight of the latents' distance to a normal distribution


def latent_shape(n, vae, geometry):
    side = geometry.picture // vae.factor
    return n, vae.latent_channels, side, side


class VaeLearner:
    def __init__(self, args, pictures):
        self.args, self.pictures, self.noise = args, pictures, torch.Generator(device=pictures.device)
        self.noise.manual_seed(args.seed)
        self.model, self.pixels = Vae(VaeConfig()).to(pictures.device), PixelError(pictures.device)
        self.training = Training(self.model, args, pictures.device, self.losses)

    def losses(self, kind, x, noise, weight):
        with autocast(x.device):
            mean, logvar = (t.float() for t in self.model.moments(x * 2 - 1))
            z = mean + (0.5 * logvar).exp() * noise
            y = (self.model.decoder(self.model.post_quant_conv(z)).float() + 1) / 2
        error, slope = self.pixels.slope(x, y, kind == 'judged', weight)
        narrow = NARROW * 0.5 * (mean.pow(2) + logvar.exp() - 1 - logvar).mean()
        torch.autograd.backward((y, narrow), (slope, None))
        return None, error

    def step(self):
        used, n = self.training.clock.used(), self.args.batch
        judged = self.pixels.is_judged(used)
        x = self.pictures.views(n, self.noise).contiguous(memory_format=torch.channels_last)
        noise = torch.randn(latent_shape(n, self.model.config, Geometry()), generator=self.noise, device=x.device)
        error, = self.training.gradient('judged' if judged else 'plain', x, noise, self.pixels.weight(used))
        if judged:
            self.pixels.update(used)
        self.training.note(error)
        return self.training.update()


@torch.no_grad()
def scale_of(model, pictures):
    """1 / the deviation of the training pictures' latents."""
    means = in_parts(lambda w: model.moments(pictures.white(w) * 2 - 1)[0], pictures.train)
    return round(1 / means.std().item(), 5)


def make_vae(args, pictures):
    """The autoencoder with the weights that ship: from --vae, or trained for a share of the time."""
    c = VaeConfig()
    fresh = Vae(c).to(pictures.device)
    if args.vae:
        saved = torch.load(args.vae, map_location='cpu')
        state = {name: t.float() for name, t in saved.items()}
    else:
        mine = copy.copy(args)
        mine.name, mine.init, mine.batch = 'vae', None, args.vae_batch
        end = args.until or time.time() + 60 * args.minutes
        mine.until = time.time() + args.vae_share * (end - time.time())
        learner = VaeLearner(mine, pictures)
        while learner.step():
            pass
        learner.training.save()
        state = learner.training.mean_state()
    fresh.load_state_dict(state)
    rounded(fresh).eval().requires_grad_(False)
    c.scaling_factor = scale_of(fresh, pictures)
    return fresh


class FlowLearner:
    def __init__(self, args, pictures, vae):
        self.args, self.pictures, self.vae = args, pictures, vae
        self.noise, self.host = torch.Generator(device=pictures.device).manual_seed(args.seed), random.Random(args.seed)
        self.geometry, config = Geometry(), Config()
        self.fsq, self.places = Fsq(config.levels, pictures.device), self.geometry.places().to(pictures.device)
        self.model = Predictor(config).to(pictures.device)
        self.training = Training(self.model, args, pictures.device, self.losses, hold=0.3)
        self.latents = self.views()
        self.training.begin()

    @torch.no_grad()
    def views(self):
        """Latents of views of all training pictures, and of the crops of these: bfloat16."""
        whole, crops, geometry = [], [], self.geometry
        for part in [p for _ in range(VIEWS) for p in self.pictures.train.split(512)]:
            x = self.pictures.views_of(part, self.noise) * 2 - 1
            whole.append(self.vae.encode(x).bfloat16())
            crops.append(self.vae.encode(geometry.crops(x).flatten(0, 1)).unflatten(0, (len(x), 9)).bfloat16())
        return torch.cat(whole), torch.cat(crops)

    def losses(self, kind, whole, crops, order, noise, t, empty):
        """kind: (crops, whether the whole picture comes first); latents; empty [n]."""
        with autocast(whole.device):
            message, offset = encode(self.model, self.fsq, whole, crops, self.places, order, kind[1])
            message = torch.where(empty[:, None, None], self.fsq.prior, message)
            at = t.view(-1, 1, 1, 1)
            velocity, _ = self.model((1 - at) * noise + at * whole, message, t, offset)
        return F.mse_loss(velocity, whole - noise),

    def step(self):
        n, dev = self.args.batch, self.pictures.device
        weights = FIRST_WEIGHTS if self.training.clock.used() < READING and not self.args.init else LOOK_WEIGHTS
        kind = self.host.choices(LOOKS, weights)[0]
        rand = lambda *shape: torch.rand(*shape, generator=self.noise, device=dev)
        randn = lambda *shape: torch.randn(*shape, generator=self.noise, device=dev)
        t = torch.where(rand(n) < 0.2, rand(n), torch.sigmoid(randn(n) + EARLY))
        which = (rand(n) * len(self.latents[0])).long()
        whole, crops = (part[which].float() for part in self.latents)
        loss, = self.training.gradient(kind, whole, crops, rand(n, 9).argsort(1)[:, :kind[0]],
                                       randn(*latent_shape(n, self.vae.config, self.geometry)), t,
                                       rand(n) < NO_MESSAGE)
        self.training.note(loss)
        return self.training.update()


@torch.no_grad()
def repainted(networks, x, order, first_whole, steps, seed=3):
    """Pictures x in [0, 1] read in `order` and painted again."""
    predictor, vae, fsq, geometry = networks
    noise = torch.Generator(device=x.device).manual_seed(seed)
    whole = vae.encode(x * 2 - 1)
    crops = vae.encode(geometry.crops(x * 2 - 1).flatten(0, 1)).unflatten(0, (len(x), 9))
    message, offset = encode(predictor, fsq, whole, crops, geometry.places().to(x.device), order, first_whole)
    start = torch.randn(whole.shape, generator=noise, device=x.device)
    return (vae.decode(paint(predictor, message, offset, start, steps)) + 1) / 2


def in_order(n, k, device):
    return torch.arange(k, device=device).expand(n, -1)


def measure(networks, pictures):
    """PSNR of the unseen pictures after the autoencoder alone, and after messages."""
    x, out = pictures.white(pictures.unseen), {}
    vae = networks[1]
    back = in_parts(lambda p: ((vae.decode(vae.encode(p * 2 - 1)) + 1) / 2).clamp(0, 1), x)
    out['psnr unseen, autoencoder'] = round(psnr(back, x), 2)
    for k, whole in ((1, False), (3, False), (9, False), (0, True), (9, True)):
        for steps in (1, 10):
            back = in_parts(lambda p: repainted(networks, p, in_order(len(p), k, p.device), whole, steps).clamp(0, 1), x)
            out['psnr unseen, %d crops%s, %d steps' % (k, ' and the whole' if whole else '', steps)] = \
                round(psnr(back, x), 2)
    return out


def show(networks, pictures, path):
    """Ten unseen pictures, then painted after the whole and 9 crops, and after 1, 3, 6 and 9 crops."""
    which = pictures.unseen[torch.linspace(0, len(pictures.unseen) - 1, 10).long().to(pictures.device)]
    x = pictures.white(which)
    rows = [x, repainted(networks, x, in_order(10, 9, x.device), True, 20)]
    rows += [repainted(networks, x, in_order(10, k, x.device), False, 20) for k in (9, 6, 3, 1)]
    sheet(torch.cat(rows), 10, path)


def main():
    p = options(__doc__.split('\n')[0], 'comit', 2e-3, 2e-3)
    p.add_argument('--batch', type=int, default=512)
    p.add_argument('--vae-batch', type=int, default=256)
    p.add_argument('--vae', help='averaged weights of an autoencoder, not to train one')
    p.add_argument('--vae-share', type=float, default=0.3, help='of the time')
    args = p.parse_args()
    os.makedirs(args.outdir, exist_ok=True)
    torch.manual_seed(args.seed)
    pictures = Pictures(args.pack, device())
    vae = make_vae(args, pictures)
    learner = FlowLearner(args, pictures, vae)
    while learner.step():
        pass
    training = learner.training
    training.save()
    folder, predictor = os.path.join(args.outdir, 'tutti-comit'), Predictor(learner.model.config)
    predictor.load_state_dict(training.mean_state())
    size = write_comit(folder, predictor, vae, learner.geometry)
    torch.backends.cudnn.allow_tf32 = False
    networks = load_comit(folder, pictures.device)
    count = lambda model: sum(w.numel() for w in model.parameters())
    figures = {'parameters, network': count(predictor), 'parameters, autoencoder': count(vae), 'bytes': size,
               'steps': training.steps, 'batch': args.batch, 'minutes': training.clock.minutes(),
               'scaling factor': vae.config.scaling_factor, **measure(networks, pictures)}
    show(networks, pictures, os.path.join(args.outdir, 'crops.png'))
    record(os.path.join(args.outdir, args.out), 'comit', figures)
    print(json.dumps(figures), flush=True)


if __name__ == '__main__':
    main()
