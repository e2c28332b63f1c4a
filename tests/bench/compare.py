#!/usr/bin/env python3
"""Two files of figures side by side: compare.py OURS.json PEER.json [MORE.json ...]

Files as `tutti bench --json` and peer_torch.py write them. A ratio above 1 means that the first
file's program is that many times as quick as the other.
"""
import json
import sys


def load(path):
    with open(path) as f:
        return json.load(f)


def table(title, unit, ours, others, quicker):
    """ours and each of others: {case: figure}."""
    print(f"\n{title:<28} {unit:>10}" + "".join(f" {unit:>10} {'ratio':>6}" for _ in others))
    for case, a in ours.items():
        line = f"{case:<28} {a:10.3f}"
        for other in others:
            b = other.get(case)
            line += f" {b:10.3f} {quicker(a, b):6.2f}" if b else f" {'-':>10} {'-':>6}"
        print(line)


def forwards(f):
    return {r["name"]: r["ms"] for r in f.get("forwards", [])}


def generation(f):
    g = f.get("generation")
    if not g:
        return {}
    what = f"{g['prompt']}+{g['tokens']}"
    return {f"{r['streams']} streams, {what} {c['cache']}": r["tokens_per_s"]
            for c in g["caches"] for r in c["runs"]}


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    files = [load(p) for p in sys.argv[1:]]
    for i, f in enumerate(files):
        print(f"{'' if i else 'first: '}{f['program']}, {f['device']}; {f['model']}, "
              f"{f['compute']}")
    if forwards(files[0]):
        table("forward", "ms", forwards(files[0]), [forwards(f) for f in files[1:]],
              lambda a, b: b / a)
    if generation(files[0]):
        table("generation", "tok/s", generation(files[0]), [generation(f) for f in files[1:]],
              lambda a, b: a / b)


if __name__ == "__main__":
    main()
