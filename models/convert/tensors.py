"""Safetensors files as raw bytes: {name: (dtype, shape, bytes)}. No PyTorch, no NumPy."""
import json
import mmap
import os
import struct

SIZE = {'F64': 8, 'F32': 4, 'F16': 2, 'BF16': 2, 'I64': 8, 'I32': 4, 'I8': 1, 'U8': 1, 'BOOL': 1}


def read_file(path):
    """The tensors and the file's own texts (`__metadata__`)."""
    with open(path, 'rb') as f:
        data = memoryview(mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ))
    size = struct.unpack('<Q', data[:8])[0]
    header = json.loads(bytes(data[8:8 + size]))
    texts = header.pop('__metadata__', {})
    at = 8 + size
    return {name: (t['dtype'], tuple(t['shape']), data[at + t['data_offsets'][0]:at + t['data_offsets'][1]])
            for name, t in header.items()}, texts


def read_folder(folder):
    """model.safetensors, or the shards its index names."""
    index = os.path.join(folder, 'model.safetensors.index.json')
    if not os.path.exists(index):
        return read_file(os.path.join(folder, 'model.safetensors'))
    with open(index) as f:
        shards = sorted(set(json.load(f)['weight_map'].values()))
    tensors = {}
    for shard in shards:
        tensors.update(read_file(os.path.join(folder, shard))[0])
    return tensors, {}


def write_file(path, tensors):
    header, at = {}, 0
    for name in sorted(tensors):
        dtype, shape, data = tensors[name]
        header[name] = {'dtype': dtype, 'shape': list(shape), 'data_offsets': [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header, separators=(',', ':')).encode()
    text += b' ' * (-len(text) % 8)
    with open(path, 'wb') as f:
        f.write(struct.pack('<Q', len(text)) + text)
        for name in sorted(tensors):
            f.write(tensors[name][2])


def rename(tensors, name_of):
    """name_of gives the new name, or None for what stays behind."""
    out = {}
    for name, t in tensors.items():
        new = name_of(name)
        if new in out:
            raise SystemExit(f'{name}: there is a {new} already')
        if new:
            out[new] = t
    return out


def rows(t, first, n):
    """Rows [first, first + n) of a tensor."""
    dtype, shape, data = t
    size = len(data) // shape[0]
    return dtype, (n, *shape[1:]), data[first * size:(first + n) * size]


def transposed(t):
    dtype, (n, k), data = t
    size, data = SIZE[dtype], bytes(data)
    return dtype, (k, n), b''.join(data[(i * k + j) * size:(i * k + j + 1) * size]
                                   for j in range(k) for i in range(n))
