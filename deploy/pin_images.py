"""Adds to each image in a `.env` the digest that its registry has under that name now. Run it with `make pin-images`.

A tag may later name another image; a digest cannot.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

IMAGE = re.compile(r"^(?P<variable>\w+_IMAGE)=(?P<image>[^@\s]+)(@\S+)?$", re.MULTILINE)


def pinned(text: str) -> str:
    """The text with a new digest behind each image."""
    return IMAGE.sub(lambda found: f"{found['variable']}={found['image']}@{digest(found['image'])}", text)


def digest(image: str) -> str:
    """Of the image that Docker pulls by this name."""
    ask("pull", "--quiet", image)
    listed = ask("image", "inspect", "--format", '{{join .RepoDigests "\\n"}}', image)
    digests = re.findall(r"@(sha256:[0-9a-f]{64})$", listed, re.MULTILINE)
    if not digests:
        sys.exit(f"error: the registry names no digest of {image}")
    return str(digests[0])


def ask(*words: str) -> str:
    try:
        done = subprocess.run(["docker", *words], capture_output=True, text=True)
    except FileNotFoundError:
        sys.exit("error: docker is not in the PATH; run this where the containers run")
    if done.returncode:
        sys.exit(f"error: docker {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


def main(file: Path) -> None:
    if not file.is_file():
        sys.exit(f"error: {file} does not exist: cp deploy/.env.example deploy/.env")
    text = pinned(file.read_text(encoding="utf-8"))
    part = file.with_name(f"{file.name}.part")
    part.touch(mode=0o600)  # it holds passwords
    part.write_text(text, encoding="utf-8")
    part.replace(file)
    print("\n".join(found[0] for found in IMAGE.finditer(text)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
