"""How far painted pictures are from real ones, for training: train_vqgan.py's errors and its
discriminator, in a form that CUDA graphs can hold."""
import torch

from stepper import autocast
from train_vqgan import JUDGE_SHARE, JUDGED_FROM, JUDGED_FULLY, Discriminator, error_of, judge_loss, opinion_of


class PixelError:
    def __init__(self, device, rate=6e-4):
        self.rate, self.device = rate, torch.device(device)
        self.judge = Discriminator().to(device, memory_format=torch.channels_last)
        self.share = torch.zeros((), device=device)
        self.judging = list(self.judge.parameters())
        for p in self.judging:
            p.grad = torch.zeros_like(p)
        fused = {'fused': True} if self.device.type == 'cuda' else {}
        self.adam = torch.optim.AdamW(self.judging, lr=rate, betas=(0.5, 0.95), weight_decay=1e-4, **fused)

    @staticmethod
    def is_judged(used):
        return used >= JUDGED_FROM

    def weight(self, used):
        """Of the discriminator's opinion, as a tensor."""
        share = min(1.0, max(0.0, (used - JUDGED_FROM) / (JUDGED_FULLY - JUDGED_FROM)))
        return self.share.fill_(JUDGE_SHARE * share)     # without waiting for the device

    def slope(self, x, y, judged, weight):
        """(error, its gradient at the painted pictures y)"""
        seen = y.detach().requires_grad_()
        error = error_of(seen, x)
        slope, = torch.autograd.grad(error, seen)
        if judged:
            slope = slope + self.opinion(x, seen, weight, slope.norm())
        return error.detach(), slope

    def opinion(self, x, seen, weight, size):
        """The discriminator's part of the slope; its own gradients are left with it."""
        with autocast(self.device):
            real, fake = self.judge(x), self.judge(seen)
        own = torch.autograd.grad(judge_loss(real[-1], fake[-1]), self.judging, retain_graph=True)
        for p, slope in zip(self.judging, own):
            p.grad.copy_(slope)
        other, = torch.autograd.grad(opinion_of(fake, [f.detach() for f in real]), seen)
        return other * (weight * size / other.norm().clamp(min=1e-12))

    def update(self, used):
        """The discriminator learns from the last slope."""
        self.adam.param_groups[0]['lr'] = self.rate * min(1.0, 2 * (1 - used))
        self.adam.step()
