"""`nitamono likelihood`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from training.commands.inputs import Inputs, read_inputs
from training.commands.options import DeviceOption, EncoderOption
from training.console import JsonOption, progress_bar, say

if TYPE_CHECKING:
    from training.encoder import Encoder
    from training.protocols import Likelihood

BATCH_SIZE = 64


def likelihood(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="Image file, folder or manifest.")],
    encoder: EncoderOption,
    device: DeviceOption = "cpu",
    json_output: JsonOption = False,
) -> None:
    """Compute the log-likelihood of images under a model.

    Prints nats and bits per dimension of each image, then their mean. The values are exact for autoregressive families
    and a lower bound for pca, VAEs, VQ families and flows.

    \b
    Example:
      nitamono likelihood photos --encoder ENCODER
    """
    from training.encoder import load_encoder

    loaded = load_encoder(encoder, device)
    found = read_inputs(loaded, source, None)
    document = _document(loaded, found, _log_likelihood(loaded, found))
    kind = "exact" if document["exact"] else "a lower bound"
    lines = [f"{row['item_id']}\t{row['nats']:.2f}\t{row['bits_per_dim']:.4f}" for row in document["images"]]
    lines.append(
        f"mean of {document['count']} images: {document['nats']:.2f} nats, "
        f"{document['bits_per_dim']:.4f} bits per dimension ({kind})"
    )
    say(document, json_output, "\n".join(lines))


def _log_likelihood(encoder: Encoder, found: Inputs) -> Likelihood:
    import torch

    from training.protocols import Likelihood

    nats, exact = [], True
    with progress_bar("evaluating", "img") as progress:
        progress.started(len(found.pixels))
        for start in range(0, len(found.pixels), BATCH_SIZE):
            batch = found.pixels[start : start + BATCH_SIZE]
            result = encoder.log_likelihood(batch)
            exact = result.exact
            nats.append(result.nats)
            progress.advance(len(batch))
    return Likelihood(torch.cat(nats).double(), exact)


def _document(encoder: Encoder, found: Inputs, result: Likelihood) -> dict[str, Any]:
    import math

    bits = -result.nats / (found.pixels[0].numel() * math.log(2.0))
    rows = [
        {"item_id": item_id, "nats": nats, "bits_per_dim": bits_per_dim}
        for item_id, nats, bits_per_dim in zip(found.item_ids, result.nats.tolist(), bits.tolist(), strict=True)
    ]
    return {
        "encoder_id": encoder.encoder_id,
        "exact": result.exact,
        "count": len(rows),
        "nats": float(result.nats.mean()),
        "bits_per_dim": float(bits.mean()),
        "images": rows,
        "rejected": found.rejected,
    }
