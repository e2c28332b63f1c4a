#!/usr/bin/env python3
"""What `tutti bench` measures, done by PyTorch as well as it can be: the same network from the same
config.json with random bfloat16 weights, one CUDA graph for each shape.

    peer_torch.py --shape tests/bench/shapes/llada-8b --json peer.json

Fused q/k/v and gate/up matrices, residuals added by the products, the quickest backend of
scaled_dot_product_attention for each shape, keys and values in fixed buffers, the head on wanted
rows alone. Generations commit on the device and never wait for the host. --compile also fuses the
row-wise operations. Forwards take ids from host memory and bring ids and probabilities back, as
tutti's do. Needs PyTorch 2.5 or newer.
"""
import argparse
import contextlib
import json
import statistics
import sys
import time

import torch
import torch.nn.functional as F


# --- the network ---


def read_shape(folder):
    with open(folder + "/config.json") as f:
        c = json.load(f)
    if "d_model" in c:  # LLaDA's keys
        s = dict(width=c["d_model"], layers=c["n_layers"], heads=c["n_heads"],
                 kv_heads=c.get("n_kv_heads") or c["n_heads"], ff=c["mlp_hidden_size"],
                 vocab=max(c["vocab_size"], c.get("embedding_size") or 0), bias=False,
                 tied=c.get("weight_tying", False), theta=c.get("rope_theta", 10000.0),
                 eps=c.get("rms_norm_eps", 1e-5), context=c.get("max_sequence_length", 4096))
    else:  # Qwen2's, as Dream has them
        s = dict(width=c["hidden_size"], layers=c["num_hidden_layers"],
                 heads=c["num_attention_heads"], kv_heads=c["num_key_value_heads"],
                 ff=c["intermediate_size"], vocab=c["vocab_size"], bias=True,
                 tied=c.get("tie_word_embeddings", False), theta=c["rope_theta"],
                 eps=c["rms_norm_eps"], context=min(c["max_position_embeddings"], 2048))
    s["mask"] = c["mask_token_id"]
    s["head_dim"] = s["width"] // s["heads"]
    return argparse.Namespace(**s)


def norm(x, w, eps):
    return F.rms_norm(x, (x.shape[-1],), w, eps)


def rope(x, cos, sin):
    """x: heads in the last but one dimension; sin is negative in its first half."""
    return torch.addcmul(x * cos, torch.roll(x, x.shape[-1] // 2, -1), sin)


def swiglu(x):
    gate, up = x.chunk(2, -1)
    return F.silu(gate) * up


class Layer:
    def __init__(self, s, new):
        heads = s.heads + 2 * s.kv_heads
        self.norm1, self.norm2 = new(s.width) + 1, new(s.width) + 1
        self.qkv = new(heads * s.head_dim, s.width)
        self.bias = new(heads * s.head_dim) if s.bias else None
        self.out = new(s.width, s.heads * s.head_dim)
        self.gate_up = new(2 * s.ff, s.width)
        self.down = new(s.width, s.ff)


class Network:
    def __init__(self, s, device, dtype):
        def new(*size):
            return torch.empty(*size, device=device, dtype=dtype).normal_(0, 0.02)

        self.s, self.device, self.dtype = s, device, dtype
        self.layers = [Layer(s, new) for _ in range(s.layers)]
        self.norm = new(s.width) + 1
        self.table = new(s.vocab, s.width)
        self.head = self.table if s.tied else new(s.vocab, s.width)
        half = torch.arange(0, s.head_dim, 2, device=device, dtype=torch.float32) / s.head_dim
        angle = torch.outer(torch.arange(s.context, device=device).float(), s.theta ** -half)
        self.cos = torch.cat((angle.cos(), angle.cos()), 1).to(dtype).unsqueeze(1)
        self.sin = torch.cat((-angle.sin(), angle.sin()), 1).to(dtype).unsqueeze(1)

    def body(self, ids, column, store=None, want=None, see=None):
        """Residual stream of ids [batch, rows] at these columns. store: keys and values go there
        and all of its columns are seen; want: rows that are needed; see: columns seen at most."""
        s, (batch, rows) = self.s, ids.shape
        x = F.embedding(ids.reshape(-1), self.table)
        cos, sin = self.cos.index_select(0, column), self.sin.index_select(0, column)
        turned = s.heads + s.kv_heads
        grouped = {"enable_gqa": True} if s.kv_heads < s.heads else {}
        for i, l in enumerate(self.layers):
            qkv = F.linear(norm(x, l.norm1, s.eps), l.qkv, l.bias)
            qkv = qkv.view(batch, rows, turned + s.kv_heads, s.head_dim)
            qk = rope(qkv[:, :, :turned], cos, sin)
            q, k, v = qk[:, :, :s.heads], qk[:, :, s.heads:], qkv[:, :, turned:]
            if store:
                k, v = store.put(i, column, k, v)
            if see:
                k, v = k[:, :see], v[:, :see]
            if want is not None and i == s.layers - 1:
                q = q.index_select(1, want)
                x = x.view(batch, rows, s.width).index_select(1, want).view(-1, s.width)
            a = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2),
                                               v.transpose(1, 2), **grouped)
            a = a.transpose(1, 2).reshape(-1, s.heads * s.head_dim)
            x = torch.addmm(x, a, l.out.t())
            h = swiglu(F.linear(norm(x, l.norm2, s.eps), l.gate_up))
            x = torch.addmm(x, h, l.down.t())
        return x

    def decide(self, x):
        """Most likely token of each row, never the mask, and its probability."""
        logits = F.linear(norm(x, self.norm, self.s.eps), self.head)
        logits[:, self.s.mask] = -float("inf")
        return torch.softmax(logits, -1, dtype=torch.float32).max(-1)


class Store:
    """Keys and values by layer: [batch, columns, kv_heads, head_dim]."""

    def __init__(self, net, batch, columns):
        size = (batch, columns, net.s.kv_heads, net.s.head_dim)
        new = lambda: torch.empty(*size, device=net.device, dtype=net.dtype).normal_()
        self.k = [new() for _ in net.layers]
        self.v = [new() for _ in net.layers]
        self.bytes = 2 * len(self.k) * self.k[0].numel() * self.k[0].element_size()

    def put(self, i, column, k, v):
        self.k[i].index_copy_(1, column, k)
        self.v[i].index_copy_(1, column, v)
        return self.k[i], self.v[i]


# --- running it ---


def synchronize(device):
    if device == "cuda":
        torch.cuda.synchronize()


def attention_backends(device):
    if device != "cuda":
        return [None]
    from torch.nn.attention import SDPBackend
    return [SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION]


def record(fn, backend, device):
    """A callable that does what fn does: the CUDA graph of it."""
    if device != "cuda":
        return fn
    from torch.nn.attention import sdpa_kernel
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with sdpa_kernel(backend):
        with torch.cuda.stream(side):
            fn()
            fn()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            fn()
    return graph.replay


def seconds_of(fn, device, runs):
    times = []
    for _ in range(runs):
        begin = time.perf_counter()
        fn()
        synchronize(device)
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def record_best(fn, device, among):
    """The quickest of the attention backends that take this shape: (callable, backend)."""
    best = None
    for backend in among:
        with contextlib.suppress(RuntimeError):  # one that does not take it
            run = record(fn, backend, device)
            seconds = seconds_of(run, device, 3)
            if best is None or seconds < best[0]:
                best = (seconds, run, backend)
    if best is None:
        sys.exit("no attention backend takes this shape")
    return best[1], best[2]


def timing(fn, device, budget):
    """Median and least of runs for about `budget` seconds, three at least, after two others."""
    fn(), fn()
    times, end = [], time.perf_counter() + budget
    while len(times) < 3 or (len(times) < 512 and time.perf_counter() < end):
        begin = time.perf_counter()
        fn()
        times.append(time.perf_counter() - begin)
    return statistics.median(times), min(times), len(times)


# --- forwards ---


def forward(net, args, batch, rows, cached):
    device = net.device
    pinned = device == "cuda"
    store = Store(net, batch, cached + rows) if cached else None
    column = torch.arange(cached, cached + rows, device=device)
    source = torch.randint(0, net.s.vocab, (batch, rows))
    ids = source.to(device)
    prob = torch.zeros(batch * rows, device=device)
    best = torch.zeros(batch * rows, device=device, dtype=torch.int64)
    target = [torch.empty(t.shape, dtype=t.dtype, pin_memory=pinned) for t in (prob, best)]
    source = source.pin_memory() if pinned else source

    def compute(head=True, see=None):
        x = net.body(ids, column, store, see=see)
        if head:
            p, i = net.decide(x)
            prob.copy_(p)
            best.copy_(i)

    def timed(run, head=True):
        def once():
            ids.copy_(source, non_blocking=True)
            run()
            if head:
                target[0].copy_(prob, non_blocking=True)
                target[1].copy_(best, non_blocking=True)
            synchronize(device)
        return timing(once, device, args.seconds)

    run, backend = record_best(compute, device, attention_backends(device))
    median, least, runs = timed(run)
    headless = timed(record(lambda: compute(head=False), backend, device), False)[0]
    blind_run, _ = record_best(lambda: compute(see=1), device, attention_backends(device))
    blind = timed(blind_run)[0]
    name = f"{batch} x {rows} rows" + (f" over {cached}" if cached else "")
    figure = dict(name=name, batch=batch, rows=rows, cached=cached, ms=median * 1e3,
                  least_ms=least * 1e3, head_ms=(median - headless) * 1e3,
                  attention_ms=(median - blind) * 1e3, runs=runs,
                  attention=backend.name.lower() if backend else "default")
    print(f"{name:<28} {median * 1e3:10.3f} {least * 1e3:10.3f} {figure['head_ms']:9.3f} "
          f"{figure['attention_ms']:9.3f} {runs:5d}  {figure['attention']}", flush=True)
    return figure


# --- generations ---


class Generation:
    """`batch` canvases of prompt and masks, filled block by block, all in step."""

    def __init__(self, net, args, batch):
        self.net, self.args, device = net, args, net.device
        columns = args.prompt + args.tokens
        self.ids = torch.randint(0, net.s.mask, (batch, columns), device=device)
        self.prompt = self.ids[:, :args.prompt].clone()
        self.all = torch.arange(columns, device=device)
        self.column = self.all[:args.block].clone()
        self.quota = torch.zeros((), device=device, dtype=torch.int64)
        self.quotas = torch.arange(args.block + 1, device=device)
        self.store = Store(net, batch, columns) if args.cache == "dual" else None
        backends = attention_backends(device)
        self.reset()
        self.full = record_best(self.full_step, device, backends)[0]
        if self.store:
            self.part = record_best(self.part_step, device, backends)[0]

    def reset(self):
        self.ids[:, self.args.prompt:] = self.net.s.mask

    def commit(self, x):
        prob, best = self.net.decide(x)
        now = self.ids.index_select(1, self.column)
        free = now == self.net.s.mask
        order = prob.view(now.shape).masked_fill(~free, -1).argsort(1, descending=True)
        chosen = free & (order.argsort(1) < self.quota)
        now = torch.where(chosen, best.view(now.shape), now)
        self.ids.index_copy_(1, self.column, now)

    def full_step(self):
        self.commit(self.net.body(self.ids, self.all, self.store, want=self.column))

    def part_step(self):
        ids = self.ids.index_select(1, self.column)
        self.commit(self.net.body(ids, self.column, self.store))

    def run(self, tokens):
        """As low_confidence shares commits out: the remainder on a block's first steps."""
        a, passes = self.args, 0
        blocks = tokens // a.block
        total = max(-(-tokens // a.tokens_per_step), blocks)
        steps = max(1, (total * a.block + tokens // 2) // tokens)
        for b in range(blocks):
            begin = a.prompt + b * a.block
            self.column.copy_(self.all[begin:begin + a.block])
            for i in range(steps):
                self.quota.copy_(self.quotas[a.block // steps + (i < a.block % steps)])
                (self.part if self.store and i else self.full)()
                passes += 1
        synchronize(self.net.device)
        return passes


def generate(net, args, streams):
    g = Generation(net, args, streams)
    g.run(args.block)
    g.reset()
    synchronize(net.device)
    begin = time.perf_counter()
    passes = g.run(args.tokens)
    seconds = time.perf_counter() - begin
    if bool((g.ids == net.s.mask).any()) or not torch.equal(g.ids[:, :args.prompt], g.prompt):
        sys.exit("a generation left masks or touched its prompt")
    rate = streams * args.tokens / seconds
    figure = dict(streams=streams, seconds=seconds, tokens_per_s=rate,
                  stream_tokens_per_s=args.tokens / seconds, stream_ms=seconds * 1e3,
                  passes=passes, pass_ms=seconds * 1e3 / passes,
                  tokens_per_forward=args.tokens / passes)
    print(f"{streams:10d} {seconds:9.3f} {rate:10.1f} {args.tokens / seconds:10.1f} {passes:8d} "
          f"{seconds * 1e3 / passes:9.3f}", flush=True)
    return figure


# --- all of it ---


def numbers(text):
    return [int(v) for v in text.split(",")]


def read_args():
    p = argparse.ArgumentParser(description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--shape", required=True, help="folder with a config.json")
    p.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    p.add_argument("--only", default="forwards,generation")
    p.add_argument("--json", help="file for the figures")
    p.add_argument("--seconds", type=float, default=1, help="for each forward figure")
    p.add_argument("--rows", type=numbers, default=[1, 32, 128, 512, 1280])
    p.add_argument("--block", type=int, default=32)
    p.add_argument("--cached", type=int, default=1024)
    p.add_argument("--batch", type=numbers, default=[1, 8])
    p.add_argument("--streams", type=numbers, default=[1, 4, 8, 16, 32])
    p.add_argument("--prompt", type=int, default=256)
    p.add_argument("--tokens", type=int, default=256, help="a multiple of the block")
    p.add_argument("--tokens-per-step", type=int, default=3)
    p.add_argument("--cache", default="dual", choices=["none", "dual"])
    p.add_argument("--compile", action="store_true", help="fuse row-wise operations")
    args = p.parse_args()
    if args.tokens % args.block:
        p.error(f"--tokens is {args.tokens}, no multiple of --block {args.block}")
    return args


def fuse():
    global norm, rope, swiglu
    norm, rope, swiglu = (torch.compile(f, dynamic=True) for f in (norm, rope, swiglu))


@torch.inference_mode()
def main():
    args = read_args()
    cuda = args.device == "cuda"
    torch.manual_seed(1)
    if args.compile:
        fuse()
    s = read_shape(args.shape)
    begin = time.perf_counter()
    net = Network(s, args.device, torch.bfloat16)
    synchronize(args.device)
    loaded = torch.cuda.memory_allocated() if cuda else 0
    name = torch.cuda.get_device_name() if cuda else "cpu"
    program = f"pytorch {torch.__version__}" + (" compiled" if args.compile else "")
    figures = dict(program=program, device=name, model=args.shape.rstrip("/").split("/")[-1],
                   random_weights=True, compute="bf16", load_seconds=time.perf_counter() - begin)
    print(f"{program} on {name}; {figures['model']}, random weights, bf16")
    if "forwards" in args.only:
        print(f"\n{'forward':<28} {'ms':>10} {'least':>10} {'head ms':>9} {'attend ms':>9} "
              f"{'runs':>5}")
        cases = [(1, r, 0) for r in args.rows if r <= s.context]
        cases += [(b, args.block, args.cached) for b in args.batch if args.cached]
        figures["forwards"] = [forward(net, args, *c) for c in cases]
    if "generation" in args.only:
        print(f"\ngeneration of {args.tokens} tokens behind {args.prompt}, blocks of {args.block}, "
              f"{args.tokens_per_step} tokens a step, cache {args.cache}\n{'streams':>10} "
              f"{'seconds':>9} {'tok/s':>10} {'a stream':>10} {'passes':>8} {'ms a pass':>9}")
        figures["generation"] = dict(prompt=args.prompt, tokens=args.tokens, block=args.block,
                                     tokens_per_step=args.tokens_per_step, cache=args.cache,
                                     runs=[generate(net, args, n) for n in args.streams])
    if cuda:
        figures["memory"] = dict(loaded=loaded, peak=torch.cuda.max_memory_allocated())
        print(f"\nmemory     {loaded / 1e6:.1f} MB when loaded, "
              f"{figures['memory']['peak'] / 1e6:.1f} at most")
    if args.json:
        with open(args.json, "w") as f:
            json.dump(figures, f)


if __name__ == "__main__":
    main()
