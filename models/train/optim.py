"""Optimiser: Muon for the matrices, AdamW for the tables and the norms, and an average of weights.

Muon (K. Jordan and others, 2024) replaces the momentum of a matrix by the nearest
semi-orthogonal one, found with five Newton-Schulz steps; the size of the update is matched to
AdamW's as in Moonlight (arXiv 2502.16982), so both share one learning rate schedule.
"""
import torch

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


def orthogonalise(m, dtype):
    """m [matrices, rows, columns] -> about U V^T of each."""
    a, b, c = NEWTON_SCHULZ
    x = m.to(dtype)
    tall = x.shape[1] > x.shape[2]
    x = x.transpose(1, 2) if tall else x
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        gram = x @ x.transpose(1, 2)
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.transpose(1, 2) if tall else x


class Muon:
    """Matrices of one shape are handled as one stack."""

    def __init__(self, params, momentum=0.95, decay=0.05):
        self.momentum, self.decay = momentum, decay
        by_shape = {}
        for p in params:
            by_shape.setdefault(p.shape, []).append(p)
        self.stacks = [(ps, torch.zeros(len(ps), *shape, device=ps[0].device))
                       for shape, ps in by_shape.items()]

    @torch.no_grad()
    def step(self, lr):
        for params, speed in self.stacks:
            grad = torch.stack([p.grad for p in params])
            speed.lerp_(grad, 1 - self.momentum)
            ahead = grad.lerp(speed, self.momentum)
            dtype = torch.bfloat16 if grad.is_cuda else torch.float32
            size = 0.2 * max(grad.shape[1:]) ** 0.5
            update = (orthogonalise(ahead, dtype).to(grad.dtype) * size).unbind()
            torch._foreach_mul_(params, 1 - lr * self.decay)
            torch._foreach_add_(params, update, alpha=-lr)

    def state(self):
        return [speed for _, speed in self.stacks]


class Optimiser:
    def __init__(self, model, lr, table_lr, average=0.998):
        matrix = lambda n, p: p.ndim == 2 and not model.is_table(n)
        matrices = [p for n, p in model.named_parameters() if matrix(n, p)]
        others = [p for n, p in model.named_parameters() if not matrix(n, p)]
        self.params = list(model.parameters())
        self.flat = torch.zeros(sum(p.numel() for p in self.params), device=self.params[0].device)
        at = 0
        for p in self.params:                       # gradients are views of one flat vector
            p.grad = self.flat[at:at + p.numel()].view_as(p)
            at += p.numel()
        self.lr, self.table_lr, self.average = lr, table_lr, average
        self.muon = Muon(matrices)
        fused = {'fused': True} if self.flat.is_cuda else {}
        self.adam = torch.optim.AdamW(others, lr=table_lr, betas=(0.9, 0.98), weight_decay=0.0, **fused)
        self.mean = [p.detach().clone() for p in self.params]

    def step(self, scale):
        """Apply the gradients with both rates times `scale`, then clear them."""
        norm = self.flat.norm()
        self.flat.mul_((1 / norm).clamp(max=1))
        self.muon.step(self.lr * scale)
        self.adam.param_groups[0]['lr'] = self.table_lr * scale
        self.adam.step()
        with torch.no_grad():
            torch._foreach_mul_(self.mean, self.average)
            torch._foreach_add_(self.mean, self.params, alpha=1 - self.average)
        self.flat.zero_()
        return norm

    def state(self):
        return {'muon': self.muon.state(), 'adam': self.adam.state_dict(), 'mean': self.mean}

    def load(self, state):
        for mine, saved in zip(self.muon.state() + self.mean, state['muon'] + state['mean']):
            mine.copy_(saved)
        self.adam.load_state_dict(state['adam'])
