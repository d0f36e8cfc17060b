"""Malformed input to the commands: the right status, one clear line, no traceback, nothing lost."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from service.cli import main
from tests.conftest import write_photos
from tests.malformed import BAD_IMAGES, ODD_IMAGES, everything, write_home


@pytest.fixture(scope="module")
def shop_home(tmp_path_factory: pytest.TempPathFactory, encoder_dir: Path) -> Path:
    return write_home(tmp_path_factory.mktemp("malformed"), encoder_dir)


@pytest.fixture(scope="module")
def untouched(shop_home: Path) -> tuple[Any, ...]:
    return everything(shop_home / "home")


@pytest.fixture
def run(
    shop_home: Path,
    untouched: tuple[Any, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[Callable[..., tuple[int, str]]]:
    """Runs a command; afterwards what the home held must be there unchanged."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["nitamono", *arguments])
        with pytest.raises(SystemExit) as stop:
            main()
        captured = capsys.readouterr()
        assert captured.out == ""
        return int(stop.value.code or 0), captured.err

    yield call
    assert everything(shop_home / "home") == untouched


def write(name: str, content: str | bytes) -> str:
    path = Path(name)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path.absolute())


PHOTO = "{photo}"
CLI_ERRORS: dict[str, tuple[Callable[[], list[str]], str]] = {
    "search-missing-file": (lambda: ["search", "nowhere.jpg"], "nowhere.jpg: cannot be read"),
    "search-folder": (lambda: ["search", "."], "cannot be read"),
    "search-k-0": (lambda: ["search", PHOTO, "-k", "0"], "k must be between 1 and 1000"),
    "search-k-negative": (lambda: ["search", PHOTO, "-k", "-4"], "k must be between"),
    "search-k-huge": (lambda: ["search", PHOTO, "-k", "99999999999"], "k must be between"),
    "search-offset-negative": (lambda: ["search", PHOTO, "--offset", "-1"], "offset must be"),
    "search-offset-deep": (lambda: ["search", PHOTO, "--offset", "10000"], "offset must be"),
    "search-unknown-filter": (lambda: ["search", PHOTO, "--filter", "colour=red"], "no item has an attribute 'colour'"),
    "search-filter-form": (lambda: ["search", PHOTO, "--filter", "category"], "must be key=value"),
    "search-filter-twice": (lambda: ["search", PHOTO, "--filter", "a=1", "--filter", "a=2"], "twice"),
    "search-region-form": (lambda: ["search", PHOTO, "--region", "1,2"], "four numbers"),
    "search-region-outside": (lambda: ["search", PHOTO, "--region", "0.5,0.5,0.9,0.9"], "inside the image"),
    "search-region-nan": (lambda: ["search", PHOTO, "--region", "nan,0,1,1"], "inside the image"),
    "search-collection": (lambda: ["search", PHOTO, "-c", "nope"], "no collection 'nope'; existing ones"),
    "search-no-home": (lambda: ["search", PHOTO, "--home", "nowhere"], "no home at"),
    "index-missing-source": (lambda: ["index", "nowhere"], "no such folder or manifest"),
    "index-strange-source": (lambda: ["index", write("a.xlsx", "x")], "expected a folder or a manifest"),
    "index-wrong-column": (lambda: ["index", write("a.csv", "id,image\na,b\n")], "column 'item_id' is missing"),
    "index-empty-csv": (lambda: ["index", write("a.csv", "")], "column 'item_id' is missing"),
    "index-binary-csv": (lambda: ["index", write("a.csv", b"\xff\xfe\x00\x01")], "not UTF-8"),
    "index-open-quote": (lambda: ["index", write("a.csv", 'item_id,"image\na,b\n')], "not valid CSV"),
    "index-bad-parquet": (lambda: ["index", write("a.parquet", b"PAR1junk")], "not a Parquet file"),
    "index-jsonl-column": (lambda: ["index", write("a.jsonl", '{"image": "x"}\n')], "column 'item_id' is missing"),
    "index-unknown-encoder": (lambda: ["index", ".", "--encoder", "resnet"], "no such encoder directory or name"),
    "index-broken-encoder": (lambda: ["index", ".", "--encoder", broken_encoder()], "cannot be read"),
    "index-collection-name": (lambda: ["index", ".", "-c", "../x"], "lower-case letters"),
    "index-home-is-a-file": (lambda: ["index", ".", "--home", write("file", "x")], "cannot be created"),
    "embed-wrong-suffix": (lambda: ["embed", ".", "--encoder", "hog", "--out", "v.csv"], "ends in .npz"),
    "train-unknown-recipe": (
        lambda: ["train", "gan", "--data", ".", "--out", "o"],
        "recipe 'gan'",
    ),
    "train-bad-set": (
        lambda: ["train", "vae", "--data", ".", "--out", "o", "--set", "model.latent_dim=-3"],
        "latent_dim",
    ),
    "train-unknown-set": (lambda: ["train", "vae", "--data", ".", "--out", "o", "--set", "nonsense=1"], "nonsense"),
    "train-no-photos": (lambda: ["train", "vae", "--data", empty_folder(), "--out", "o"], "photo|image"),
    "evaluate-relevance": (
        lambda: ["evaluate", "--gallery", PHOTO_FOLDER, "--queries", PHOTO_FOLDER, "--relevance", "nope.qrels"],
        "nope.qrels",
    ),
    "evaluate-report-is-a-directory": (
        lambda: ["evaluate", "--gallery", "no", "--queries", "no", "--report", empty_folder()],
        "empty: is a directory; give the path of a file",
    ),
    "evaluate-report-below-a-file": (
        lambda: ["evaluate", "--gallery", "no", "--queries", "no", "--report", write("file", "x") + "/a/r.html"],
        "file/a: cannot be written to",
    ),
    "evaluate-report-nowhere": (
        lambda: ["evaluate", "--gallery", "no", "--queries", "no", "--report", "/proc/nothing/r.html"],
        "/proc/nothing: cannot be written to",
    ),
    "embed-out-below-a-file": (
        lambda: ["embed", ".", "--encoder", "hog", "--out", write("file", "x") + "/v.npz"],
        "file: cannot be written to .it is a file",
    ),
    "embed-out-nowhere": (lambda: ["embed", ".", "--encoder", "hog", "--out", "/proc/v.npz"], "cannot be written to"),
    "index-home-nowhere": (lambda: ["index", ".", "--home", "/proc/nothing/home"], "cannot be created"),
    "index-locks-are-a-file": (lambda: ["index", ".", "--home", home_with("locks")], "locks: File exists"),
    "evaluate-gallery": (lambda: ["evaluate", "--gallery", "no", "--queries", "no"], "no such folder"),
    "encoders-show-unknown": (lambda: ["encoders", "show", "resnet"], "no such encoder directory or name"),
    "encoders-show-id": (lambda: ["encoders", "show", "abcdef123"], "no such encoder directory or name"),
    "encoders-show-broken": (lambda: ["encoders", "show", broken_encoder()], "cannot be read"),
    "encoders-compare-unknown": (lambda: ["encoders", "compare", "hog", "nope"], "'nope': no such encoder"),
    "pictures-out-is-a-file": (
        lambda: ["pictures", "--encoder", "hog", "--out", write("file", "x")],
        "file: cannot be written to",
    ),
    "pictures-encoder": (lambda: ["pictures", "--encoder", "nope", "--out", "o"], "'nope': no such encoder"),
    "pictures-data": (lambda: ["pictures", "--encoder", "hog", "--out", "o", "--data", "no"], "no such folder"),
    "pictures-empty": (
        lambda: ["pictures", "--encoder", "hog", "--out", "o", "--data", empty_folder()],
        "empty: has 0 readable photos; give 2 or more",
    ),
    "pictures-device": (
        lambda: ["pictures", "--encoder", "hog", "--out", "o", "--data", PHOTO_FOLDER, "--device", "meta"],
        "device 'meta' cannot be used here",
    ),
    "embed-device": (
        lambda: ["embed", PHOTO_FOLDER, "--encoder", "hog", "--out", "v.npz", "--device", "cuda:99"],
        "device 'cuda:99' cannot be used here",
    ),
    "encoders-compare-device": (
        lambda: ["encoders", "compare", "hog", "pixels", "--device", "gpu"],
        "device 'gpu' cannot be used here",
    ),
    "index-device": (lambda: ["index", PHOTO_FOLDER, "-c", "other", "--device", "gpu"], "device 'gpu' cannot be used"),
    "generations-activate": (lambda: ["generations", "activate", "9"], "no generation 9; it keeps 1"),
    "generations-rollback": (lambda: ["generations", "rollback"], "no earlier generation"),
    "retrain-nothing-unfinished": (lambda: retrain(), "no retraining of 'default' is unfinished; give --recipes"),
    "retrain-no-recipe": (lambda: retrain("--recipes", ","), "give one or more recipes or encoders"),
    "retrain-recipe-twice": (lambda: retrain("--recipes", "pca,pca"), "is listed twice"),
    "retrain-unknown-recipe": (lambda: retrain("--recipes", "gan"), "recipe 'gan': no such recipe"),
    "retrain-dry-run-without-recipes": (lambda: retrain("--dry-run"), "give --recipes or --encoders"),
    "retrain-unknown-encoder": (lambda: retrain("--encoders", "nobody"), "encoder 'nobody': no such encoder"),
    "retrain-unknown-set": (lambda: retrain("--recipes", "pca", "--set", "nonsense=1"), "nonsense is unknown"),
    "retrain-set-form": (lambda: retrain("--recipes", "pca", "--set", "seed"), "expected key=value"),
    "retrain-set-value": (lambda: retrain("--recipes", "pca", "--set", "model.components=0"), "components"),
    "retrain-confidence": (lambda: retrain("--recipes", "pca", "--confidence", "1"), "confidence must be between"),
    "retrain-confidence-nan": (lambda: retrain("--recipes", "pca", "--confidence", "nan"), "confidence must be"),
    "retrain-margin": (lambda: retrain("--recipes", "pca", "--margin", "-0.1"), "margin must be between 0 and 1"),
    "retrain-margin-nan": (lambda: retrain("--recipes", "pca", "--margin", "nan"), "margin must be between"),
    "retrain-held-out": (lambda: retrain("--recipes", "pca", "--held-out", "1"), "held_out must be between 0 and 1"),
    "retrain-device": (lambda: retrain("--recipes", "pca", "--device", "tpu"), "device must be one of"),
    "retrain-precision": (lambda: retrain("--recipes", "pca", "--precision", "64"), "precision must be one of"),
    "retrain-backgrounds": (lambda: retrain("--recipes", "pca", "--backgrounds", "no"), "no: no such folder"),
    "retrain-backgrounds-empty": (
        lambda: retrain("--recipes", "pca", "--backgrounds", empty_folder()),
        "empty: it contains no readable image",
    ),
    "retrain-too-few-items": (lambda: retrain("--recipes", "pca"), "would be held out, but 20 are needed"),
    "retrain-too-few-items-dry-run": (lambda: retrain("--recipes", "pca", "--dry-run"), "20 are needed"),
    "retrain-collection": (lambda: retrain("--recipes", "pca", "-c", "nope"), "no collection 'nope'; existing ones"),
    "retrain-no-home": (lambda: retrain("--recipes", "pca", "--home", "nowhere"), "no home at"),
    "retrain-show-none": (lambda: ["retrain", "show"], "'default' has no retraining; known retrainings: none"),
    "retrain-show-unknown": (lambda: ["retrain", "show", "4"], "has no retraining 4; known retrainings: none"),
    "retrain-show-collection": (lambda: ["retrain", "show", "-c", "nope"], "no collection 'nope'"),
    "retrain-abandon-none": (lambda: ["retrain", "abandon"], "no retraining of 'default' is unfinished"),
    "retrain-abandon-no-home": (lambda: ["retrain", "abandon", "--home", "nowhere"], "no home at"),
    "compare-nothing": (lambda: ["compare"], "give either --data SOURCE or --studio"),
    "compare-both": (lambda: ["compare", "--data", PHOTO_FOLDER, "--studio", "shop"], "give either"),
    "compare-studio": (lambda: ["compare", "--studio", "market"], "market"),
    "compare-encoder": (lambda: ["compare", "--studio", "shop", "--encoder", "nope"], "'nope': no such encoder"),
    "compare-data": (lambda: ["compare", "hog", "--data", "no"], "no such folder or manifest"),
    "compare-empty": (lambda: ["compare", "hog", "--data", empty_folder()], "empty: contains no photos"),
    "compare-backgrounds": (
        lambda: ["compare", "hog", "--data", PHOTO_FOLDER, "--backgrounds", "no"],
        "no: no such folder",
    ),
    "compare-report-is-a-directory": (
        lambda: ["compare", "hog", "--studio", "shop", "--report", empty_folder()],
        "empty: is a directory; give the path of a file",
    ),
    "drift-nothing-to-compare": (lambda: ["drift", "--since", "yesterday"], "since 'yesterday' must be an ISO date"),
    "drift-new": (lambda: ["drift", "--new", "nowhere"], "nowhere: no such folder or manifest"),
    "drift-queries": (lambda: ["drift", "--queries", "nowhere"], "nowhere: no such folder or manifest"),
    "drift-collection": (lambda: ["drift", "--new", PHOTO_FOLDER, "-c", "nope"], "no collection 'nope'"),
    "drift-no-home": (lambda: ["drift", "--new", PHOTO_FOLDER, "--home", "nowhere"], "no home at"),
    "calibrate-too-few": (lambda: ["calibrate"], "'default' cannot be calibrated: 9 items"),
    "calibrate-collection": (lambda: ["calibrate", "-c", "nope"], "no collection 'nope'; existing ones"),
    "calibrate-no-home": (lambda: ["calibrate", "--home", "nowhere"], "no home at"),
    "calibrate-device": (lambda: ["calibrate", "--device", "cuda:99"], "device 'cuda:99' cannot be used|9 items"),
    "keys-scope": (lambda: ["keys", "create", "k", "--scope", "root"], "scope 'root'"),
    "keys-revoke": (lambda: ["keys", "revoke", "nobody"], "no API key named 'nobody'"),
    "sample-items": (lambda: ["sample-catalogue", "--out", "s", "--items", "0"], "items"),
    "sample-not-empty": (lambda: ["sample-catalogue", "--out", full_folder(), "--items", "2"], "empty"),
}
PHOTO_FOLDER = "{shop}"


def retrain(*options: str) -> list[str]:
    """The command, at this process's own priority."""
    return ["retrain", "--nice", "0", *options]


def broken_encoder() -> str:
    Path("enc").mkdir()
    write("enc/encoder.json", "{not json")
    return "enc"


def empty_folder() -> str:
    Path("empty").mkdir()
    return "empty"


def home_with(file: str) -> str:
    Path("home").mkdir()
    write(f"home/{file}", "x")
    return "home"


def full_folder() -> str:
    Path("full").mkdir()
    write("full/kept.txt", "kept")
    return "full"


@pytest.mark.parametrize("case", CLI_ERRORS)
def test_a_command_with_bad_input_fails_in_one_line(
    case: str, run: Callable[..., tuple[int, str]], shop_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build, message = CLI_ERRORS[case]
    monkeypatch.setenv("NITAMONO_HOME", str(shop_home / "home"))
    filled = [a.format(photo=shop_home / "photo.jpg", shop=shop_home / "shop") for a in build()]
    status, error = run(*filled)
    lines = [line for line in error.splitlines() if line.startswith("nitamono: ")]
    assert status == 1, error
    assert len(lines) == 1
    import re

    assert re.search(message, lines[0]), lines[0]
    assert "Traceback" not in error


@pytest.mark.parametrize("name", BAD_IMAGES)
def test_searching_by_a_bad_file_names_it_and_the_reason(
    name: str, run: Callable[..., tuple[int, str]], shop_home: Path
) -> None:
    import re

    data, reason = BAD_IMAGES[name]
    status, error = run("search", write("query.jpg", data), "--home", str(shop_home / "home"))
    assert status == 1
    assert len(error.splitlines()) == 1
    assert "query.jpg" in error and re.search(reason, error)


@pytest.mark.parametrize(
    "arguments",
    [
        ["search"],
        ["search", "x.jpg", "-k", "many"],
        ["nonsense"],
        ["index"],
        ["serve", "--port", "99999"],
        ["evaluate", "--gallery", ".", "--queries", ".", "--seed", "-1"],
        ["train"],
        ["embed", "x"],
        ["encoders", "compare", "hog"],
        ["pictures", "--encoder", "hog", "--out", "o", "--images", "1"],
        ["pictures", "--encoder", "hog", "--out", "o", "--seed", "-1"],
        ["pictures", "--encoder", "hog", "--out", "o", "--seed", str(2**64)],
        ["encoders", "compare", "hog", "hog"],
        ["retrain", "--recipes", "pca", "--items", "5"],
        ["retrain", "--recipes", "pca", "--margin", "much"],
        ["retrain", "--recipes", "pca", "--min-recall", "1.5"],
        ["retrain", "--recipes", "pca", "--min-recall", "nan"],
        ["retrain", "--recipes", "pca", "--seed", "-1"],
        ["retrain", "--recipes", "pca", "--nice", "20"],
        ["retrain", "show", "first"],
        ["compare", "hog", "--items", "7"],
        ["compare", "hog", "--per-item", "1"],
        ["drift", "--limit", "5"],
        ["drift", "--seed", "-1"],
    ],
)
def test_wrong_usage_exits_2(arguments: list[str], run: Callable[..., tuple[int, str]]) -> None:
    status, error = run(*arguments)
    assert status == 2
    assert "Usage: nitamono" in error and "Traceback" not in error


def test_evaluating_against_one_photo_leaves_pca_out_and_gives_null_where_there_is_no_figure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = write_photos(tmp_path / "shop", 1)
    report = tmp_path / "new" / "r.html"
    sources = ["--gallery", str(shop), "--queries", str(shop), "--report", str(report)]
    monkeypatch.setattr(sys, "argv", ["nitamono", "evaluate", *sources, "--encoder", "pixels", "--json"])
    with pytest.raises(SystemExit) as stop:
        main()
    printed = capsys.readouterr()
    assert stop.value.code == 0, printed.err
    assert "pca is skipped: it is fitted on the gallery, which needs 2 images" in printed.err

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    document = json.loads(printed.out, parse_constant=refuse)
    assert set(document["encoders"]) == {"pixels", "hog"}
    assert document["encoders"]["pixels"]["map"] == {"value": None, "ci": [None, None]}
    assert report.stat().st_size > 0


def test_every_bad_file_of_a_batch_is_listed_and_every_odd_one_is_indexed(
    tmp_path: Path, encoder_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "batch"
    folder.mkdir()
    for name, (data, _) in BAD_IMAGES.items():
        (folder / f"bad-{name}.jpg").write_bytes(data)
    for name, data in ODD_IMAGES.items():
        (folder / f"odd-{name}.img").write_bytes(data)
    common = ["--home", str(tmp_path / "home"), "--json"]

    def call(*arguments: str) -> Any:
        monkeypatch.setattr(sys, "argv", ["nitamono", *arguments, *common])
        with pytest.raises(SystemExit) as stop:
            main()
        assert stop.value.code == 0
        return json.loads(capsys.readouterr().out)

    report = call("index", str(folder), "--encoder", str(encoder_dir))
    assert (report["added"], report["rejected"]) == (len(ODD_IMAGES), len(BAD_IMAGES))
    listed = {reject["item_id"] for reject in call("rejects", "list")["rejects"]}
    assert listed == {f"bad-{name}.jpg" for name in BAD_IMAGES}
    again = call("index", str(folder))
    assert (again["added"], again["unchanged"], again["rejected"]) == (0, len(ODD_IMAGES), len(BAD_IMAGES))
