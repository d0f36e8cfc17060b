"""`nitamono serve`."""

from __future__ import annotations

from typing import Annotated

import typer

from indexer.options import DEFAULT_HOME, HomeOption
from training.console import JsonOption


def serve(
    home: HomeOption = DEFAULT_HOME,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 chooses a free port.")] = 8080,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Number of server processes.")] = 1,
    allowed_hosts: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="Comma-separated host names to answer to, such as shop.example; * for any. Default: "
            "NITAMONO_ALLOWED_HOSTS. IP addresses, localhost and the name of --host are always allowed.",
        ),
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Serve the HTTP API and the web page.

    Further settings are read from environment variables; docs/reference.md lists them.

    \b
    Examples:
      nitamono serve
      nitamono serve --host 0.0.0.0 --port 80 --workers 4
    """
    from service.serve import serve as run_server
    from service.settings import load_settings

    given = {} if allowed_hosts is None else {"allowed_hosts": allowed_hosts}
    run_server(load_settings(home=home.absolute(), **given), host=host, port=port, workers=workers)
