"""The commands about audit packets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from graft.tasks.common.core.paths import find_root

from .options import HERE, OPERATE, SETTINGS, AsJson, Project, examples
from .output import print_json

app = typer.Typer(**SETTINGS)


@app.command(
    rich_help_panel=OPERATE,
    epilog=examples(
        {
            "graft packet champion": "into packets/NAME-VERSION",
            "graft packet 3 --zip --sign key.pem": "signed, and as a zip",
            "graft packet champion --output /tmp/audit": "elsewhere",
        }
    ),
)
def packet(
    version: Annotated[
        str, typer.Argument(metavar="VERSION", help="NAME@alias, NAME/3, an alias or a number.", show_default=False)
    ],
    output: Annotated[
        Path | None,
        typer.Option(help="The folder to write; packets/NAME-VERSION in the project if not given.", show_default=False),
    ] = None,
    zipped: Annotated[bool, typer.Option("--zip", help="Also write the packet as a zip beside the folder.")] = False,
    sign: Annotated[
        Path | None,
        typer.Option(help="Sign the packet with this private key (PEM: Ed25519 or ECDSA).", show_default=False),
    ] = None,
    project: Project = HERE,
    as_json: AsJson = False,
) -> None:
    """Write the audit packet of a registered version.

    It has a model card, a bill of materials, lineage, provenance, the data set's description, the report, the gate's
    table, the ledger and the labels; it stands alone, and is also logged to MLflow.
    """
    from ..packet.make import make_packet
    from ..packet.text import print_made

    made = make_packet(find_root(project), version, output, zipped=zipped, key=sign)
    print_json(made) if as_json else print_made(made)


@app.command(
    rich_help_panel=OPERATE,
    epilog=examples(
        {
            "graft verify packets/graft-3": "its files, and who signed them",
            "graft verify graft-3.zip --key key.pub": "whether this key has signed it",
            "graft verify graft-3.zip --rebuild": "whether the model can be made again",
        }
    ),
)
def verify(
    packet: Annotated[Path, typer.Argument(metavar="PACKET", help="The folder or the zip.", show_default=False)],
    key: Annotated[
        Path | None, typer.Option(help="The public key (PEM) that must have signed it.", show_default=False)
    ] = None,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Also rebuild the model in the project, and compare it.")
    ] = False,
    project: Project = HERE,
    as_json: AsJson = False,
) -> None:
    """Check an audit packet: its files, its signature and its model.

    The exit code is 0 if all is as it was written and 3 if not.
    """
    from ..packet.text import print_verified
    from ..packet.verify import verify as check

    found = check(packet, project, trusted=key, again=rebuild)
    print_json(found) if as_json else print_verified(found)
    if not found["ok"]:
        raise SystemExit(3)
