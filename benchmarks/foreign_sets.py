"""Pictures that do not belong in a catalogue of clothing: `python benchmarks/foreign_sets.py DATA OUT`.

DATA is a folder of archives as `benchmarks/prepare_data.py` reads it, with `emoji-objects.tar` and
`sketches-omniglot.npz` too. OUT gets one folder for each set. All pictures are portrait JPEGs of 400 x 533 pixels, as
most photos of the catalogue are, so that neither the shape nor the file gives them away. `--photos` is a folder of
photos named `WNID_NAME.JPEG` after the classes of ImageNet: those of HOUSEHOLD become `household`, and those of
animals, food and scenery `other-photos`. `--cutouts` is a folder of PNG files with an alpha channel: `cutouts`.
"""

from __future__ import annotations

import argparse
import gzip
import io
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageOps

WIDTH, HEIGHT = 400, 533
COUNT = 300  # pictures of a set at most
FASHION_SIDE = 28
# Drawn things that are worn, or people who wear clothes; `drawn-clothes` and `drawn` are reported apart.
WORN = (
    "shirt", "jeans", "dress", "kimono", "sari", "bikini", "swim", "coat", "scarf", "gloves", "socks", "shoe", "boot",
    "sandal", "hat", "cap", "helmet", "crown", "glasses", "goggles", "shorts", "briefs", "vest", "necktie", "shoe",
    "slipper", "clothes", "thong", "mitten", "hood",
)  # fmt: skip
PEOPLE = (
    "person", "man", "woman", "adult", "baby", "boy", "girl", "people", "family", "couple", "cook", "officer", "guard",
    "detective", "worker", "prince", "princess", "santa", "mx", "mrs", "face", "hand", "child", "student", "singer",
)  # fmt: skip
HOUSEHOLD = """
abacus analog_clock ashcan ballpoint Band_Aid barber_chair bassinet bath_towel bathtub beaker beer_bottle beer_glass
binder bookcase bottlecap broom bucket caldron candle can_opener carpenter's_kit carton cassette cassette_player
CD_player cellular_telephone chest chiffonier china_cabinet cleaver cocktail_shaker coffee_mug coffeepot
combination_lock computer_keyboard corkscrew cradle crate crib Crock_Pot desk desktop_computer dial_telephone
digital_clock digital_watch dining_table dishrag dishwasher doormat Dutch_oven electric_fan entertainment_center
envelope espresso_maker face_powder file fire_screen folding_chair fountain_pen four-poster frying_pan goblet
hair_slide hair_spray hammer hamper hand_blower hand-held_computer hard_disc hatchet home_theater hook hourglass iPod
iron jigsaw_puzzle joystick ladle lampshade laptop lens_cap letter_opener lighter lipstick lotion loudspeaker loupe
magnetic_compass matchstick measuring_cup medicine_chest microphone microwave milk_can mixing_bowl modem monitor mortar
mouse mousetrap nail nipple notebook packet padlock paintbrush paper_towel pencil_box pencil_sharpener perfume
photocopier piggy_bank pill_bottle pillow pitcher plate_rack plunger Polaroid_camera pop_bottle pot power_drill printer
quill quilt radiator radio reel reflex_camera refrigerator remote_control rocking_chair rotisserie rubber_eraser rule
safe safety_pin saltshaker scale screen screw screwdriver sewing_machine shopping_basket shovel shower_curtain
slide_rule soap_dispenser soup_bowl space_bar space_heater spatula spindle stopwatch stove strainer studio_couch
sunscreen switch syringe table_lamp tape_player teapot teddy television thimble toaster toilet_seat torch tray tub
typewriter_keyboard vacuum vase waffle_iron wall_clock wardrobe washbasin washer water_bottle water_jug whiskey_jug
wine_bottle wok wooden_spoon
""".split()
Picture = Image.Image


def portrait(picture: Picture) -> Picture:
    """The middle of a picture, in the catalogue's shape and size."""
    return ImageOps.fit(picture.convert("RGB"), (WIDTH, HEIGHT), Image.Resampling.BICUBIC)


def on_ground(picture: Picture, ground: Picture) -> Picture:
    """A picture with an alpha channel on a background, at .85 of the width."""
    size = round(0.85 * WIDTH)
    item = ImageOps.contain(picture.convert("RGBA"), (size, size), Image.Resampling.BICUBIC)
    made = ground.copy()
    made.paste(item, ((WIDTH - item.width) // 2, (HEIGHT - item.height) // 2), item)
    return made


def members(archive: Path, ending: str) -> dict[str, bytes]:
    """The files of an archive by path, shuffled once."""
    with tarfile.open(archive) as tar:
        names = sorted(member.name for member in tar if member.isfile() and member.name.endswith(ending))
        order = np.random.default_rng(0).permutation(len(names))
        return {names[at]: tar.extractfile(names[at]).read() for at in order}  # type: ignore[union-attr]


def textures(data: Path) -> list[Picture]:
    files = list(members(data / "textures-cc0.tar", ".jpg").values())[:COUNT]
    return [portrait(Image.open(io.BytesIO(content))) for content in files]


def emoji(data: Path) -> Iterator[tuple[str, Picture]]:
    """Drawings by name, people left out."""
    for path, content in members(data / "emoji-objects.tar", ".png").items():
        name = Path(path).stem
        if not any(word in name.split("-") for word in PEOPLE):
            yield name, Image.open(io.BytesIO(content))


def drawn(data: Path, grounds: list[Picture], *, worn: bool) -> Iterator[Picture]:
    chosen = [picture for name, picture in emoji(data) if any(word in name for word in WORN) == worn]
    for number, picture in enumerate(chosen[:COUNT]):
        yield on_ground(picture, grounds[number % len(grounds)])


def sketches(data: Path) -> Iterator[Picture]:
    """Strokes (dx, dy, pen lifted) in black on white."""
    with np.load(data / "sketches-omniglot.npz") as stored:
        strokes, offsets = stored["test_strokes"].astype(np.int64), stored["test_offsets"]
    for number in range(min(COUNT, len(offsets) - 1)):
        yield sketch(strokes[offsets[number] : offsets[number + 1]])


def sketch(steps: NDArray[np.int64]) -> Picture:
    points = np.cumsum(steps[:, :2], axis=0).astype(np.float64)
    low, high = points.min(axis=0), points.max(axis=0)
    points = (points - (low + high) / 2) * 0.8 * WIDTH / max(float((high - low).max()), 1.0) + [WIDTH / 2, HEIGHT / 2]
    made = Image.new("RGB", (WIDTH, HEIGHT), "white")
    pen = ImageDraw.Draw(made)
    for line in np.split(points, np.flatnonzero(steps[:, 2]) + 1):
        if len(line) > 1:
            pen.line([(x, y) for x, y in line.tolist()], fill="black", width=7, joint="curve")
    return made


def fashion(data: Path) -> Iterator[Picture]:
    """Grey clothes of 28 x 28 pixels on black."""
    content = next(iter(members(data / "fashion-mnist.tar", "t10k-images-idx3-ubyte.gz").values()))
    pixels = np.frombuffer(gzip.decompress(content), np.uint8, offset=16).reshape(-1, FASHION_SIDE, FASHION_SIDE)
    for image in pixels[:COUNT]:
        square = Image.fromarray(image).resize((WIDTH, WIDTH), Image.Resampling.BICUBIC).convert("RGB")
        yield ImageOps.pad(square, (WIDTH, HEIGHT), color="black")


def noise(kind: str) -> Iterator[Picture]:
    rng = np.random.default_rng(0)
    shape = (HEIGHT, WIDTH, 3)
    for _ in range(COUNT // 3):
        values: Any
        if kind == "uniform":
            values = rng.integers(0, 256, shape)
        elif kind == "gaussian":
            values = np.clip(rng.normal(rng.uniform(60, 200, 3), rng.uniform(20, 80), shape), 0, 255)
        else:
            values = np.broadcast_to(rng.integers(0, 256, 3), shape)
        yield Image.fromarray(np.asarray(values, np.uint8))


def photos(folder: Path, *, household: bool) -> Iterator[Picture]:
    """Photos of things in a home, or of animals, food and scenery, by their WordNet id."""
    chosen = []
    for path in sorted(folder.iterdir()):
        wnid, _, name = path.stem.partition("_")
        if path.suffix == ".JPEG" and ((name in HOUSEHOLD) if household else (wnid < "n0260" or wnid > "n07")):
            chosen.append(path)
    order = np.random.default_rng(0).permutation(len(chosen))[:COUNT]
    for at in order:
        with Image.open(chosen[at]) as picture:
            yield portrait(picture)


def write(folder: Path, made: Iterator[Picture]) -> None:
    folder.mkdir(parents=True)
    for number, picture in enumerate(made):
        picture.save(folder / f"{number:04d}.jpg", quality=90)
    print(f"{folder.name}: {len(list(folder.iterdir()))}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--photos", type=Path, help="folder of WNID_NAME.JPEG")
    parser.add_argument("--cutouts", type=Path, help="folder of PNG files with an alpha channel")
    asked = parser.parse_args()
    grounds = textures(asked.data)
    white = [Image.new("RGB", (WIDTH, HEIGHT), "white")]
    made = {
        "sketches": sketches(asked.data),
        "fashion-mnist": fashion(asked.data),
        "textures": iter(grounds),
        "noise-uniform": noise("uniform"),
        "noise-gaussian": noise("gaussian"),
        "constant": noise("constant"),
        "drawn-white": drawn(asked.data, white, worn=False),
        "drawn-textures": drawn(asked.data, grounds, worn=False),
        "drawn-clothes": drawn(asked.data, white, worn=True),
    }
    if asked.photos is not None:
        made["household"] = photos(asked.photos, household=True)
        made["other-photos"] = photos(asked.photos, household=False)
    if asked.cutouts is not None:
        files = sorted(asked.cutouts.rglob("*.png"))[:COUNT]
        made["cutouts"] = (on_ground(Image.open(path), white[0]) for path in files)
    for name, pictures in made.items():
        write(asked.out / name, pictures)


if __name__ == "__main__":
    main()
