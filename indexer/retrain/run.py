"""`nitamono retrain`: train on the catalogue's own photos, and promote only what holds the item better.

export -> train each recipe -> evaluate on held-out items -> gate against the active encoder -> embed with the winner ->
build a generation -> verify -> calibrate -> activate, keeping the old one. Every step leaves its result behind, whole
or not at all, and is skipped where that is there: a run that was killed anywhere is started again with the same
command, goes on, and ends as it would have.

    <home>/retrains/<collection>-<number>/export.json            photos to train on and to evaluate on
                                         /models/<recipe>/       training runs, which become encoder directories
                                         /evidence/<id>.json     an encoder's figures on the held-out items

What stays for good (plan, decision, evidence of the decision, generation) is in the catalogue as well.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from indexer.catalogue.home import Home
from indexer.catalogue.records import EncoderRecord, GenerationRecord, RetrainRecord
from indexer.errors import CalibrationError, CorruptError, InvalidRequestError, MismatchError, NotFoundError
from indexer.generations.build import build_generation
from indexer.generations.store import remove_old, remove_unused, verify
from indexer.retrain.budget import budget
from indexer.retrain.evidence import figures, is_current, measure, to_evidence
from indexer.retrain.gate import judge, winner
from indexer.retrain.plan import RetrainPlan, folder_name, from_rows, judged_items, outlook, split, to_rows
from training.card import amend_card
from training.console import to_json
from training.data.sources import SourceImage
from training.errors import RecipeError, SourceError
from training.files import publish_directory, publish_file
from training.reference import ENCODER_FILES, EncoderDescription, describe_encoder, read_json

if TYPE_CHECKING:
    from indexer.retrain.gate_set import GateSet

Say = Callable[[str, str], None]


def retrain(
    home: Home, collection: str, plan: RetrainPlan | None, *, say: Say = lambda step, text: None
) -> RetrainRecord:
    """Run a retraining to its end, or go on with the unfinished one.

    Args:
        plan: None goes on with what is unfinished.
        say: told of each step as it begins.

    Raises:
        InvalidRequestError: another plan is unfinished, nothing is, or the collection has too few items.
        BusyError: another process retrains or indexes this collection.
        MismatchError: another encoder was put into service meanwhile; run it again.
    """
    collection_id = home.catalogue.collection_id(collection)
    with home.lock(f"retrain-{collection}"):
        record = unfinished(home, collection)
        if record is None:
            if plan is None:
                raise InvalidRequestError(
                    "recipes", f"no retraining of {collection!r} is unfinished; give --recipes A,B or --encoders"
                )
            outlook(home, collection, plan)  # what cannot work is said before anything is stored
            number = home.catalogue.retrains.add(collection_id, plan.to_json())
        else:
            if plan is not None and plan != RetrainPlan.from_json(record.plan):
                raise InvalidRequestError(
                    "recipes",
                    f"retraining {record.number} of {collection!r} is unfinished and has another plan; go on with it "
                    "by `nitamono retrain` without --recipes and --encoders, or drop it by `nitamono retrain abandon`",
                )
            number, plan = record.number, RetrainPlan.from_json(record.plan)
        _Run(home, collection, collection_id, number, plan, say).run()
    return find_retrain(home, collection, number)


def unfinished(home: Home, collection: str) -> RetrainRecord | None:
    return next((r for r in home.catalogue.retrains.all(collection) if r.status == "running"), None)


def find_retrain(home: Home, collection: str, number: int | None) -> RetrainRecord:
    """A retraining by number, the last one by None; `NotFoundError` names those there are."""
    records = home.catalogue.retrains.all(collection)
    for record in reversed(records):
        if number in (None, record.number):
            return record
    known = ", ".join(str(record.number) for record in records) or "none yet"
    raise NotFoundError(
        f"collection {collection!r} has no retraining{f' {number}' if number else ''}; there is {known}"
    )


def abandon(home: Home, collection: str) -> RetrainRecord:
    """End an unfinished retraining where it is, and remove its files."""
    with home.lock(f"retrain-{collection}"):
        record = unfinished(home, collection)
        if record is None:
            raise NotFoundError(f"no retraining of {collection!r} is unfinished")
        if record.decision is not None and record.decision["winner_id"]:
            with home.lock(f"collection-{collection}", wait=True):
                remove_unused(home, collection, record.decision["winner_id"])
        home.catalogue.retrains.end(home.catalogue.collection_id(collection), record.number, "abandoned", None)
        shutil.rmtree(home.retrain_directory(collection, record.number), ignore_errors=True)
    return find_retrain(home, collection, record.number)


@dataclass
class _Run:
    home: Home
    collection: str
    collection_id: int
    number: int
    plan: RetrainPlan
    say: Say

    def __post_init__(self) -> None:
        self.directory = self.home.retrain_directory(self.collection, self.number)

    def run(self) -> None:
        training, held_out = self.export()
        candidates = self.train(training)
        decision = self.gate(candidates, held_out)
        if decision["winner"] is None:
            self.home.catalogue.retrains.end(self.collection_id, self.number, "refused", None)
            return
        with self.home.lock(f"collection-{self.collection}", wait=True):
            generation = self.promote(decision)
        self.home.catalogue.retrains.end(self.collection_id, self.number, "promoted", generation.number)

    def export(self) -> tuple[list[SourceImage], list[SourceImage]]:
        """The photos of this run, which stay the same however the catalogue changes meanwhile."""
        path = self.directory / "export.json"
        if not path.exists():
            training, held_out = split(self.home, self.collection, self.plan.held_out)
            self.say("export", f"{len(training)} photos to train on, {len(held_out)} to evaluate on")
            document = {"training": to_rows(training), "held_out": to_rows(held_out)}
            publish_file(path, (json.dumps(document, ensure_ascii=False) + "\n").encode())
        document = json.loads(path.read_text(encoding="utf-8"))
        return from_rows(document["training"]), from_rows(document["held_out"])

    def train(self, images: Sequence[SourceImage]) -> dict[str, EncoderDescription]:
        """The candidates; a recipe that is trained is not trained again, one that was interrupted goes on."""
        from training.loop import train
        from training.onnx.export import add_onnx
        from training.recipes import load_recipe

        trained = {}
        for name in self.plan.recipes:
            out = self.directory / "models" / folder_name(name)
            if not (out / "encoder.json").exists():
                self.say("train", name)
            try:
                train(
                    load_recipe(name, self.plan.overrides), images, out,
                    resume=True, device=self.plan.device, precision=self.plan.precision,
                )  # fmt: skip
            except SourceError as exc:
                raise SourceError(f"recipe {name}: {exc}") from exc
            except RecipeError as exc:
                raise RecipeError(f"{exc}; or drop this retraining by `nitamono retrain abandon`") from exc
            if "onnx_sha256" not in read_json(out / "card.json"):
                add_onnx(out)
            trained[name] = describe_encoder(out)
        return trained | {ref: self._taken(ref) for ref in self.plan.encoders}

    def _taken(self, ref: str) -> EncoderDescription:
        """A candidate that is trained already: a copy of its own, which nothing changes while it is judged."""
        out = self.directory / "models" / folder_name(ref)
        if not (out / "encoder.json").exists():
            self.say("train", f"{ref} is taken as it is")
            source = describe_encoder(ref).directory
            there = [source / name for name in ENCODER_FILES if (source / name).is_file()]
            publish_directory(out, {path.name: path.read_bytes() for path in there})
        return describe_encoder(out)

    def gate(self, candidates: Mapping[str, EncoderDescription], held_out: Sequence[SourceImage]) -> dict[str, Any]:
        """The decision, which holds for the encoder that was in service when it was made."""
        active = self.home.catalogue.search_state(self.collection).encoder_id
        decision = find_retrain(self.home, self.collection, self.number).decision
        if decision is not None and active in (decision["active"]["encoder_id"], decision.get("winner_id")):
            return decision
        evidence = self.evaluate({str(active): self.home.encoder(str(active)).directory}
                                 | {d.encoder_id: d.directory for d in candidates.values()}, held_out)  # fmt: skip
        items = judged_items(held_out, self.plan)
        found = budget(self.plan.gate, items, self.home.catalogue.retrains.all(self.collection), number=self.number)
        self.say("gate", f"{len(candidates)} candidates against encoder {str(active)[:12]} at level {found.level:.2g}")
        of_active = to_evidence(evidence[str(active)])
        of_candidates = {name: to_evidence(evidence[d.encoder_id]) for name, d in candidates.items()}
        verdicts = judge(self.plan.gate, of_active, of_candidates, level=found.level)
        best = winner(verdicts, of_candidates)
        decision = {
            "rule": asdict(self.plan.gate),
            "budget": found.to_json(),
            "held_out_items": items,
            "set": evidence[str(active)]["set"],
            "active": figures(evidence[str(active)]),
            "candidates": {
                name: {**figures(evidence[d.encoder_id]), "verdict": verdicts[name].to_json()}
                for name, d in candidates.items()
            },
            "winner": best,
            "winner_id": candidates[best].encoder_id if best else None,
        }
        # A figure without a value is null, here and when it is read again.
        stored: dict[str, Any] = json.loads(to_json(decision))
        self.home.catalogue.retrains.decide(self.collection_id, self.number, stored)
        return stored

    def evaluate(self, encoders: Mapping[str, Path], held_out: Sequence[SourceImage]) -> dict[str, dict[str, Any]]:
        """Figures of encoders by id on the held-out items; those that are there are not measured again.

        Photos may have gone since some were measured: then all are, for only figures of one set can be compared. So is
        what an earlier version has measured.
        """
        paths = {encoder_id: self.directory / "evidence" / f"{encoder_id}.json" for encoder_id in encoders}
        made: GateSet | None = None
        for encoder_id, path in paths.items():
            if path.exists() and is_current(read_json(path)):
                continue
            self.say("evaluate", f"encoder {encoder_id[:12]} ({encoders[encoder_id].name})")
            made = made or self._gate_set(held_out)
            publish_file(path, (json.dumps(measure(encoders[encoder_id], made, self.plan.seed)) + "\n").encode())
        found = {encoder_id: json.loads(path.read_text(encoding="utf-8")) for encoder_id, path in paths.items()}
        if len({json.dumps([document["set"], document["products"]]) for document in found.values()}) > 1:
            for path in paths.values():
                path.unlink()
            return self.evaluate(encoders, held_out)
        return found

    def _gate_set(self, held_out: Sequence[SourceImage]) -> GateSet:
        from indexer.retrain.gate_set import background_seed, gate_set

        return gate_set(
            f"held-out items of {self.collection}",
            held_out,
            backgrounds=Path(self.plan.backgrounds) if self.plan.backgrounds else None,
            count=self.plan.per_item,
            background_seed=background_seed(self.collection, self.number, self.plan.seed),
            limit=self.plan.items,
            seed=self.plan.seed,
        )

    def promote(self, decision: Mapping[str, Any]) -> GenerationRecord:
        """Embed with the winner, build its generation, check it, and put it into service."""
        from indexer.ingest.ingest import embed_missing
        from indexer.ingest.promotion import put_into_service

        name, encoder_id = decision["winner"], decision["winner_id"]
        state = self.home.catalogue.search_state(self.collection)
        if state.encoder_id == encoder_id:  # killed between taking over and saying so
            return self._active()
        described = self._with_evidence(describe_encoder(self.directory / "models" / folder_name(name)), decision)
        self.say("embed", f"the catalogue with {name} ({encoder_id[:12]})")
        embed_missing(self.home, self.collection, described)
        self.home.amend_card(encoder_id, evaluation=described.card["evaluation"])
        generation = self._built(described)
        self.say("verify", f"generation {generation.number}")
        self._verify(generation)
        self._calibrate(described)
        now = self.home.catalogue.search_state(self.collection).encoder_id
        if now != decision["active"]["encoder_id"]:
            raise MismatchError(
                f"encoder {str(now)[:12]} was put into service meanwhile, the candidates were compared with "
                f"{decision['active']['encoder_id'][:12]}; run `nitamono retrain` again to compare with the new one"
            )
        self.say("activate", f"generation {generation.number}")
        put_into_service(self.home, self.collection, generation)
        remove_old(self.home, self.collection)
        return self._active()

    def _with_evidence(self, described: EncoderDescription, decision: Mapping[str, Any]) -> EncoderDescription:
        """The winner with what it was promoted on in its card; the id does not depend on the card."""
        evaluation = {"set": decision["set"], **decision["candidates"][decision["winner"]]}
        return replace(described, card=amend_card(described.directory, evaluation=evaluation))

    def _built(self, described: EncoderDescription) -> GenerationRecord:
        """The generation of the winner; one that was built before a kill is used if it is whole and shows all."""
        for record in reversed(self.home.catalogue.generations.all(self.collection)):
            waits = record.activated_at is None and record.status != "removed"
            if waits and record.encoder_id == described.encoder_id and self._is_up_to_date(record):
                return record
        remove_unused(self.home, self.collection, described.encoder_id)
        self.say("build", f"an index of {described.dim} numbers a photo")
        return build_generation(self.home, self.collection, EncoderRecord.of(described), activated=False)

    def _is_up_to_date(self, generation: GenerationRecord) -> bool:
        changed = self.home.catalogue.changes.has_unindexed(self.collection_id, generation.watermark)
        return not changed and not verify(self.home, self.collection, generation.number)

    def _verify(self, generation: GenerationRecord) -> None:
        if problems := verify(self.home, self.collection, generation.number):
            raise CorruptError(f"generation {generation.number} does not verify: {problems[0]}")
        if generation.recall_at_10 < self.plan.minimum_recall:
            raise CorruptError(
                f"generation {generation.number} has recall@10 {generation.recall_at_10:.3f} against exact search, "
                f"{self.plan.minimum_recall:g} is asked for; it is not put into service"
            )

    def _calibrate(self, described: EncoderDescription) -> None:
        from indexer.calibrate.calibrate import calibrate
        from indexer.ingest.ingest import embed_missing

        self.say("calibrate", "scores as the probability of the same product")
        embed_missing(self.home, self.collection, described, live=True)  # what was uploaded while the index was built
        try:
            found = calibrate(self.home, self.collection, encoder_id=described.encoder_id)
        except (CalibrationError, MismatchError) as exc:
            self.say("calibrate", f"left out: {exc}")
            return
        self.home.amend_card(described.encoder_id, calibration=found.to_json())

    def _active(self) -> GenerationRecord:
        records = self.home.catalogue.generations.all(self.collection)
        return next(record for record in records if record.status == "active")
