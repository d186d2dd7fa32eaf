"""`graft serve`: a model over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import HERE, SETTINGS, USE, Project, examples

app = typer.Typer(**SETTINGS)

MB = 2**20


@app.command(
    rich_help_panel=USE,
    epilog=examples(
        {
            "graft serve": "the champion on port 8000, for this machine",
            "graft serve --model package --port 9000": "models/package on port 9000",
            "graft serve --host 0.0.0.0 --key-file serve.key": "for others, who need the key",
            "graft serve --log answered --keep unsure --keep random:0.01": "keep what was answered",
        }
    ),
)
def serve(
    model: Annotated[
        str | None,
        typer.Option(
            help="An alias, a version, `package` or the folder of a package; the default is the champion.",
            show_default=False,
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="The address to listen on; 0.0.0.0 for all of this machine.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0 for a free one.")] = 8000,
    workers: Annotated[int, typer.Option(min=1, max=256, help="Processes that share the port.")] = 1,
    key_file: Annotated[
        Path | None,
        typer.Option(help="A file with the key that clients need; or set GRAFT_SERVE_KEY.", show_default=False),
    ] = None,
    no_key: Annotated[bool, typer.Option("--no-key", help="Serve others without a key.")] = False,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(help="A host name under which clients may ask; may be repeated.", show_default=False),
    ] = None,
    max_bytes: Annotated[int, typer.Option(min=1024, help="Bytes of one image.")] = 32 * MB,
    max_request_bytes: Annotated[int, typer.Option(min=1024, help="Bytes of one request.")] = 64 * MB,
    max_images: Annotated[int, typer.Option(min=1, help="Images in one request.")] = 64,
    queue: Annotated[int, typer.Option(min=1, help="Images that may wait; more are answered 503.")] = 256,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds for an answer.")] = 30.0,
    poll: Annotated[
        float, typer.Option(min=0, help="Seconds between two looks at the alias; 0 keeps the model.")
    ] = 30.0,
    drain: Annotated[float, typer.Option(min=1, help="Seconds for accepted requests after SIGTERM.")] = 30.0,
    keep_alive: Annotated[int, typer.Option(min=1, help="Seconds for which an idle connection is kept.")] = 15,
    log: Annotated[Path | None, typer.Option(help="Keep what was answered in this folder.", show_default=False)] = None,
    log_max_mb: Annotated[int, typer.Option(min=1, help="Megabytes of this folder; the oldest go first.")] = 1000,
    keep: Annotated[
        list[str] | None,
        typer.Option(
            help="Pictures to keep with --log: unsure, random:SHARE or none; may be repeated.", show_default=False
        ),
    ] = None,
    access_log: Annotated[bool, typer.Option("--access-log", help="Write a line for each request.")] = False,
    project: Project = HERE,
) -> None:
    """Answer over HTTP what is on a picture, and show a page to drop pictures on.

    The server follows its alias: after a promotion it loads the new version, tries it, and swaps without losing a
    request. It opens no path and no URL that a client sends.
    """
    from ..serving.server.settings import Settings
    from ..serving.server.start import start

    settings = Settings(
        model=model,
        project=str(project),
        host=host,
        port=port,
        workers=workers,
        max_bytes=max_bytes,
        max_request_bytes=max_request_bytes,
        max_images=max_images,
        queue=queue,
        timeout=timeout,
        poll=poll,
        drain=drain,
        keep_alive=keep_alive,
        access_log=access_log,
        log=str(log) if log else "",
        log_max_mb=log_max_mb,
    )
    start(settings, key_file, allowed_host or [], keep or [], no_key=no_key)
