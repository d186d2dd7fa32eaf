"""The bill of materials: CycloneDX 1.6, with the model card in its machine-readable form.

https://cyclonedx.org/docs/1.6/json/
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution, version
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from ..maintenance.licences import licence_of
from .evidence import LISTING, MANIFEST
from .facts import Document, Facts, class_table, measured, seed_of
from .licences import choices

NAME = "bom.cdx.json"

TASKS = {
    "classification": "image classification",
    "multilabel": "multi-label image classification",
    "regression": "image regression",
    "anomaly": "anomaly detection",
    "reconstruction": "image reconstruction",
}


def bom(facts: Facts) -> Document:
    """The whole document."""
    model = _model(facts)
    data = [*_data(facts)]
    backbones = [*_backbones(facts)]
    packages = [*_packages(facts)]
    needed = [each["bom-ref"] for each in packages if each["scope"] == "required"]
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, seed_of(facts))}",
        "version": 1,
        "metadata": {
            "timestamp": facts.trace["registered"],
            "tools": {"components": [{"type": "application", "name": "graft", "version": version("graft")}]},
            "component": model,
        },
        "components": [*backbones, *data, *packages],
        "dependencies": [
            {"ref": model["bom-ref"], "dependsOn": [each["bom-ref"] for each in (*backbones, *data)] + needed},
            *({"ref": each["bom-ref"], "dependsOn": []} for each in (*backbones, *data, *packages)),
        ],
    }


def _model(facts: Facts) -> Document:
    card, digest = facts.card, facts.digest.removeprefix("sha256:")
    return {
        "type": "machine-learning-model",
        "bom-ref": facts.name,
        "name": facts.trace["name"],
        "version": facts.trace["version"],
        **({"supplier": {"name": card.provider}} if card.provider else {}),
        "description": f"{TASKS[facts.task]}; {facts.trace['candidate']} on {facts.trace['backbone']['name']}",
        "hashes": [{"alg": "SHA-256", "content": digest}],
        **({"licenses": choices(card.license)} if card.license else {}),
        "modelCard": _card(facts),
        "components": [*_files(facts)],
        "properties": [*_properties(facts)],
    }


def _files(facts: Facts) -> Iterator[Document]:
    """The model's files with numbers in them: graphs, head, calibration."""
    for name, digest in sorted(facts.model.items()):
        inside = name.removeprefix("artifacts/package/")
        if inside != name and "/" not in inside and len(digest) == 64:
            yield {
                "type": "file",
                "bom-ref": f"{facts.name}#{inside}",
                "name": inside,
                "hashes": [{"alg": "SHA-256", "content": digest}],
            }


def _properties(facts: Facts) -> Iterator[dict[str, str]]:
    code, data = facts.trace["code"], facts.trace["data"]
    found = {
        "graft:commit": code["commit"],
        "graft:repository": code["repository"],
        "graft:data/raw": data["raw"],
        "graft:data/manifest": data["manifest"],
        "graft:run": facts.trace["parent_run_id"],
        "graft:features": facts.trace["backbone"]["fingerprint"],
    }
    yield from ({"name": name, "value": value} for name, value in found.items() if value)


def _card(facts: Facts) -> Document:
    parameters: Document = {
        "approach": {"type": "supervised" if facts.task != "anomaly" else "semi-supervised"},
        "task": TASKS[facts.task],
        "architectureFamily": "frozen pre-trained network with a new head",
        "modelArchitecture": facts.trace["backbone"]["name"],
        "datasets": [{"ref": each["bom-ref"]} for each in _data(facts)],
        "inputs": [{"format": "image"}],
        "outputs": [{"format": name} for name in facts.package["predicts"]],
    }
    card = facts.card
    considerations = {
        **({"useCases": [card.intended_use]} if card.intended_use else {}),
        **({"technicalLimitations": [card.limits]} if card.limits else {}),
        **({"performanceTradeoffs": [card.out_of_scope]} if card.out_of_scope else {}),
    }
    return {
        "modelParameters": parameters,
        "quantitativeAnalysis": {"performanceMetrics": [*_metrics(facts)]},
        **({"considerations": considerations} if considerations else {}),
    }


def _metrics(facts: Facts) -> Iterator[Document]:
    """The test metrics, then those of each class."""
    for metric, value, ends in measured(facts):
        yield _metric(metric.title, value, ends)
    table = class_table(facts)
    columns = [
        name for name in ("recall", "precision", "average_precision", "auroc") if table is not None and name in table
    ]
    for row in table.to_dict("records") if table is not None else []:
        for name in columns:
            ends = row.get(f"{name}_low"), row.get(f"{name}_high")
            yield from _of_class(name, row, ends)


def _of_class(name: str, row: Any, ends: tuple[Any, Any]) -> Iterator[Document]:
    value = row[name]
    if value == value:  # not of a class without a test image
        known = all(end is not None and end == end for end in ends)
        yield {**_metric(name.replace("_", " "), value, ends if known else None), "slice": str(row["class"])}


def _metric(title: str, value: float, ends: tuple[Any, Any] | None) -> Document:
    interval = {} if ends is None else {"lowerBound": f"{ends[0]:.6g}", "upperBound": f"{ends[1]:.6g}"}
    return {
        "type": title,
        "value": f"{value:.6g}",
        "slice": "test",
        **({"confidenceInterval": interval} if interval else {}),
    }


def _backbones(facts: Facts) -> Iterator[Document]:
    licence = facts.trace["backbone"]["licence"].removesuffix(" (non-commercial)")
    for number, eye in enumerate(facts.eyes):
        weights = eye["weights_sha256"]
        yield {
            "type": "machine-learning-model",
            "bom-ref": f"backbone-{number}",
            "name": eye["backbone"],
            "description": f"pre-trained weights: {eye['weights']}",
            **({"hashes": [{"alg": "SHA-256", "content": weights}]} if len(weights) == 64 else {}),
            **({"licenses": found} if (found := choices(licence)) else {}),
        }


def _data(facts: Facts) -> Iterator[Document]:
    """The data set by DVC's hashes, and the lists in the packet by their SHA-256."""
    data, licence = facts.trace["data"], choices(facts.card.data_license or "")
    for name, digest in {"data/raw": data["raw"], "data/manifest": data["manifest"]}.items():
        md5 = digest.removesuffix(".dir")
        file = {"data/raw": LISTING, "data/manifest": MANIFEST}[name]
        sha = facts.sha256(file)
        hashes = [{"alg": "MD5", "content": md5}] if len(md5) == 32 else []
        yield {
            "type": "data",
            "bom-ref": name,
            "name": name,
            "version": digest or "not tracked",
            **({"licenses": licence} if licence else {}),
            "data": [{"type": "dataset", "name": name}],
            **({"hashes": hashes} if hashes else {}),
            "properties": [{"name": f"graft:sha256 of {file}", "value": sha}] if sha else [],
        }


def _packages(facts: Facts) -> Iterator[Document]:
    """All packages of the run: those that the model needs are required."""
    required = {*_names(facts)}
    for name, number in sorted(facts.packages.items()):
        if name == "python":
            continue
        canonical = canonicalize_name(name)
        yield {
            "type": "library",
            "bom-ref": f"pkg:pypi/{canonical}@{number}",
            "name": canonical,
            "version": number,
            "scope": "required" if canonical in required else "optional",
            **({"licenses": found} if (found := choices(_licence(canonical, number))) else {}),
            "purl": f"pkg:pypi/{canonical}@{number.replace('+', '%2B')}",
        }


def _names(facts: Facts) -> Iterator[str]:
    for line in facts.requirements:
        try:
            yield canonicalize_name(Requirement(line).name)
        except InvalidRequirement:
            continue


@cache
def _licence(name: str, number: str) -> str:
    """Of a package; empty if this version of it is not installed here."""
    try:
        found = licence_of(distribution(name))
    except PackageNotFoundError:
        return ""
    return found.licence if found.version == number else ""
