"""Check an ONNX graph without running it: standard operators, its own constants, one input for images.

Error messages name the fault and the remedy, and the caller adds the file. Memory is allocated only for the contents of
a file, never for the sizes that it declares.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import onnx
from google.protobuf.message import DecodeError
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto

from training.errors import EncoderError

MAX_BYTES = 2**31 - 1  # limit of protobuf
MAX_VALUE_BYTES = 2**30  # of one constant or activation
STANDARD = ("", "ai.onnx")
NAMES, NAME_LENGTH = 8, 40  # maximum number and length of the names in one message
# Field numbers of ModelProto and their wire types.
_FIELDS = {1: 0, 2: 2, 3: 2, 4: 2, 5: 0, 6: 2, 7: 2, 8: 2, 14: 2, 20: 2, 25: 2, 26: 2}


class Interface(NamedTuple):
    """The input size and channels of a graph, and the output to use."""

    size: int
    channels: int
    output: str


def read_graph(path: Path) -> ModelProto:
    """Read a graph from a file and load its constants from external files in the same folder.

    Raises:
        EncoderError: the file cannot be read, is not an ONNX file, is truncated, or has unacceptable contents.
    """
    try:
        if not path.is_file():
            raise EncoderError("no such file; give an .onnx file")
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise EncoderError(f"has {size:,} bytes; a graph has at most {MAX_BYTES:,}")
        model = parse(path.read_bytes())
    except OSError as exc:
        raise EncoderError(f"cannot be read ({exc.strerror})") from exc
    _take_in_external_data(model, path.parent, MAX_BYTES - size)
    check_contents(model)
    return model


def parse(data: bytes) -> ModelProto:
    """Parse a graph; raises EncoderError if the data is not a whole ONNX file."""
    model = ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError as exc:
        raise EncoderError(_what_bytes_are(data)) from exc
    if not model.graph.node or not any(entry.domain in STANDARD for entry in model.opset_import):
        raise EncoderError(_what_bytes_are(data))
    if not all(isinstance(text, str) for text in _texts(model)):  # protobuf returns bytes for invalid UTF-8
        raise EncoderError("has names that are not valid UTF-8, so it is damaged; copy or export it again")
    return model


def check_contents(model: ModelProto) -> None:
    """Reject operators that are not standard ONNX, and constants that the file does not contain in full."""
    functions = {(function.domain, function.name) for function in model.functions}
    for node in nodes_of(model):
        if (node.domain, node.op_type) in functions:
            continue  # a function of standard operators, which are checked as well
        if node.domain not in STANDARD:
            raise EncoderError(
                f"operator {node.op_type!r} is from domain {node.domain!r}; export with standard ONNX operators only"
            )
        if not onnx.defs.has(node.op_type):
            raise EncoderError(
                f"operator {node.op_type!r} is not an ONNX operator; export with standard ONNX operators only"
            )
    for tensor in tensors_of(model):
        if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
            raise EncoderError(f"constant {tensor.name!r} is in another file; keep constants in the graph's file")
        _check_held(tensor)
    for graph in graphs_of(model):
        for sparse in graph.sparse_initializer:
            check_bytes(f"sparse constant {sparse.values.name!r}", sparse.dims, sparse.values.data_type)
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.HasField("sparse_tensor"):
                    sparse = attribute.sparse_tensor
                    check_bytes(f"sparse constant of {node.name!r}", sparse.dims, sparse.values.data_type)


def interface(model: ModelProto, *, size: int | None, channels: int | None, output: str | None) -> Interface:
    """The interface of a graph, from its declarations and the caller's choices.

    Raises:
        EncoderError: there are several inputs, or several outputs and no choice; or a type, rank, size or batch
            dimension is not usable.
    """
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    if len(inputs) != 1:
        names = _listed([value.name for value in inputs])
        raise EncoderError(f"has {len(inputs)} inputs ({names}); expected one, for images (B, C, H, W)")
    dims = _picture_dims(inputs[0])
    found = _channels(inputs[0].name, dims, channels)
    return Interface(_size(inputs[0].name, dims[2:], size), found, _output(model, output))


def nodes_of(model: ModelProto) -> Iterator[NodeProto]:
    """All nodes, including those of subgraphs and functions."""
    for graph in graphs_of(model):
        yield from graph.node


def graphs_of(model: ModelProto) -> Iterator[GraphProto]:
    """The main graph, its subgraphs, and the bodies of functions."""
    pending = [model.graph, *(GraphProto(node=function.node) for function in model.functions)]
    while pending:
        graph = pending.pop()
        yield graph
        for node in graph.node:
            for attribute in node.attribute:
                pending += [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]


def tensors_of(model: ModelProto) -> Iterator[TensorProto]:
    """All constants: initializers, attributes, and the values and indices of sparse constants."""
    for graph in graphs_of(model):
        yield from graph.initializer
        sparse = list(graph.sparse_initializer)
        for node in graph.node:
            for attribute in node.attribute:
                yield from (*([attribute.t] if attribute.HasField("t") else []), *attribute.tensors)
                sparse += [*([attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else [])]
                sparse += attribute.sparse_tensors
        for tensor in sparse:
            yield from (tensor.values, tensor.indices)


def check_bytes(what: str, dims: list[int], kind: int) -> None:
    """Raise EncoderError if a value would take more than `MAX_VALUE_BYTES`."""
    size = _count(what, dims) * _bytes_of(kind)
    if size > MAX_VALUE_BYTES:
        raise EncoderError(
            f"{what} is declared at {size / 1e9:.1f} GB ({' x '.join(map(str, dims))}); "
            f"values may have at most {MAX_VALUE_BYTES / 1e9:.1f} GB"
        )


def _texts(model: ModelProto) -> Iterator[object]:
    """All names in a graph that the checks use."""
    yield from (model.producer_name, model.producer_version, *(entry.domain for entry in model.opset_import))
    for function in model.functions:
        yield from (function.name, function.domain)
    for value in (*model.graph.input, *model.graph.output):
        yield value.name
    for node in nodes_of(model):
        yield from (node.name, node.op_type, node.domain)
    for tensor in tensors_of(model):
        yield tensor.name
        for entry in tensor.external_data:
            yield from (entry.key, entry.value)


def _what_bytes_are(data: bytes) -> str:
    """Why data is not a graph: walks the top-level fields, whose lengths give the expected length of the file."""
    if not data:
        return "is empty; expected an ONNX file"
    place, fields = 0, []
    while place < len(data):
        key, place = _varint(data, place)
        field, wire = key >> 3, key & 7
        if _FIELDS.get(field) != wire:
            return f"is not an ONNX file (it begins with {data[:8]!r})"
        fields.append(field)
        length, place = _varint(data, place)
        if wire == 2:
            place += length
    if place > len(data) or 7 not in fields or 8 not in fields:
        missing = f"{place - len(data):,} bytes are missing" if place > len(data) else "its end is missing"
        return f"is truncated: {missing}; copy or export it again"
    return "is not a valid ONNX file; export it again"


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while place < len(data) and shift < 64:
        byte = data[place]
        value |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            break
    return value, place


def _take_in_external_data(model: ModelProto, folder: Path, room: int) -> None:
    """Load constants stored in files of the graph's own folder into the graph."""
    base = os.path.realpath(folder)
    for tensor in tensors_of(model):
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        path = os.path.realpath(os.path.join(base, location))
        if not location or "\0" in location or not path.startswith(base.rstrip(os.sep) + os.sep):
            raise EncoderError(
                f"constant {tensor.name!r} is in {location!r}, outside of the graph's folder; "
                "export with external_data=False, or with its data beside the file"
            )
        needed = _count(f"constant {tensor.name!r}", list(tensor.dims)) * _bits_of(tensor.data_type) // 8
        room -= needed
        if room < 0:
            raise EncoderError(
                f"with the constants of {location!r} it has more than {MAX_BYTES:,} bytes; use a smaller model"
            )
        tensor.raw_data = _read_part(Path(path), location, entries, needed)
        tensor.ClearField("external_data")
        tensor.ClearField("data_location")


def _read_part(path: Path, location: str, entries: dict[str, str], needed: int) -> bytes:
    try:
        offset, length = int(entries.get("offset", 0)), int(entries.get("length", needed))
        if not path.is_file() or offset < 0 or length != needed or offset + length > path.stat().st_size:
            raise ValueError
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(length)
    except (OSError, ValueError) as exc:
        raise EncoderError(
            f"its constants in {location!r} are missing or have another length; "
            "copy that file beside it, or export it again"
        ) from exc


def _check_held(tensor: TensorProto) -> None:
    """Raise EncoderError unless a constant is as long as its shape requires."""
    what = f"constant {tensor.name!r}"
    dims = list(tensor.dims)
    count = _count(what, dims)
    needed = (count * _bits_of(tensor.data_type) + 7) // 8
    typed = ("float_data", "int32_data", "int64_data", "double_data", "uint64_data", "string_data")
    held = len(tensor.raw_data)
    is_held = held == needed if held else count <= 2 * max(len(getattr(tensor, name)) for name in typed)
    if not is_held:
        shape = " x ".join(map(str, dims))
        raise EncoderError(
            f"{what} is declared as {shape} ({needed / 1e9:.2g} GB), which the file does not contain; export it again"
        )


def _count(what: str, dims: list[int]) -> int:
    if any(dim < 0 for dim in dims):
        raise EncoderError(f"{what} has a negative dimension in {' x '.join(map(str, dims))}; export it again")
    return math.prod(dims)


def _bits_of(kind: int) -> int:
    name = TensorProto.DataType.Name(kind) if kind in TensorProto.DataType.values() else "UNDEFINED"
    if name == "UNDEFINED":
        raise EncoderError(f"a constant has unknown type {kind}; export it again")
    if name.endswith("INT4") or name.startswith("FLOAT4"):
        return 4
    if name.endswith("INT2"):
        return 2
    if name == "STRING":
        return 0
    return onnx.helper.tensor_dtype_to_np_dtype(kind).itemsize * 8


def _bytes_of(kind: int) -> int:
    return max(1, _bits_of(kind) // 8)


def _listed(names: list[str]) -> str:
    """Names from a file, shortened for one line of text."""
    cut = [name if len(name) <= NAME_LENGTH else name[:NAME_LENGTH] + "..." for name in names[:NAMES]]
    shown = [name if name.isprintable() else repr(name) for name in cut]
    more = [f"and {len(names) - NAMES} more"] if len(names) > NAMES else []
    return ", ".join([*shown, *more]) or "none"


def _picture_dims(value: ValueInfoProto) -> list[int | None]:
    """The four declared dimensions of the input; None for a dynamic one."""
    kind, shape = value.type.tensor_type.elem_type, value.type.tensor_type.shape
    if not value.type.HasField("tensor_type") or kind != TensorProto.FLOAT:
        name = TensorProto.DataType.Name(kind) if value.type.HasField("tensor_type") else "no tensor"
        raise EncoderError(f"input {value.name!r} is {name}; export with a float32 input (B, C, H, W)")
    if not value.type.tensor_type.HasField("shape"):
        raise EncoderError(f"input {value.name!r} has no fixed rank; export with an input of shape (B, C, H, W)")
    if len(shape.dim) != 4:
        raise EncoderError(f"input {value.name!r} has rank {len(shape.dim)}; export with an input (B, C, H, W)")
    dims = [dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else None for dim in shape.dim]
    if dims[0] not in (None, 1):
        raise EncoderError(
            f"input {value.name!r} takes {dims[0]} images at a time; export with a dynamic batch, or a batch of 1"
        )
    return dims


def _size(name: str, sides: list[int | None], size: int | None) -> int:
    height, width = sides
    if height is not None and width is not None and height != width:
        raise EncoderError(f"input {name!r} takes images of {height} x {width}; export with a square input")
    fixed = height or width
    if fixed is None and size is None:
        raise EncoderError(f"input {name!r} takes images of any size; give the side in pixels with --size")
    if fixed is not None and size is not None and fixed != size:
        raise EncoderError(f"input {name!r} takes images of side {fixed}, not {size}; give --size {fixed}")
    return fixed or size or 0


def _channels(name: str, dims: list[int | None], channels: int | None) -> int:
    fixed = dims[1]
    if fixed not in (None, 1, 3) and dims[3] in (1, 3):
        raise EncoderError(f"input {name!r} has its channels last; export with an input (B, C, H, W)")
    if fixed not in (None, 1, 3) or (fixed and channels and fixed != channels):
        asked = f", not {channels}" if channels else "; expected 3 (sRGB) or 1 (grey)"
        raise EncoderError(f"input {name!r} takes images of {fixed} channels{asked}")
    return fixed or channels or 3


def _output(model: ModelProto, name: str | None) -> str:
    outputs = {value.name: value for value in model.graph.output}
    names = _listed(list(outputs))
    if name is None and len(outputs) != 1:
        raise EncoderError(f"has {len(outputs)} outputs ({names}); choose one with --output")
    if name is not None and name not in outputs:
        raise EncoderError(f"has no output {name!r}; outputs are {names}")
    name = name or next(iter(outputs))
    kind = outputs[name].type.tensor_type.elem_type
    if kind not in (TensorProto.FLOAT, TensorProto.UNDEFINED):
        raise EncoderError(f"output {name!r} is {TensorProto.DataType.Name(kind)}; export it as float32")
    return name
