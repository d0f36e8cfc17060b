"""Importing ONNX graphs: vectors equal to ONNX Runtime's, and bad files rejected in one line before any output."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import ModelProto, TensorProto, helper

from tests.training.onnx.graphs import (
    DIM,
    constant,
    kernels,
    model,
    pooled,
    save,
    save_with_data_beside,
    token_graph,
    vector_graph,
)
from training.embedder import load_embedder
from training.encoder import load_encoder
from training.errors import EncoderError, OutputError
from training.onnx.graph import OnnxConfig
from training.onnx.importing import ImportRequest, import_onnx
from training.onnx.probe import probe
from training.reference import NOT_STATED, describe_encoder


def pixels(count: int, channels: int = 3, size: int = 16) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, channels, size, size), dtype=np.uint8)


def run(graph: ModelProto, x: np.ndarray, output: str = "vectors") -> np.ndarray:
    """The output of ONNX Runtime for float images, without any of our code."""
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run([output], {"x": x.astype(np.float32)})[0]


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_an_imported_graph_gives_the_vectors_of_onnx_runtime(tmp_path: Path) -> None:
    graph, mean, std = vector_graph(), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    request = ImportRequest(mean=mean, std=std, trained_from="ImageNet labels", licence="MIT")
    described = import_onnx(save(graph, tmp_path / "net.onnx"), tmp_path / "net", request)
    x = pixels(19)
    expected = unit(run(graph, (x / 255 - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))))
    np.testing.assert_allclose(load_embedder(tmp_path / "net").embed(x), expected, atol=1e-5)
    encoder = load_encoder(tmp_path / "net")
    np.testing.assert_allclose(encoder.encode(torch.from_numpy(x)).numpy(), expected, atol=1e-5)
    assert (described.dim, described.metric, described.preprocessing.size) == (DIM, "cosine", 16)
    assert encoder.encoder_id == described.encoder_id == describe_encoder(tmp_path / "net").encoder_id
    assert (described.trained_from, described.card["licence"]) == ("ImageNet labels", "MIT")
    assert described.card["source"]["producer"] == "by hand"
    assert {path.name for path in (tmp_path / "net").iterdir()} == {"encoder.onnx", "encoder.json", "card.json"}


def test_the_id_covers_the_graph_and_its_settings(tmp_path: Path) -> None:
    graph = save(vector_graph(), tmp_path / "a.onnx")
    other = save(model(pooled(), [kernels(seed=1)]), tmp_path / "b.onnx")
    made = [
        import_onnx(graph, tmp_path / "one", ImportRequest()),
        import_onnx(graph, tmp_path / "same", ImportRequest(trained_from="others")),
        import_onnx(other, tmp_path / "other", ImportRequest()),
        import_onnx(graph, tmp_path / "mean", ImportRequest(mean=(0.5,))),
    ]
    ids = [described.encoder_id for described in made]
    assert ids[0] == ids[1] and len(set(ids)) == 3
    (tmp_path / "one" / "encoder.onnx").write_bytes(other.read_bytes())
    with pytest.raises(EncoderError, match="they were changed"):
        describe_encoder(tmp_path / "one")


def test_an_l2_encoder_keeps_the_length_of_its_vectors(tmp_path: Path) -> None:
    graph = vector_graph()
    import_onnx(save(graph, tmp_path / "a.onnx"), tmp_path / "a", ImportRequest(metric="l2"))
    x = pixels(4)
    np.testing.assert_allclose(load_embedder(tmp_path / "a").embed(x), run(graph, x / 255), atol=1e-5)
    assert describe_encoder(tmp_path / "a").metric == "l2"


@pytest.mark.parametrize(("pool", "output"), [("cls", "tokens"), ("mean", "tokens"), ("mean", "squares")])
def test_tokens_become_a_vector_as_chosen(pool: Any, output: str, tmp_path: Path) -> None:
    graph = token_graph()
    request = ImportRequest(size=24, output=output, pool=pool)
    import_onnx(save(graph, tmp_path / "a.onnx"), tmp_path / "a", request)
    x = pixels(3, size=24)
    tokens = run(graph, x / 255, output)
    expected = unit(tokens[:, 0] if pool == "cls" else tokens.mean(axis=1))
    np.testing.assert_allclose(load_embedder(tmp_path / "a").embed(x), expected, atol=1e-5)


@pytest.mark.parametrize(("pool", "drop"), [("none", 1), ("mean", 2)])
def test_a_map_is_flattened_where_it_is_one_pixel_and_pooled_by_choice(pool: Any, drop: int, tmp_path: Path) -> None:
    graph = model(pooled()[:-drop], [kernels()], outputs=("mean" if drop == 1 else "active",))
    import_onnx(save(graph, tmp_path / "a.onnx"), tmp_path / "a", ImportRequest(pool=pool))
    expected = unit(run(vector_graph(), pixels(3) / 255))
    np.testing.assert_allclose(load_embedder(tmp_path / "a").embed(pixels(3)), expected, atol=1e-5)


def test_a_graph_of_one_picture_at_a_time_embeds_many(tmp_path: Path) -> None:
    graph = save(vector_graph(shape=(1, 3, 16, 16)), tmp_path / "a.onnx")
    import_onnx(graph, tmp_path / "a", ImportRequest())
    expected = unit(run(vector_graph(), pixels(11) / 255))
    np.testing.assert_allclose(load_embedder(tmp_path / "a").embed(pixels(11)), expected, atol=1e-5)
    assert load_embedder(tmp_path / "a").embed(pixels(11)[:0]).shape == (0, DIM)


def test_constants_in_a_file_beside_the_graph_are_taken_in(tmp_path: Path) -> None:
    graph = vector_graph()
    inside = import_onnx(save(graph, tmp_path / "inside.onnx"), tmp_path / "inside", ImportRequest())
    file = save_with_data_beside(vector_graph(), tmp_path / "beside.onnx")
    assert (tmp_path / "graph.data").stat().st_size > 0
    beside = import_onnx(file, tmp_path / "beside", ImportRequest())
    (tmp_path / "graph.data").unlink()
    vectors = [load_embedder(found.directory).embed(pixels(3)) for found in (inside, beside)]
    np.testing.assert_array_equal(*vectors)


def test_embedding_with_an_imported_graph_imports_no_torch(tmp_path: Path) -> None:
    import_onnx(save(vector_graph(), tmp_path / "a.onnx"), tmp_path / "a", ImportRequest())
    code = (
        "import sys, numpy as np; from training.embedder import load_embedder\n"
        f"print(load_embedder({str(tmp_path / 'a')!r}).embed(np.zeros((1, 3, 16, 16), np.uint8)).shape[1])\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(DIM), "False"]


# Bad files: what makes them, how they are imported, and what the one line must say.


def huge_initializer() -> ModelProto:
    graph = vector_graph()
    graph.graph.initializer.append(TensorProto(name="big", dims=[750_000_000], data_type=TensorProto.FLOAT))
    return graph


def huge_sparse() -> ModelProto:
    graph = vector_graph()
    values, indices = constant("big", [1.0]), constant("at", [5], np.int64)
    graph.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [750_000_000]))
    return graph


def huge_filled() -> ModelProto:
    nodes = [
        helper.make_node("ConstantOfShape", ["shape"], ["big"]),
        helper.make_node("ReduceSum", ["big"], ["sum"], keepdims=0),
        *pooled(target="small"),
        helper.make_node("Add", ["small", "sum"], ["vectors"]),
    ]
    return model(nodes, [kernels(), constant("shape", [750_000_000], np.int64)])


def huge_at_run_time() -> ModelProto:
    """The size of the value depends on the image, so that no declaration contains it."""
    nodes = [
        helper.make_node("Shape", ["x"], ["dims"]),
        helper.make_node("ReduceProd", ["dims"], ["count"], keepdims=1),
        helper.make_node("Mul", ["count", "factor"], ["many"]),
        helper.make_node("ConstantOfShape", ["many"], ["big"]),
        helper.make_node("ReduceSum", ["big"], ["sum"], keepdims=0),
        *pooled(target="small"),
        helper.make_node("Add", ["small", "sum"], ["vectors"]),
    ]
    return model(nodes, [kernels(), constant("factor", [2_000_000], np.int64)], shape=("B", 3, "H", "W"))


def with_nan() -> ModelProto:
    nodes = [*pooled(target="small"), helper.make_node("Log", ["small"], ["vectors"])]
    return model(nodes, [kernels()])


def depends_on_the_batch() -> ModelProto:
    nodes = [
        *pooled(target="small"),
        helper.make_node("ReduceMean", ["small"], ["of_batch"], axes=[0], keepdims=1),
        helper.make_node("Sub", ["small", "half"], ["moved"]),
        helper.make_node("Add", ["moved", "of_batch"], ["vectors"]),
    ]
    return model(nodes, [kernels(), constant("half", 0.5)])


def left_to_chance() -> ModelProto:
    nodes = [
        *pooled(target="small"),
        helper.make_node("RandomNormalLike", ["small"], ["noise"]),
        helper.make_node("Add", ["small", "noise"], ["vectors"]),
    ]
    return model(nodes, [kernels()])


def the_same_for_all() -> ModelProto:
    nodes = [
        *pooled(target="small"),
        helper.make_node("Mul", ["small", "zero"], ["nothing"]),
        helper.make_node("Add", ["nothing", "one"], ["vectors"]),
    ]
    return model(nodes, [kernels(), constant("zero", 0.0), constant("one", 1.0)])


def external_elsewhere(location: str) -> ModelProto:
    graph = vector_graph()
    tensor = graph.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return graph


def custom_op(domain: str, in_branch: bool = False) -> ModelProto:
    node = helper.make_node("Secret", ["mean"], ["vectors"], domain=domain)
    if in_branch:
        branch = helper.make_graph([node], "b", [], [helper.make_tensor_value_info("vectors", 1, None)])
        node = helper.make_node("If", ["yes"], ["vectors"], then_branch=branch, else_branch=branch)
    return model([*pooled()[:-1], node], [kernels(), constant("yes", True, np.bool_)], domains=(domain,))


def double_inside() -> ModelProto:
    nodes = [*pooled(target="small"), helper.make_node("Cast", ["small"], ["vectors"], to=TensorProto.DOUBLE)]
    return model(nodes, [kernels()], out_kind=TensorProto.DOUBLE)


def two_inputs() -> ModelProto:
    graph = vector_graph()
    graph.graph.input.append(helper.make_tensor_value_info("scale", TensorProto.FLOAT, [1]))
    return graph


def declared(kind: int) -> ModelProto:
    nodes = [helper.make_node("Cast", ["x"], ["float"], to=TensorProto.FLOAT), *pooled("float")]
    return model(nodes, [kernels()], kind=kind)


def long_names() -> ModelProto:
    nodes = [helper.make_node("Identity", ["vectors"], [f"out\n{n}" * 500]) for n in range(100)]
    return model([*pooled(), *nodes], [kernels()], outputs=[node.output[0] for node in nodes])


WHOLE = vector_graph().SerializeToString()
Made = Callable[[], ModelProto | bytes]
BAD: dict[str, tuple[Made, dict[str, Any], str]] = {
    "truncated": (lambda: WHOLE[: len(WHOLE) // 2], {}, r"is truncated: [\d,]+ bytes are missing; copy or export it"),
    "truncated-at-the-end": (lambda: WHOLE[:-6], {}, "is truncated"),
    "empty": (lambda: b"", {}, "is empty; expected an ONNX file"),
    "not-onnx": (lambda: b"\x89PNG\r\n\x1a\n" + bytes(100), {}, r"is not an ONNX file \(it begins with b'\\x89PNG"),
    "damaged-text": (lambda: WHOLE.replace(b"Tanh", b"T\xff\xfeh"), {}, "not valid UTF-8, so it is damaged"),
    "a-pickle": (lambda: b"\x80\x04\x95" + bytes(50), {}, "is not an ONNX file"),
    "two-outputs": (token_graph, {"size": 16}, r"has 2 outputs \(tokens, squares\); choose one with --output"),
    "no-such-output": (vector_graph, {"output": "features"}, "has no output 'features'; outputs are vectors"),
    "dynamic-rank": (lambda: vector_graph(shape=None), {}, r"'x' has no fixed rank; export with .* \(B, C, H, W\)"),
    "rank-2": (lambda: vector_graph(shape=("B", 3)), {}, "has rank 2; export with an input"),
    "dynamic-size": (lambda: vector_graph(shape=("B", 3, "H", "W")), {}, "any size; give the side .* with --size"),
    "another-size": (vector_graph, {"size": 32}, "takes images of side 16, not 32; give --size 16"),
    "not-square": (lambda: vector_graph(shape=("B", 3, 16, 24)), {}, "images of 16 x 24; export with a square input"),
    "batch-of-8": (lambda: vector_graph(shape=(8, 3, 16, 16)), {}, "takes 8 images at a time; export with a dynamic"),
    "channels-last": (lambda: model(pooled(), [kernels()], shape=("B", 16, 16, 3)), {}, "has its channels last"),
    "float64-input": (lambda: declared(TensorProto.DOUBLE), {}, "input 'x' is DOUBLE; export with a float32 input"),
    "int-input": (lambda: declared(TensorProto.INT64), {}, "input 'x' is INT64; export with a float32 input"),
    "float64-output": (double_inside, {}, "output 'vectors' is DOUBLE; export it as float32"),
    "two-inputs": (two_inputs, {}, r"has 2 inputs \(x, scale\); expected one"),
    "external-above": (lambda: external_elsewhere("../secret.bin"), {}, "'../secret.bin', outside of the graph's"),
    "external-absolute": (lambda: external_elsewhere("/etc/passwd"), {}, "'/etc/passwd', outside of the graph's"),
    "external-missing": (lambda: external_elsewhere("gone.bin"), {}, "'gone.bin' are missing or have another length"),
    "custom-op": (lambda: custom_op("com.evil"), {}, "'Secret' is from domain 'com.evil'; export with standard"),
    "custom-op-in-a-branch": (lambda: custom_op("com.evil", in_branch=True), {}, "is from domain 'com.evil'"),
    "unknown-op": (lambda: custom_op(""), {}, "operator 'Secret' is not an ONNX operator"),
    "3-GB-initializer": (huge_initializer, {}, r"'big' is declared as 750000000 \(3 GB\), which the file does not"),
    "3-GB-sparse": (huge_sparse, {}, r"'big' is declared at 3.0 GB \(750000000\); values may have at most 1.1 GB"),
    "3-GB-filled": (huge_filled, {}, r"value 'big' is declared at 3.0 GB"),
    "6-GB-at-run-time": (huge_at_run_time, {"size": 16}, r"takes more than 2.1 GB of memory; use a smaller model"),
    "nan": (with_nan, {}, "gives NaN or infinity for a .* image; check --mean and --std"),
    "depends-on-the-batch": (depends_on_the_batch, {}, "different vectors in different batches"),
    "left-to-chance": (left_to_chance, {}, "different vectors in different calls; export it in evaluation mode"),
    "the-same-for-all": (the_same_for_all, {}, "the same vector for every image; choose another output"),
    "tokens-without-pool": (token_graph, {"size": 16, "output": "tokens"}, "is tokens; choose --pool cls or mean"),
    "pool-of-a-vector": (vector_graph, {"pool": "cls"}, r"of shape \(1, 6\) does not fit pool 'cls'"),
    "mean-of-255": (vector_graph, {"mean": (123.7, 116.3, 103.5)}, r"for values in \[0, 1\], not 123.7; divide it by"),
    "std-0": (vector_graph, {"std": (0.0,)}, r"std must be for values in \[0, 1\], not 0"),
    "mean-of-two": (vector_graph, {"mean": (0.5, 0.5)}, "mean must have 1 or 3 numbers, not 2"),
    "size-4": (lambda: vector_graph(shape=("B", 3, "H", "W")), {"size": 4}, "size must be between 8 and 1024 .* not 4"),
    "pool": (vector_graph, {"pool": "max"}, "pool must be one of none, cls, mean, not 'max'"),
    "metric": (vector_graph, {"metric": "dot"}, "metric must be one of cosine, l2, not 'dot'"),
    "long-names": (long_names, {}, r"has 100 outputs .*out\\n0.* and 92 more\); choose one"),
    "fit": (vector_graph, {"fit": "zoom"}, "fit must be one of stretch, pad, crop, not 'zoom'"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_bad_graph_is_refused_in_one_line_and_nothing_is_written(name: str, tmp_path: Path) -> None:
    make, options, reason = BAD[name]
    file = save(make(), tmp_path / "bad.onnx")
    with pytest.raises(EncoderError, match=reason) as refused:
        import_onnx(file, tmp_path / "out", ImportRequest(**options))
    assert str(refused.value).startswith(f"{file}: ") and "\n" not in str(refused.value)
    assert len(str(refused.value)) < 700
    assert [path.name for path in tmp_path.iterdir()] == ["bad.onnx"]


def test_what_the_bad_graphs_are_made_from_is_good(tmp_path: Path) -> None:
    for name, graph in {"vectors": vector_graph(), "branch": in_a_branch()}.items():
        described = import_onnx(save(graph, tmp_path / f"{name}.onnx"), tmp_path / name, ImportRequest())
        assert described.dim == DIM and described.trained_from == NOT_STATED


def in_a_branch() -> ModelProto:
    """Like `custom_op` in a branch, with a standard operator."""
    flat = helper.make_node("Flatten", ["mean"], ["flat"])
    branch = helper.make_graph([flat], "b", [], [helper.make_tensor_value_info("flat", 1, None)])
    node = helper.make_node("If", ["yes"], ["vectors"], then_branch=branch, else_branch=branch)
    return model([*pooled()[:-1], node], [kernels(), constant("yes", True, np.bool_)])


@pytest.mark.parametrize("make", [huge_initializer, huge_sparse, huge_filled])
def test_what_is_declared_large_is_never_allocated(make: Made, tmp_path: Path) -> None:
    file = save(make(), tmp_path / "bad.onnx")
    code = (
        "import json, resource; from pathlib import Path\n"
        "from training.onnx.importing import ImportRequest, import_onnx\n"
        f"try: import_onnx(Path({str(file)!r}), Path({str(tmp_path / 'out')!r}), ImportRequest())\n"
        "except ValueError as exc: refused = str(exc)\n"
        "peak = next(line for line in open('/proc/self/status') if line.startswith('VmHWM'))\n"
        "tried = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss\n"
        "print(json.dumps([refused, max(int(peak.split()[1]), tried)]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    refused, kilobytes = json.loads(done.stdout)
    assert "GB" in refused and 10_000 < kilobytes < 400_000


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "graphs").mkdir()
    file = save_with_data_beside(vector_graph(), tmp_path / "graphs" / "a.onnx")
    (tmp_path / "graphs" / "graph.data").rename(tmp_path / "elsewhere.data")
    (tmp_path / "graphs" / "graph.data").symlink_to(tmp_path / "elsewhere.data")
    with pytest.raises(EncoderError, match="outside of the graph's folder"):
        import_onnx(file, tmp_path / "out", ImportRequest())


def test_a_graph_that_never_ends_is_stopped(tmp_path: Path) -> None:
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Sin", ["value"], ["next"])],
        "body",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("value", TensorProto.FLOAT, ["B", DIM]),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, ["B", DIM]),
        ],
    )
    nodes = [*pooled(target="small"), helper.make_node("Loop", ["turns", "", "small"], ["vectors"], body=body)]
    graph = model(nodes, [kernels(), constant("turns", 10**15, np.int64)])
    with pytest.raises(EncoderError, match="takes more than 2 s for a few pictures"):
        probe(graph.SerializeToString(), OnnxConfig(size=16), seconds=2)


def test_a_directory_that_is_no_encoder_is_not_replaced(tmp_path: Path) -> None:
    file = save(vector_graph(), tmp_path / "a.onnx")
    for out in (tmp_path, file):
        with pytest.raises(OutputError, match="exists and is not an encoder"):
            import_onnx(file, out, ImportRequest())
    first = import_onnx(file, tmp_path / "out", ImportRequest())
    second = import_onnx(file, tmp_path / "out", ImportRequest(mean=(0.5,)))
    assert first.encoder_id != second.encoder_id == describe_encoder(tmp_path / "out").encoder_id


def test_an_encoder_whose_graph_was_swapped_for_a_bad_one_does_not_load(tmp_path: Path) -> None:
    described = import_onnx(save(vector_graph(), tmp_path / "a.onnx"), tmp_path / "a", ImportRequest())
    graph = external_elsewhere("secret.bin")
    save(graph, described.directory / "encoder.onnx")
    (described.directory / "card.json").unlink()  # which would say that the file was changed
    for load in (load_embedder, load_encoder):
        with pytest.raises(EncoderError, match="constant 'kernels' is in another file"):
            load(described.directory)
