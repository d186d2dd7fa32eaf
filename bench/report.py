"""From raw measurements to medians, tables and plots.

python -m bench.report          writes docs/explanation/benchmarks.md and the plots again from bench/results/
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from .processes import ROOT

Json = dict[str, Any]

NAMES = {
    "a": "(a) PyTorch `DataLoader`, eager fp32",
    "b": "(b) PyTorch `DataLoader`, channels_last, bf16 autocast",
    "c": "(c) Keras 3 on TensorFlow, `model.predict`",
    "d1": "(d) ONNX Runtime, PIL decoding in threads",
    "d2": "(d) `torch.compile`, frozen, bf16, `DataLoader`",
    "e": "**(e) Graft, cold**",
}
KERAS = {"tf_efficientnet_lite0": "EfficientNetB0", "resnet50": "ResNet50"}


@dataclass(frozen=True)
class Target:
    """Where results go."""

    results: Path
    page: Path
    images: Path

    @classmethod
    def published(cls) -> Target:
        return cls(
            ROOT / "bench" / "results", ROOT / "docs" / "explanation" / "benchmarks.md", ROOT / "docs" / "images"
        )

    @classmethod
    def trial(cls, build: Path) -> Target:
        """Beside each other in the build folder; the page starts as a copy of the published one."""
        folder = build / "results"
        folder.mkdir(parents=True, exist_ok=True)
        target = cls(folder, folder / "benchmarks.md", folder / "images")
        target.page.write_text(cls.published().page.read_text(encoding="utf-8"), encoding="utf-8")
        return target

    def json(self, name: str) -> Path:
        return self.results / f"{name}.json"


# ---------------------------------------------------------------- medians


def medians(raw: dict[str, list[Json]], images: int) -> Json:
    """Medians over the repetitions; `images` is the number of files for which whole processes are compared."""
    found: Json = {letter: _peer(raw[letter], images) for letter in ("a", "b", "c", "d1", "d2") if letter in raw}
    if "e" in raw:
        found["e"] = _cold(raw["e"])
        for letter in found:
            _compare(found[letter], found["e"])
    found |= {letter: _in_repro(raw[letter]) for letter in ("f", "g") if letter in raw}
    if "p" in raw:
        found["p"] = _parts(raw["p"])
        if "e" in found:
            found["e"]["share_of_roofline"] = round(found["e"]["images_per_second"] / found["p"]["roofline"], 3)
    return found


def _median(values: Iterable[float]) -> float:
    return round(median(values), 3)


def _peer(runs: list[Json], images: int) -> Json:
    """The best of a peer's variants; its whole process for `images` files is its start and so many times its loop."""
    labels = sorted({label for run in runs for label in run["loop_seconds"]})
    loops = {
        label: _median(run["loop_seconds"][label] for run in runs if label in run["loop_seconds"]) for label in labels
    }
    best = min(loops, key=loops.__getitem__)
    rate = runs[0]["images"] / loops[best]
    startup = _median(run["startup_seconds"] for run in runs)
    return {
        "variant": best,
        "images": runs[0]["images"],
        "images_per_second": round(rate, 2),
        "startup_seconds": startup,
        "whole_seconds": round(startup + images / rate, 2),
        "all_images_per_second": {label: round(runs[0]["images"] / loop, 2) for label, loop in loops.items()},
        "cosine_to_graft": min((run["cosine_to_graft"] for run in runs if "cosine_to_graft" in run), default=None),
        "versions": runs[0]["versions"],
    }


def _cold(runs: list[Json]) -> Json:
    loop = _median(run["loop_seconds"] for run in runs)
    return {
        "images": runs[0]["images"],
        "loop_seconds": loop,
        "images_per_second": round(runs[0]["images"] / loop, 2),
        "whole_seconds": _median(run["whole_seconds"] for run in runs),
    }


def _compare(contestant: Json, cold: Json) -> None:
    contestant["graft_faster_loop"] = round(cold["images_per_second"] / contestant["images_per_second"], 2)
    contestant["graft_faster_whole"] = round(contestant["whole_seconds"] / cold["whole_seconds"], 2)


def _in_repro(runs: list[Json]) -> Json:
    clocks = ("whole_seconds", "preprocess_seconds", "features_seconds")
    return {"images": runs[0]["images"], **{clock: _median(run[clock] for run in runs) for clock in clocks}}


def _parts(runs: list[Json]) -> Json:
    """Images per second; the roofline is that of two steps that share the same cores."""
    counts = {"decode_one_thread": "images", "decode_all_threads": "images", "forward": "forwarded_images"}
    one, every, forward = (
        runs[0][count] / _median(run[f"{name}_seconds"] for run in runs) for name, count in counts.items()
    )
    return {
        "threads": runs[0]["threads"],
        "precision": runs[0]["precision"],
        "decode_one_thread": round(one, 1),
        "decode_all_threads": round(every, 1),
        "forward": round(forward, 1),
        "roofline": round(1 / (1 / every + 1 / forward), 1),
    }


# ---------------------------------------------------------------- tables


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Markdown; all columns but the first are aligned to the right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def features_text(results: Json) -> str:
    """All that stands between the markers `features` of the page."""
    settings, blocks = results["settings"], [_setting(results)]
    for backbone, found in results["backbones"].items():
        blocks.append(f"### {backbone}")
        blocks.append(_contestants(backbone, found["medians"], settings["images"]))
        blocks.append(_graft(found, settings["images"]))
        if "p" in found["medians"]:
            blocks.append(_parts_table(found["medians"]))
    return "\n\n".join(blocks)


def _setting(results: Json) -> str:
    machine, settings = results["machine"], results["settings"]
    libraries = dict(results["versions"])
    for found in results["backbones"].values():
        for contestant in found["medians"].values():
            libraries |= contestant.get("versions", {})
    return (
        f"{machine_text(machine)} Load before the run: {machine['load_before']}.\n"
        f"{results['date']}; medians of {settings['repetitions']} repetitions.\n"
        f"Graft computes {settings['images']:,} photographs, the peers {settings['peer_images']:,} of the same ones.\n"
        f"Versions: {', '.join(f'{name} {number}' for name, number in libraries.items())}."
    )


def machine_text(machine: Json) -> str:
    flags = ", ".join(machine["flags"]) or "none of the vector formats we look for"
    return (
        f"{machine['processor']} (family/model/stepping {machine['family_model_stepping']}), {machine['cores']} cores, "
        f"{flags}, {machine['memory_gib']} GiB, {machine['system']}."
    )


def _contestants(backbone: str, found: Json, images: int) -> str:
    head = [
        "files to features",
        "images/s, loop",
        "Graft is faster by",
        f"seconds, whole process, {images:,} files",
        "Graft is faster by",
        "least cosine to (e)",
    ]
    rows = [
        [
            _name(letter, backbone, found[letter]),
            f"{found[letter]['images_per_second']:,.1f}",
            _times(found[letter].get("graft_faster_loop")),
            f"{found[letter]['whole_seconds']:,.1f}",
            _times(found[letter].get("graft_faster_whole")),
            _cosine(found[letter].get("cosine_to_graft")),
        ]
        for letter in NAMES
        if letter in found
    ]
    return table(head, rows)


def _name(letter: str, backbone: str, contestant: Json) -> str:
    name = NAMES[letter]
    if letter == "c":
        return f"{name}, {KERAS[backbone]}"
    if contestant.get("variant"):
        return f"{name}, {contestant['variant']} worker{'' if contestant['variant'] == '1' else 's'}"
    return name


def _times(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:,.1f} x"


def _cosine(cosine: float | None) -> str:
    return "" if cosine is None else f"{cosine:.4f}"


def _graft(found: Json, images: int) -> str:
    middle, first = found["medians"], found["raw"]["first"][0]
    rows = [
        ("first run ever: `preprocess`", first["preprocess"]["whole_seconds"]),
        ("first run ever: `features`, with conversion and compilation", first["features"]["whole_seconds"]),
    ]
    if "e" in middle:
        rows.append(("(e) cold: `features`, the graph is there, no feature is", middle["e"]["whole_seconds"]))
    names = {
        "f": "(f) warm, nothing is new",
        "g": f"(g) {middle['g']['images']:,} images added" if "g" in middle else "",
    }
    for letter, name in names.items():
        if letter in middle:
            rows += [
                (f"{name}: `features`", middle[letter]["features_seconds"]),
                (f"{name}: `preprocess`", middle[letter]["preprocess_seconds"]),
                (f"{name}: `dvc repro features` as a whole", middle[letter]["whole_seconds"]),
            ]
    return table([f"Graft, {images:,} photographs", "seconds"], [[name, f"{s:.2f}"] for name, s in rows])


def _parts_table(found: Json) -> str:
    parts = found["p"]
    rows = [
        ["decode only, one thread", f"{parts['decode_one_thread']:,.0f}"],
        [f"decode only, {parts['threads']} threads", f"{parts['decode_all_threads']:,.0f}"],
        [f"forward only, {parts['precision']}", f"{parts['forward']:,.0f}"],
        ["roofline: 1 / (1/decode + 1/forward)", f"{parts['roofline']:,.0f}"],
    ]
    if "e" in found:
        share = found["e"]["share_of_roofline"]
        rows.append([f"(e), {100 * share:.0f} % of the roofline", f"{found['e']['images_per_second']:,.0f}"])
    return table(["Graft's parts", "images/s"], rows)


def memory_text(results: Json) -> str:
    """All that stands between the markers `memory` of the page."""
    head = ["images", "peak RSS, MiB", "of it anonymous", "with the recorder", "ms an image", "warm run, s"]
    rows = [
        [
            f"{size['images']:,}",
            f"{size['peak_mib']:,.0f}",
            f"{size['peak_anonymous_mib']:,.0f}",
            f"{size['peak_tree_mib']:,.0f}",
            f"{size['milliseconds_an_image']:.3f}",
            f"{size['warm_seconds']:.2f}",
        ]
        for size in results["medians"]
    ]
    settings, first = results["settings"], results["first"]
    return (
        f"{machine_text(results['machine'])}\n"
        f"{results['date']}; `{settings['backbone']}`, weights `{settings['weights']}`; "
        f"peaks are the greatest, times the medians of {settings['repetitions']} cold runs.\n\n{table(head, rows)}\n\n"
        f"The first run ever, which converts the network with torch: peak RSS {first['peak_mib']:,.0f} MiB."
    )


# ---------------------------------------------------------------- files


def replace_between(page: str, name: str, text: str) -> str:
    """The page with `text` between `<!-- name:begin -->` and `<!-- name:end -->`.

    Raises:
        ValueError: it has no such markers.
    """
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    before, found_begin, rest = page.partition(begin)
    _, found_end, after = rest.partition(end)
    if not (found_begin and found_end):
        raise ValueError(f"the page lacks {begin} or, after it, {end}")
    return f"{before}{begin}\n\n{text}\n\n{end}{after}"


def write_features(results: Json, target: Target) -> str:
    """JSON, page and plot; returns the text of the page."""
    from .plots import plot_features

    return _write("features", results, features_text(results), plot_features, target)


def write_memory(results: Json, target: Target) -> str:
    from .plots import plot_memory

    return _write("memory", results, memory_text(results), plot_memory, target)


def write_text(name: str, results: Json, text: str, target: Target) -> str:
    """JSON and page; returns the text."""
    target.results.mkdir(parents=True, exist_ok=True)
    target.json(name).write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    page = replace_between(target.page.read_text(encoding="utf-8"), name, text)
    target.page.write_text(page, encoding="utf-8")
    return text


def write_head(results: Json, text: str, target: Target) -> str:
    from .plots import plot_head

    return _write("head", results, text, plot_head, target)


def write_anomaly(results: Json, text: str, target: Target) -> str:
    from .plots import plot_anomaly

    return _write("anomaly", results, text, plot_anomaly, target)


def write_labelling(results: Json, text: str, target: Target) -> str:
    from .plots import plot_labelling

    return _write("labelling", results, text, plot_labelling, target)


def _write(name: str, results: Json, text: str, plot: Any, target: Target) -> str:
    write_text(name, results, text, target)
    target.images.mkdir(parents=True, exist_ok=True)
    plot(results, target.images / f"bench-{name}.png")
    return text


def main() -> None:
    target = Target.published()
    for name, write in (("features", write_features), ("memory", write_memory)):
        if target.json(name).is_file():
            write(json.loads(target.json(name).read_text(encoding="utf-8")), target)


if __name__ == "__main__":
    main()
