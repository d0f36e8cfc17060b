"""A client that writes to a server without a pause, and remembers what the server acknowledged."""

from __future__ import annotations

import threading

import httpx

from tests.indexer.search.pages import jpeg

PATH = "/v1/collections/shop/items"


class Writer(threading.Thread):
    """Puts items of its own, gives some another photo and deletes some, one request at a time, until stopped.

    `items` maps an item id to the number of the photo that it must have, or to None if it must not exist. `unsure` is
    the item of a request that never had an answer, with the photo before it and the one that it asked for; only the
    last request can be one, or, with `retry`, none.
    """

    def __init__(self, url: str, name: str, first_photo: int, *, retry: bool = False) -> None:
        super().__init__()
        self.items: dict[str, int | None] = {}
        self.unsure: tuple[str, int | None, int | None] | None = None
        self.acknowledged = 0
        self.failure = ""
        self._url, self._name, self._photo, self._retry = url, name, first_photo, retry
        self._ended = threading.Event()

    def stop(self) -> None:
        self._ended.set()
        self.join()
        assert not self.failure, self.failure

    def run(self) -> None:
        with httpx.Client(base_url=self._url, timeout=60) as client:
            while not self._ended.is_set() and not self.failure:
                number, self._photo = self._photo, self._photo + 2
                item_id = f"{self._name}-{number}"
                steps = [number] + [number + 1] * (number % 3 == 0) + [None] * (number % 4 == 0)
                for photo in steps:
                    if not self._write(client, item_id, photo):
                        return

    def _write(self, client: httpx.Client, item_id: str, photo: int | None) -> bool:
        """One write; False once no answer came and there is to be no second try."""
        self.unsure = (item_id, self.items.get(item_id), photo)
        while True:
            try:
                if photo is None:
                    answer = client.delete(f"{PATH}/{item_id}")
                else:
                    answer = client.put(f"{PATH}/{item_id}", files={"image": jpeg(photo)})
            except httpx.TransportError:
                if self._retry:
                    continue
                return False
            if answer.status_code == 503:
                continue
            # A second try may find that the first one was carried out.
            wanted = {204, 404} if photo is None else {200, 201}
            if answer.status_code not in wanted:
                self.failure = f"{item_id}: {answer.status_code} {answer.text}"
            self.items[item_id], self.unsure = photo, None
            self.acknowledged += 1
            return not self.failure

    def check(self, client: httpx.Client) -> None:
        """What was acknowledged is served, and nothing that was deleted or replaced."""
        for item_id, photo in self.items.items():
            possible = {photo} if self.unsure is None or self.unsure[0] != item_id else {photo, self.unsure[2]}
            found = client.get(f"{PATH}/{item_id}")
            assert (found.status_code == 200) is (photo is not None) or None in possible, f"{item_id}: {found.text}"
            shown = [number for number in possible if number is not None and self._is_first(client, item_id, number)]
            assert shown or None in possible, f"{item_id} is not found by its photo"
            if found.status_code == 404 or (photo is not None and possible == {photo}):
                replaced = {number for number in (self._number(item_id), self._number(item_id) + 1)} - possible
                wrong = [number for number in replaced if self._is_first(client, item_id, number, exact=True)]
                assert not wrong, f"{item_id} is found by photo {wrong}, which was deleted or replaced"

    @staticmethod
    def _number(item_id: str) -> int:
        return int(item_id.rpartition("-")[2])

    @staticmethod
    def _is_first(client: httpx.Client, item_id: str, photo: int, *, exact: bool = False) -> bool:
        answer = client.post("/v1/collections/shop/search", files={"image": jpeg(photo)}, data={"k": 1})
        assert answer.status_code == 200, answer.text
        best = answer.json()["results"][0]
        return best["item_id"] == item_id and (not exact or best["score"] > 0.9999)
