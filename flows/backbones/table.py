"""`graft models`: the listed networks in groups, any timm network, and which weights are on this machine."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from graft.tasks.common import backbones
from graft.tasks.common.backbones.catalogue import CATALOGUE, Entry, entry_of, short_names
from graft.tasks.common.backbones.licences import is_non_commercial, stated
from graft.tasks.common.backbones.modern import LITE, MODERN, Group, Modern, modern_of
from graft.tasks.common.backbones.weights import PACKAGES, at_hand
from graft.tasks.common.core.errors import ParamsError, WeightsError, nearest
from graft.tasks.common.core.files import json_digest, read_json, sha256, write_shared_json

from ..runtime.locations import Place
from . import throughput

Row = dict[str, Any]
"""One network for a table or JSON; a value that is not known is None."""

FACTS = ("parameters", "body_parameters", "features", "labels", "input", "trained")
"""What a row takes from timm as it is, see `anatomy.facts_of`."""


def rows_of(names: Sequence[str], place: Place) -> list[Row]:
    """A row for each name from Keras or timm; without names, for all networks of `listed`.

    Raises:
        ParamsError: neither Keras nor timm knows a name.
    """
    entries = [(entry_of(name), timm_name_of(name)) for name in names] or listed(place)
    facts = _remembered("facts_of", [timm for _, timm in entries], place.cache)
    speeds = throughput.measured(place.cache)
    return [_row(entry, timm, facts[timm], speeds.get(timm), place) for entry, timm in entries]


def listed(place: Place) -> list[tuple[Entry | None, str]]:
    """The networks of the Keras table, the modern ones, then others whose weights an installed package contains; with
    timm's names."""
    packaged = [(entry_of(name), name) for name in PACKAGES if at_hand(name, place.weights)]
    modern = [(entry_of(entry.timm), entry.timm) for entry in MODERN]
    return [*((entry, entry.pretrained) for entry in CATALOGUE), *modern, *packaged]


def timm_name_of(name: str) -> str:
    """timm's name; for a listed name, with the tag of the weights for frozen features.

    Raises:
        ParamsError: neither Keras nor timm knows the name.
    """
    entry = entry_of(name)
    if entry is not None and name.lower() == entry.name.lower():
        return entry.pretrained
    if entry is not None and name in (entry.timm, entry.pretrained, f"{entry.timm}.{entry.tuned}"):
        return name
    modern = modern_of(name)
    if modern is not None:
        return modern.timm
    import timm

    from graft.tasks.common.backbones.network import is_known

    if is_known(name):
        return name
    architecture = name.partition(".")[0]
    tags = timm.list_pretrained(f"{architecture}.*") if timm.is_model(architecture) else []
    known = tags or [*short_names(), *timm.list_models()]
    raise ParamsError(
        "no such network",
        got=name,
        allowed=", ".join(tags) or "a name of a listed network (`graft models`) or of timm (`graft models WORD --all`)",
        todo=nearest(name, known) or f"search for a part of it: graft models {name[:4]} --all",
    )


def _row(entry: Entry | None, timm: str, facts: Row | None, speed: Row | None, place: Place) -> Row:
    found, modern = at_hand(timm, place.weights), modern_of(timm)
    tag = (facts or {}).get("tag") or timm.partition(".")[2]
    tuned = _tuned(entry, modern)
    here = _published(entry, modern, f"{timm.partition('.')[0]}.{tag}")
    there = _published(entry, modern, tuned or "")
    licence = (facts or {}).get("licence")
    return {
        "group": _group(entry, modern),
        "name": entry.name if entry else modern.name if modern else None,
        "timm": timm,
        "tag": tag or None,
        "tuned": tuned,
        "megabytes": entry.megabytes if entry else None,
        "top1": entry.top1 if entry else None,
        "top5": entry.top5 if entry else None,
        "parameters_millions": entry.parameters if entry else None,
        "depth": entry.depth if entry else None,
        "timm_top1": here[0],
        "timm_top5": here[1],
        "tuned_top1": there[0],
        "tuned_top5": there[1],
        **{key: (facts or {}).get(key) for key in FACTS},
        "licence": licence,
        "non_commercial": is_non_commercial(licence) if licence else None,
        "pretrained_on": modern.data if modern else None,
        "when": modern.when if modern else None,
        "output": modern.output if modern else None,
        "recommended_size": modern.image_size if modern else None,
        "at_hand": f"{found.kind}: {found.where}" if found else None,
        "images_per_second": speed["openvino"] if speed else None,
        "precision": speed["precision"] if speed else None,
        "torch_images_per_second": speed["torch"] if speed else None,
    }


def _group(entry: Entry | None, modern: Modern | None) -> Group:
    if entry is not None:
        return "Keras table"
    if modern is None:
        return "other networks"
    return "installed packages" if modern in LITE else "modern networks"


def _tuned(entry: Entry | None, modern: Modern | None) -> str | None:
    """timm's name of the weights to start fine-tuning from."""
    if entry is not None:
        return f"{entry.timm}.{entry.tuned}" if entry.tuned else None
    return (modern.tuned or modern.timm) if modern is not None else None


def _published(entry: Entry | None, modern: Modern | None, timm: str) -> tuple[float | None, float | None]:
    """(top-1, top-5) of weights, by timm's name with the tag, as timm publishes them."""
    if entry is not None:
        return entry.published.get(timm.partition(".")[2], (None, None))
    return modern.published.get(timm, (None, None)) if modern is not None else (None, None)


def _remembered(what: Literal["facts_of", "dissect"], names: Iterable[str], cache: Path) -> dict[str, Row | None]:
    """What a function of `anatomy` returns for networks, None for those that are not in timm. Because importing timm
    takes seconds, it is kept until timm or our own code changes."""
    memory, key = cache / "models" / f"{what}.json", {"timm": version("timm"), "code": _code()}
    try:
        kept = read_json(memory)
    except (FileNotFoundError, ValueError):  # none yet, or cut short by a crash
        kept = {}
    known: dict[str, Row | None] = kept["networks"] if kept.get("key") == key else {}
    missing = [name for name in names if name not in known]
    if missing:
        from graft.tasks.common.backbones.network import is_known

        from . import anatomy

        known |= {name: getattr(anatomy, what)(name) if is_known(name) else None for name in missing}
        write_shared_json(memory, {"key": key, "networks": known})
    return known


def _code() -> str:
    """A hash of the modules that build and examine networks."""
    return json_digest({file.name: sha256(file) for file in Path(backbones.__path__[0]).glob("*.py")})


def measure(names: Sequence[str], place: Place) -> None:
    """Measures networks by their names; without names those of `listed` whose weights are on this machine.

    Raises:
        ParamsError: neither Keras nor timm knows a name.
        WeightsError: no network is named, and there are no weights.
    """
    chosen = [timm_name_of(name) for name in names]
    chosen = chosen or [name for _, name in listed(place) if at_hand(name, place.weights)]
    if not chosen:
        raise WeightsError(
            "no weights of the listed networks are on this machine",
            allowed="names of networks, which are measured with random weights at the same speed",
            todo="graft models ResNet50 MobileNetV2 --measure",
        )
    throughput.measure(chosen, place)


def search(query: str, place: Place) -> list[Row]:
    """All weights and untrained architectures of timm whose name contains `query`, or matches its wildcards (* ? [).

    Raises:
        ParamsError: there are none.
    """
    import timm

    from graft.tasks.common.backbones import network  # noqa: F401  (timm then knows our own as well)

    tagged = timm.list_pretrained()
    bare = set(timm.list_models()) - {name.partition(".")[0] for name in tagged}
    pattern = query.lower() if set(query) & set("*?[") else f"*{query.lower()}*"
    found = [name for name in sorted([*tagged, *bare]) if fnmatchcase(name.lower(), pattern)]
    if not found:
        raise ParamsError(
            "timm has no network with this name",
            got=query,
            allowed="a part of a name, or a pattern with * and ?",
            todo=nearest(query, timm.list_models()) or "try a shorter part: resnet, convnext, vit",
        )
    return [_found(name, timm.get_pretrained_cfg(name), place) for name in found]


def _found(name: str, config: Any, place: Place) -> Row:
    """What is known about weights without building the network."""
    entry, modern, hand = entry_of(name), modern_of(name), at_hand(name, place.weights)
    return {
        "timm": name,
        "name": entry.name if entry else modern.name if modern else None,
        "pretrained": bool(config.url or config.hf_hub_id),
        "labels": config.num_classes,
        "input": list((config.test_input_size or config.input_size)[1:]),
        "licence": stated(config.license),
        "non_commercial": is_non_commercial(config.license or ""),
        "at_hand": f"{hand.kind}: {hand.where}" if hand else None,
    }


def describe(name: str, place: Place) -> Row:
    """One network in detail: its row of the table, its input, its layers, and how Graft uses them.

    Raises:
        ParamsError: neither Keras nor timm knows the name.
    """
    row = rows_of([name], place)[0]
    facts = _remembered("facts_of", [row["timm"]], place.cache)[row["timm"]]
    parts = _remembered("dissect", [row["timm"]], place.cache)[row["timm"]]
    if facts is None or parts is None:
        return row
    entry = entry_of(row["timm"])
    files = {"keras_file": entry.keras.path, "keras_notop_file": entry.keras_notop.path} if entry else {}
    geometry = {key: facts[key] for key in ("crop", "interpolation", "mean", "std")}
    return {**row, **files, **geometry, **parts, "params": _lines(row, name, parts["pooled"], bool(parts["hidden"]))}


def _lines(row: Row, name: str, pooled: int | None, hidden: bool) -> list[str]:
    """The lines for params.yaml."""
    entry = entry_of(row["timm"])
    frozen = row["name"] if row["name"] and row["name"].lower() == name.lower() else row["timm"]
    lines = ["features:", f"  backbone: {frozen}"]
    if row["tuned"] and row["tuned"] != row["timm"]:
        lines[1] += f"   # to fine-tune: {row['tuned']}"
    if entry is not None and not entry.frozen:
        lines.append("  weights: keras   # timm has none")
    if hidden and pooled:
        lines.append(f"  output: pre_logits   # or pooled: {pooled:,} features")
    elif row["output"]:
        lines.append(f"  output: {row['output']}")
    if row["recommended_size"]:
        lines.append(f"  image_size: {row['recommended_size']}   # pixels; {row['input'][0]} in pre-training")
    return lines
