"""What `graft init` did, and what to do next, in words."""

from __future__ import annotations

import textwrap
from pathlib import Path

from .init import REMOTE, Begun


def print_begun(begun: Begun) -> None:
    print(f"A Graft project in {begun.root}")
    for verb, names in (("created", begun.created), ("extended", begun.extended), ("kept", begun.kept)):
        if names:
            print(textwrap.fill(", ".join(names), 100, initial_indent=f"  {verb:<9}", subsequent_indent=" " * 11))
    for name, why in begun.left_out.items():
        print(f"  without  {name}: {why}")
    if begun.kept:
        print("What is kept differs from the file of a new project. Nothing was replaced.")
    print()
    print(*_remotes(begun), sep="\n")
    if not begun.created:
        print("\nNothing was missing.")
        return
    print("\nNext:")
    steps = [] if begun.root == Path.cwd() else [(f"cd {begun.root}", "")]
    steps += [
        ("graft import PATH", "your pictures, in one folder per class; or `graft sample`"),
        ("graft repro", "trains"),
        ("graft summary", "how good it is; report/index.html has all of it"),
        ('git add . && git commit -m "First model"', "DVC keeps images and models, git the rest"),
    ]
    for command, meaning in steps:
        print(f"  {command:<42}{meaning}".rstrip())


def _remotes(begun: Begun) -> list[str]:
    lines = [f"DVC remote: {begun.dvc_remote} (`dvc push` sends images and models there)"]
    if not begun.dvc_remote:
        lines = [
            "DVC remote: none, so images and models are on this machine only. To add one (a folder, s3://, gs://, ssh://):",
            f"  dvc remote add --default {REMOTE} ADDRESS",
        ]
    if begun.git_remotes:
        return [*lines, f"git remote: {', '.join(begun.git_remotes)}"]
    return [
        *lines,
        "git remote: none, so scheduled runs keep their results on a local branch. To add one of your own:",
        "  git remote add origin ADDRESS",
    ]
