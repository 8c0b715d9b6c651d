"""Writes the GGUF file that the tests of danlu-models read, with the package of llama.cpp's authors.

    python tests/peers/gguf_fixtures.py crates/danlu-models/tests/fixtures/gguf

`kinds.gguf` holds a tensor of random blocks of each type that danlu reads, and metadata of every kind of value; `kinds.f32` holds the
tensors' values as that package dequantizes them, one tensor after another in the order of their names.

Needs gguf and numpy.
"""

import pathlib
import sys

import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf import GGUFValueType as Kind
from gguf import GGUFWriter
from gguf.constants import GGML_QUANT_SIZES
from gguf.quants import dequantize

ROWS, COLUMNS = 2, 256
# Where a block keeps its 16-bit floats, which must be numbers: random bytes could be infinite.
SCALES = {Type.Q4_0: [0], Type.Q4_1: [0, 2], Type.Q8_0: [0], Type.Q4_K: [0, 2], Type.Q6_K: [208], Type.F16: [0], Type.BF16: [], Type.F32: []}


def blocks(kind, random):
    if kind == Type.F32:
        return random.standard_normal((ROWS, COLUMNS)).astype(np.float32).view(np.uint8)
    if kind == Type.BF16:
        floats = random.standard_normal((ROWS, COLUMNS)).astype(np.float32)
        return (floats.view(np.uint32) >> 16).astype(np.uint16).view(np.uint8)
    values, size = GGML_QUANT_SIZES[kind]
    raw = random.integers(0, 256, (ROWS, COLUMNS // values, size), dtype=np.uint8)
    for at in SCALES[kind]:
        halves = random.standard_normal((ROWS, COLUMNS // values, 1)).astype(np.float16)
        raw[:, :, at:at + 2] = halves.view(np.uint8)
    return raw.reshape(ROWS, -1)


def main(folder):
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(1)
    writer = GGUFWriter(folder / "kinds.gguf", "llama")
    for name, value in [("UINT8", 200), ("INT8", -100), ("UINT16", 60_000), ("INT16", -30_000), ("UINT32", 4_000_000_000),
                        ("INT32", -2_000_000_000), ("UINT64", 2**63), ("INT64", -(2**62)), ("FLOAT32", 1e-5), ("FLOAT64", 1e-300),
                        ("BOOL", True), ("STRING", "丹炉")]:
        writer.add_key_value(f"test.{name.lower()}", value, Kind[name])
    writer.add_array("test.strings", ["", "a", "Ġb c"])
    writer.add_array("test.numbers", [1, -2, 3])
    writer.add_array("test.flags", [True, False])
    expected = []
    for kind in sorted(SCALES, key=lambda kind: kind.name.lower()):
        raw = blocks(kind, random)
        writer.add_tensor(kind.name.lower(), raw, raw_dtype=kind)
        expected.append(dequantize(raw, kind).reshape(-1))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    (folder / "kinds.f32").write_bytes(np.concatenate(expected).astype("<f4").tobytes())


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]) if len(sys.argv) == 2 else sys.exit(__doc__))
