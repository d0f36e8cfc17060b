"""`nitamono`: the root command, with the commands of every layer.

Nothing heavy is imported here: `nitamono index` on an unchanged catalogue must end before torch could be imported.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Annotated

import typer

from indexer.commands import app as indexer_cli
from indexer.options import DEFAULT_HOME, HomeOption
from training.commands import app as training_cli
from training.console import JsonOption, fail, say
from training.errors import NitamonoError
from training.extras import extras

app = typer.Typer(
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Visual-similarity search for product catalogues.",
)
training_cli.register(app)
indexer_cli.register(app)
keys = typer.Typer(no_args_is_help=True, help="API keys of the HTTP service.")
app.add_typer(keys, name="keys")


@app.command()
def serve(
    home: HomeOption = DEFAULT_HOME,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8080,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Server processes.")] = 1,
    json_output: JsonOption = False,
) -> None:
    """Serve the HTTP API and the page."""
    from service.serve import serve as run_server
    from service.settings import load_settings

    run_server(load_settings(home=home.absolute()), host=host, port=port, workers=workers)


@keys.command("create")
def keys_create(
    name: Annotated[str, typer.Argument(help="What the key is for.")],
    scope: Annotated[str, typer.Option(help="read, write or admin; each includes the ones before it.")] = "read",
    home: HomeOption = DEFAULT_HOME,
    json_output: JsonOption = False,
) -> None:
    """Make a key; it is shown once and stored only as a hash."""
    from indexer.catalogue.home import Home
    from service.auth import create_key

    with Home.open(home, create=True) as opened:
        key = create_key(opened.catalogue, name, scope)
    say({"name": name, "scope": scope, "key": key}, json_output, key)


@keys.command("list")
def keys_list(home: HomeOption = DEFAULT_HOME, json_output: JsonOption = False) -> None:
    """List keys, with their scopes."""
    from indexer.catalogue.home import Home

    with Home.open(home) as opened:
        records = opened.catalogue.api_keys()
    listed = [
        {"name": r.name, "scope": r.scope, "created_at": r.created_at, "revoked_at": r.revoked_at} for r in records
    ]
    lines = [f"{r.name}\t{r.scope}\t{'revoked' if r.revoked_at else 'valid'}" for r in records]
    say({"keys": listed}, json_output, "\n".join(lines) or "no keys: the API is open")


@keys.command("revoke")
def keys_revoke(
    name: Annotated[str, typer.Argument(help="The key's name.")],
    home: HomeOption = DEFAULT_HOME,
    json_output: JsonOption = False,
) -> None:
    """Revoke a key at once."""
    from indexer.catalogue.home import Home

    with Home.open(home) as opened:
        opened.catalogue.revoke_api_key(name)
    say({"revoked": name}, json_output, f"revoked {name}")


def _end_at_once(number: int, frame: object) -> None:
    """Ctrl+C: a kill at any moment loses nothing, and an orderly end could wait for processes that were hit as well."""
    os.write(sys.stderr.fileno(), b"\nnitamono: interrupted; what was stored is safe; run the same command again\n")
    if reader := sys.modules.get("training.data.reader"):
        reader.hold_starts()
    os._exit(130)


def main() -> None:
    """Run a command: 0 on success, 1 with one line on stderr for our errors, 2 for usage."""
    signal.signal(signal.SIGINT, _end_at_once)
    try:
        with extras("this command"):
            app(prog_name="nitamono", standalone_mode=True)
    except NitamonoError as exc:
        fail(str(exc))
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
    except OSError as exc:  # a full or failing disk, a folder that may not be written
        fail(f"{exc.filename or 'input or output'}: {exc.strerror or exc}")


if __name__ == "__main__":
    main()
