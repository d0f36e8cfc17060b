"""`nitamono retrain`, with `show` and `abandon`."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from indexer.errors import InvalidRequestError
from indexer.options import DEFAULT_HOME, CollectionOption, HomeOption
from training.commands.group import command_group
from training.console import JsonOption, note, say

if TYPE_CHECKING:
    from indexer.catalogue.records import RetrainRecord
    from indexer.retrain.outlook import Outlook

retraining = command_group(invoke_without_command=True, no_args_is_help=False)


@retraining.callback()
def retrain(
    context: typer.Context,
    recipes: Annotated[
        str | None, typer.Option(metavar="A,B,C", help="Comma-separated recipes to train; omit to resume.")
    ] = None,
    encoders: Annotated[
        str | None,
        typer.Option(metavar="REF,REF", help="Comma-separated encoders to evaluate as candidates without training."),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a setting of all recipes: key=value; repeatable."),
    ] = None,
    backgrounds: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of background photos for the evaluation; omit to draw backgrounds."),
    ] = None,
    held_out: Annotated[float, typer.Option(help="Fraction of the items held out for the evaluation.")] = 0.2,
    items: Annotated[int, typer.Option(min=20, help="Maximum number of held-out items to evaluate.")] = 500,
    confidence: Annotated[
        float,
        typer.Option(
            help="1 minus the probability of any false promotion, over all retrainings on the same held-out items."
        ),
    ] = 0.95,
    margin: Annotated[float, typer.Option(help="Loss of clean MAP@R that the gate must rule out.")] = 0.08,
    min_recall: Annotated[float, typer.Option(min=0, max=1, help="recall@10 that the new index must reach.")] = 0.95,
    device: Annotated[str, typer.Option(help="Device to train on: auto, cpu or gpu.")] = "auto",
    precision: Annotated[str, typer.Option(help="Numeric precision: 32 or bf16-mixed.")] = "32",
    seed: Annotated[
        int, typer.Option(min=0, max=2**32 - 1, help="Random seed of the evaluation; use --set seed=N for training.")
    ] = 0,
    nice: Annotated[
        int, typer.Option(min=0, max=19, help="Niceness, 0 to 19; programs with a lower niceness run first.")
    ] = 19,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and exit.")] = False,
    collection: CollectionOption = "default",
    home: HomeOption = DEFAULT_HOME,
    json_output: JsonOption = False,
) -> None:
    """Train on a collection and promote a better encoder.

    Trains the recipes on the collection's photos and evaluates them on held-out items, clean and on other backgrounds.
    If the best candidate passes the gate against the active encoder, its index is built, verified and activated. Omit
    --recipes and --encoders to resume an interrupted retraining.

    \b
    Examples:
      nitamono retrain --recipes vae,robust-vae --dry-run
      nitamono retrain --recipes vae,robust-vae --collection shop
      nitamono retrain --collection shop
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
                raise InvalidRequestError(
                    "recipes", "give --recipes or --encoders; `nitamono retrain show` shows a plan already started"
                )
            found = outlook(opened, collection, plan)
            say(asdict(found), json_output, _plan_text(found))
            return
        os.nice(nice)
        record = run(opened, collection, plan, say=lambda step, text: note(f"{step}: {text}"))
    say(asdict(record), json_output, text(record))


def _names(given: str | None) -> tuple[str, ...]:
    return tuple(name.strip() for name in (given or "").split(",") if name.strip())


def _absolute(ref: str) -> str:
    """Make a directory absolute, so that a resumed run finds it from any working directory."""
    return str(Path(ref).absolute()) if (Path(ref) / "encoder.json").is_file() else ref


@retraining.command("show")
def retrain_show(
    number: Annotated[
        int | None, typer.Argument(metavar="NUMBER", help="Number of the retraining; omit for the last one.")
    ] = None,
    collection: CollectionOption = "default",
    home: HomeOption = DEFAULT_HOME,
    json_output: JsonOption = False,
) -> None:
    """Show the plan, figures and decision of a retraining.

    \b
    Example:
      nitamono retrain show --collection shop
    """
    from indexer.catalogue.home import Home
    from indexer.retrain.job import find_retrain

    with Home.open(home) as opened:
        record = find_retrain(opened, collection, number)
    say(asdict(record), json_output, text(record))


@retraining.command("abandon")
def retrain_abandon(
    collection: CollectionOption = "default", home: HomeOption = DEFAULT_HOME, json_output: JsonOption = False
) -> None:
    """Abandon an unfinished retraining and delete its models.

    \b
    Example:
      nitamono retrain abandon --collection shop
    """
    from indexer.catalogue.home import Home
    from indexer.retrain.run import abandon

    with Home.open(home) as opened:
        record = abandon(opened, collection)
    say(asdict(record), json_output, f"retraining {record.number} of {collection!r} was abandoned")


def text(record: RetrainRecord) -> str:
    """The outcome of a retraining, and the figures of each candidate next to the active encoder, as lines of text."""
    from indexer.retrain.budget import describe_budget
    from indexer.retrain.decision import Decision

    outcome = {
        "running": "unfinished; run `nitamono retrain` to resume",
        "promoted": f"promoted, generation {record.generation}",
        "refused": "refused; the active encoder stays",
        "abandoned": "abandoned",
    }
    plan = record.plan
    lines = [
        f"retraining {record.number} of {record.collection!r}: {outcome[record.status]}",
        f"candidates {', '.join([*plan['recipes'], *plan.get('encoders', ())])}; "
        f"{' '.join(plan['overrides']) or 'no overrides'}; "
        f"{plan['held_out']:.0%} of items held out; confidence {plan['gate']['confidence']:g}, margin "
        f"{plan['gate']['margin']:g}",
    ]
    decision = Decision.of(record)
    if decision is None:
        return "\n".join(lines)
    of = decision.set
    if decision.budget is not None:
        lines.append(describe_budget(decision.budget))
    views = "views of single photos (fewer than 20 items have two photos with usable masks, so clean figures are easy)"
    relevant = "several photos of an item" if of.truth == "photos" else views
    lines.append(
        f"evaluated on {of.items} held-out items and {len(of.backgrounds)} backgrounds; relevance from "
        f"{relevant}; MAP@R with 95 % confidence intervals:"
    )
    if of.left_out:
        lines.append("left out: " + ", ".join(f"{count} x {reason}" for reason, count in of.left_out.items()))
    rows = {"(active encoder)": decision.active}
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
        f"{found.collection!r}, active encoder {found.active_encoder[:12]}",
        f"train on {found.training_images} photos of {found.training_items} items, evaluate on "
        f"{found.held_out_items} held-out items",
        *(f"  candidate {name}: {what}" for name, what in {**found.recipes, **found.encoders}.items()),
        f"steps: {', '.join(found.steps)}",
        describe_budget(found.budget),
        *describe_prospect(found.detectable, found.plan.gate.margin),
    ]
    return "\n".join(lines)
