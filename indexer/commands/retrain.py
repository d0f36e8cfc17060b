"""`nitamono retrain`: train, judge and promote; `show` what was decided, `abandon` what is unfinished."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from indexer.errors import InvalidRequestError
from indexer.options import DEFAULT_HOME, CollectionOption, HomeOption
from training.console import JsonOption, note, say

if TYPE_CHECKING:
    from indexer.catalogue.records import RetrainRecord
    from indexer.retrain.outlook import Outlook

retraining = typer.Typer(
    invoke_without_command=True, no_args_is_help=False, help="Train on the catalogue, and promote what is better."
)


@retraining.callback()
def retrain(
    context: typer.Context,
    recipes: Annotated[str | None, typer.Option(help="Comma-separated recipes to train; omit to resume.")] = None,
    encoders: Annotated[str | None, typer.Option(help="Comma-separated encoders to judge as they are.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Override of every recipe: key=value.")] = None,
    backgrounds: Annotated[Path | None, typer.Option(help="Folder of photos that candidates are judged on.")] = None,
    held_out: Annotated[float, typer.Option(help="Share of the items that candidates are judged on.")] = 0.2,
    items: Annotated[int, typer.Option(min=20, help="Most held-out items that are measured.")] = 500,
    confidence: Annotated[float, typer.Option(help="1 - chance of a promotion by luck, over all retrainings.")] = 0.95,
    margin: Annotated[float, typer.Option(help="Loss of clean MAP@R that must be ruled out.")] = 0.08,
    min_recall: Annotated[float, typer.Option(min=0, max=1, help="recall@10 the new index must reach.")] = 0.95,
    device: Annotated[str, typer.Option(help="Where to train: auto, cpu or gpu.")] = "auto",
    precision: Annotated[str, typer.Option(help="32 or bf16-mixed.")] = "32",
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of the evaluation; recipes have --set seed=N.")] = 0,
    nice: Annotated[int, typer.Option(min=0, max=19, help="How far to give way to other programs.")] = 19,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and end.")] = False,
    collection: CollectionOption = "default",
    home: HomeOption = DEFAULT_HOME,
    json_output: JsonOption = False,
) -> None:
    """Train on a collection's own photos, and put the best encoder into service if the numbers say so.

    Killed at any moment, the same command (or none of its options) goes on.
    """
    if context.invoked_subcommand is not None:
        return
    from indexer.catalogue.home import Home
    from indexer.retrain.gate import GateRule
    from indexer.retrain.outlook import outlook
    from indexer.retrain.plan import RetrainPlan
    from indexer.retrain.run import retrain as run

    try:
        plan = None if recipes is None and encoders is None else RetrainPlan(
            _names(recipes), tuple(set_ or ()),
            GateRule(confidence, margin), str(backgrounds.absolute()) if backgrounds else None, held_out, items,
            minimum_recall=min_recall, device=device, precision=precision, seed=seed,
            encoders=tuple(_absolute(ref) for ref in _names(encoders)),
        )  # fmt: skip
    except ValueError as exc:
        raise InvalidRequestError("recipes", str(exc)) from exc
    with Home.open(home) as opened:
        if dry_run:
            if plan is None:
                raise InvalidRequestError("recipes", "give --recipes or --encoders; `retrain show` has what is begun")
            found = outlook(opened, collection, plan)
            say(asdict(found), json_output, _plan_text(found))
            return
        os.nice(nice)
        record = run(opened, collection, plan, say=lambda step, text: note(f"{step}: {text}"))
    say(asdict(record), json_output, text(record))


def _names(given: str | None) -> tuple[str, ...]:
    return tuple(name.strip() for name in (given or "").split(",") if name.strip())


def _absolute(ref: str) -> str:
    """A directory by its whole path, so that the command goes on from wherever it is started again."""
    return str(Path(ref).absolute()) if (Path(ref) / "encoder.json").is_file() else ref


@retraining.command("show")
def retrain_show(
    number: Annotated[int | None, typer.Argument(help="Which one; the last by default.")] = None,
    collection: CollectionOption = "default",
    home: HomeOption = DEFAULT_HOME,
    json_output: JsonOption = False,
) -> None:
    """Show a retraining: its plan, the figures of every candidate, and what was decided why."""
    from indexer.catalogue.home import Home
    from indexer.retrain.job import find_retrain

    with Home.open(home) as opened:
        record = find_retrain(opened, collection, number)
    say(asdict(record), json_output, text(record))


@retraining.command("abandon")
def retrain_abandon(
    collection: CollectionOption = "default", home: HomeOption = DEFAULT_HOME, json_output: JsonOption = False
) -> None:
    """Drop the unfinished retraining of a collection, with what it has trained."""
    from indexer.catalogue.home import Home
    from indexer.retrain.run import abandon

    with Home.open(home) as opened:
        record = abandon(opened, collection)
    say(asdict(record), json_output, f"retraining {record.number} of {collection!r} is abandoned")


def text(record: RetrainRecord) -> str:
    """A retraining in lines: what became of it, and each candidate beside the active encoder."""
    from indexer.retrain.budget import describe_budget
    from indexer.retrain.decision import Decision

    ended = {
        "running": "unfinished; `nitamono retrain` goes on",
        "promoted": f"promoted, generation {record.generation}",
        "refused": "refused: the encoder in service stays",
        "abandoned": "abandoned",
    }
    plan = record.plan
    lines = [
        f"retraining {record.number} of {record.collection!r}: {ended[record.status]}",
        f"candidates {', '.join([*plan['recipes'], *plan.get('encoders', ())])}; "
        f"{' '.join(plan['overrides']) or 'no overrides'}; "
        f"{plan['held_out']:.0%} of the items held out; confidence {plan['gate']['confidence']:g}, margin "
        f"{plan['gate']['margin']:g}",
    ]
    decision = Decision.of(record)
    if decision is None:
        return "\n".join(lines)
    of = decision.set
    if decision.budget is not None:
        lines.append(describe_budget(decision.budget))
    few = "views of single photos (fewer than 20 of them have two photos with usable masks, so clean figures are easy)"
    told = "several photos of one item" if of.truth == "photos" else few
    lines.append(
        f"judged on {of.items} held-out items and {len(of.backgrounds)} backgrounds, the same item told "
        f"by {told}; MAP@R with 95 % intervals:"
    )
    if of.left_out:
        lines.append("left out: " + ", ".join(f"{count} x {reason}" for reason, count in of.left_out.items()))
    rows = {"(in service then)": decision.active}
    rows |= {name: candidate.figures for name, candidate in decision.candidates.items()}
    width = max(map(len, rows))
    for name, row in rows.items():
        cells = (f"{part} {interval.to_text()}" for part, interval in row.swap["map@r"]._asdict().items())
        mark = " <- promoted" if name == decision.winner and record.status == "promoted" else ""
        lines.append(f"  {name.ljust(width)}  {row.encoder_id[:12]}  {'  '.join(cells)}{mark}")
    for name, candidate in decision.candidates.items():
        lines += [f"  {name}: {reason}" for reason in candidate.verdict.reasons]
    return "\n".join(lines)


def _plan_text(found: Outlook) -> str:
    from indexer.retrain.budget import describe_budget
    from indexer.retrain.power import describe_prospect

    lines = [
        f"{found.collection!r}, encoder {found.active_encoder[:12]} in service",
        f"train on {found.training_images} photos of {found.training_items} items, judge on "
        f"{found.held_out_items} others",
        *(f"  candidate {name}: {what}" for name, what in {**found.recipes, **found.encoders}.items()),
        f"steps: {', '.join(found.steps)}",
        describe_budget(found.budget),
        *describe_prospect(found.detectable, found.plan.gate.margin),
    ]
    return "\n".join(lines)
