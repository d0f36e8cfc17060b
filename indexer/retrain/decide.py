"""Deciding a retraining: measure all encoders, spend the error budget, apply the gate, store the decision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from indexer.retrain.budget import budget
from indexer.retrain.decision import CandidateEvidence, Decision
from indexer.retrain.evidence import collect_evidence
from indexer.retrain.gate import best_promoted, give_verdicts
from indexer.retrain.job import RetrainJob
from indexer.retrain.photos import gate_items
from training.data.sources import SourceImage
from training.reference import EncoderDescription


def decide(job: RetrainJob, candidates: Mapping[str, EncoderDescription], held_out: Sequence[SourceImage]) -> Decision:
    """The decision of a retraining; a stored one holds while the active encoder is the one it was made against."""
    active = str(job.home.catalogue.search_state(job.collection).encoder_id)
    known = Decision.of(job.record)
    if known is not None and active in (known.active.encoder_id, known.winner_id):
        return known
    decision = _new_decision(job, active, candidates, held_out)
    job.home.catalogue.retrains.decide(job.collection_id, job.number, decision.to_json())
    return decision


def _new_decision(
    job: RetrainJob, active: str, candidates: Mapping[str, EncoderDescription], held_out: Sequence[SourceImage]
) -> Decision:
    directories = {active: job.home.encoder(active).directory}
    directories |= {described.encoder_id: described.directory for described in candidates.values()}
    evidence = collect_evidence(job, directories, held_out)
    of_candidates = {name: evidence[described.encoder_id] for name, described in candidates.items()}
    items = gate_items(held_out, job.plan)
    spend = budget(job.plan.gate, items, job.home.catalogue.retrains.all(job.collection), number=job.number)
    job.say("gate", f"{len(candidates)} candidates against encoder {active[:12]} at level {spend.level:.2g}")
    by_product = {name: each.by_product for name, each in of_candidates.items()}
    verdicts = give_verdicts(job.plan.gate, evidence[active].by_product, by_product, level=spend.level)
    winner = best_promoted(verdicts, by_product)
    return Decision(
        rule=job.plan.gate,
        set=evidence[active].set,
        active=evidence[active].figures,
        candidates={name: CandidateEvidence(of_candidates[name].figures, verdicts[name]) for name in candidates},
        winner=winner,
        winner_id=candidates[winner].encoder_id if winner else None,
        budget=spend,
        held_out_items=items,
    )
