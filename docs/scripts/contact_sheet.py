"""Draw `docs/images/studio-contact-sheet.jpg`: items of the sample catalogue, two of them on nine backgrounds.

python docs/scripts/contact_sheet.py
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from PIL import Image

from training.data.studio import make_item, random_scene, render

DOCS = Path(__file__).parents[1]
COLUMNS, ROWS, SIDE = 9, 5, 120


def main() -> None:
    sheet = Image.new("RGB", (COLUMNS * SIDE, (ROWS + 2) * SIDE))
    for place in range(COLUMNS * ROWS):
        item = make_item(0, place)
        paste(sheet, place, render(item, random_scene(item, 0), 2 * SIDE).image)
    for row, number in enumerate((9, 17)):
        item = make_item(0, number)
        scene = random_scene(item, 0)
        for column in range(COLUMNS):
            photo = render(item, replace(scene, background_id=10 * row + column), 2 * SIDE)
            paste(sheet, (ROWS + row) * COLUMNS + column, photo.image)
    path = DOCS / "images/studio-contact-sheet.jpg"
    sheet.save(path, quality=88)


def paste(sheet: Image.Image, place: int, pixels: object) -> None:
    row, column = divmod(place, COLUMNS)
    sheet.paste(Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BOX), (column * SIDE, row * SIDE))


if __name__ == "__main__":
    main()
