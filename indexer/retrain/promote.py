"""Promoting the winner of a retraining: embed the catalogue, build and verify a generation, calibrate, activate."""

from __future__ import annotations

from dataclasses import replace

from indexer.catalogue.records import EncoderRecord, GenerationRecord
from indexer.errors import CalibrationError, CorruptError, MismatchError
from indexer.generations.build import build_generation
from indexer.generations.store import remove_old, remove_unused, verify
from indexer.retrain.candidates import candidate_directory
from indexer.retrain.decision import Decision
from indexer.retrain.job import RetrainJob
from training.card import amend_card
from training.reference import EncoderDescription, describe_encoder


def promote(job: RetrainJob, decision: Decision) -> GenerationRecord:
    """Activate a verified generation of the decision's winner; the caller holds the lock of the collection.

    Raises:
        CorruptError: the generation fails verification, or its recall is below the plan's minimum.
        MismatchError: another encoder was activated since the decision.
        ValueError: the decision has no winner.
    """
    from indexer.ingest.ingest import embed_missing
    from indexer.ingest.promotion import put_into_service

    if decision.winner is None:
        raise ValueError("the decision has no winner; nothing can be promoted")
    if job.home.catalogue.search_state(job.collection).encoder_id == decision.winner_id:
        return job.active_generation  # the process was killed after the activation, before it was recorded
    described = _with_evidence(job, decision.winner, decision)
    job.say("embed", f"the catalogue with {decision.winner} ({described.encoder_id[:12]})")
    embed_missing(job.home, job.collection, described)
    job.home.amend_card(described.encoder_id, evaluation=described.card["evaluation"])
    generation = _built(job, described)
    job.say("verify", f"generation {generation.number}")
    _verify(job, generation)
    _calibrate(job, described)
    _check_active(job, decision)
    job.say("activate", f"generation {generation.number}")
    put_into_service(job.home, job.collection, generation)
    remove_old(job.home, job.collection)
    return job.active_generation


def _with_evidence(job: RetrainJob, winner: str, decision: Decision) -> EncoderDescription:
    """The winner, with the evidence of its promotion in its card; the encoder id does not depend on the card."""
    described = describe_encoder(candidate_directory(job, winner))
    document = decision.to_json()
    evaluation = {"set": document["set"], **document["candidates"][winner]}
    return replace(described, card=amend_card(described.directory, evaluation=evaluation))


def _built(job: RetrainJob, described: EncoderDescription) -> GenerationRecord:
    """A generation of the winner; one that an interrupted run has built is used if it is intact and up to date."""
    for record in reversed(job.home.catalogue.generations.all(job.collection)):
        is_waiting = record.activated_at is None and record.status != "removed"
        if is_waiting and record.encoder_id == described.encoder_id and _is_up_to_date(job, record):
            return record
    remove_unused(job.home, job.collection, described.encoder_id)
    job.say("build", f"an index of {described.dim}-dimensional vectors")
    return build_generation(job.home, job.collection, EncoderRecord.of(described), activated=False)


def _is_up_to_date(job: RetrainJob, generation: GenerationRecord) -> bool:
    changed = job.home.catalogue.changes.has_unindexed(job.collection_id, generation.watermark)
    return not changed and not verify(job.home, job.collection, generation.number)


def _verify(job: RetrainJob, generation: GenerationRecord) -> None:
    if problems := verify(job.home, job.collection, generation.number):
        raise CorruptError(f"generation {generation.number} fails verification: {problems[0]}")
    if generation.recall_at_10 < job.plan.minimum_recall:
        raise CorruptError(
            f"generation {generation.number} has recall@10 {generation.recall_at_10:.3f} against exact search, but "
            f"{job.plan.minimum_recall:g} is required; it is not activated"
        )


def _calibrate(job: RetrainJob, described: EncoderDescription) -> None:
    from indexer.calibrate.calibrate import calibrate
    from indexer.ingest.ingest import embed_missing

    job.say("calibrate", "map scores to the probability of the same product")
    embed_missing(job.home, job.collection, described, live=True)  # photos uploaded while the index was built
    try:
        found = calibrate(job.home, job.collection, encoder_id=described.encoder_id)
    except (CalibrationError, MismatchError) as exc:
        job.say("calibrate", f"skipped: {exc}")
        return
    job.home.amend_card(described.encoder_id, calibration=found.to_json())


def _check_active(job: RetrainJob, decision: Decision) -> None:
    now = job.home.catalogue.search_state(job.collection).encoder_id
    if now != decision.active.encoder_id:
        raise MismatchError(
            f"encoder {str(now)[:12]} was activated during the retraining, but the candidates were compared with "
            f"{decision.active.encoder_id[:12]}; run `nitamono retrain` again to compare them with the new one"
        )
