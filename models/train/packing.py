"""Samples of slots (-1: empty) packed side by side into rows of one length, and the text they are
drawn from."""
import dataclasses

import torch
import torch.nn.functional as F

from common import read_pack
from small_tokenizer import PAD


def widened(tensors, width, fill):
    """Tensors [n, slots] one below the other, all `width` slots wide."""
    return torch.cat([F.pad(t, (0, width - t.shape[1]), value=fill) for t in tensors])


@dataclasses.dataclass
class Packed:
    """All [rows, length]; empty places have the padding token and the number of no sample."""
    ids: torch.Tensor
    sample: torch.Tensor         # number of the sample among all
    position: torch.Tensor       # in its sample
    extra: list                  # further values of the slots, 0 in empty places
    place: torch.Tensor          # [samples, slots] where slots came to lie: flat index, or -1

    def same_sample(self):
        """[rows, 1, length, length] whether two places are of one sample."""
        return (self.sample[:, None, :, None] == self.sample[:, None, None, :])


def pack(ids, extra, per_row, length):
    """[samples, slots] -> samples / per_row rows; what does not fit is cut off."""
    n, width = ids.shape
    rows = n // per_row
    keep = ids >= 0
    position = (keep.cumsum(1) - 1).clamp(min=0)
    number = torch.arange(n, device=ids.device)[:, None].expand(n, width)
    flat = keep.view(rows, per_row * width)
    order = (~flat).to(torch.uint8).argsort(dim=1, stable=True)[:, :length]
    alive = flat.gather(1, order)

    def moved(values, fill):
        return values.reshape(rows, -1).gather(1, order).masked_fill(~alive, fill)

    target = flat.cumsum(1) - 1
    target = torch.where(flat & (target < length), target + torch.arange(
        rows, device=ids.device)[:, None] * length, torch.full_like(target, -1))
    return Packed(moved(ids, PAD), moved(number, n), moved(position, 0), [moved(x, 0) for x in extra],
                  target.view(n, width))


class Texts:
    """Sentences and verses of the pack, one side of it, of at most `most` tokens each.  `tokens` is
    [texts, most], filled up with -1 behind the end."""

    def __init__(self, pack_path, encoder, device, validation=False, most=40):
        rows = []
        for r in read_pack(pack_path):
            if r['s'] in ('wn-sentences', 'kjv') and r['v'] == validation and r['t'].isascii():
                ids = encoder.encode(verse(r['t']) if r['s'] == 'kjv' else r['t'])
                if len(ids) <= most:
                    rows.append(ids + [-1] * (most - len(ids)))
        self.tokens = torch.tensor(rows, dtype=torch.int16).to(device)

    def draw(self, rand, n):
        return self.tokens[(rand(n) * len(self.tokens)).long()].long()


def verse(text):
    """The words of a verse, its reference left out."""
    words = text.split(' ')
    return ' '.join(words[1 + next(i for i, w in enumerate(words) if ':' in w and w[0].isdigit()):])
