"""The documents of a packet: each is valid by its published schema, and says what the record says."""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING, Any

import jsonschema
import mlcroissant
import pandas as pd
from google.protobuf import json_format
from huggingface_hub import ModelCard
from in_toto_attestation.predicates.provenance.v1.provenance_pb2 import Provenance
from in_toto_attestation.v1.statement import Statement
from in_toto_attestation.v1.statement_pb2 import Statement as StatementMessage
from projects import ROOT
from referencing import Registry, Resource

from graft.tasks.common.core.files import read_json, sha256
from graft.tasks.common.core.paths import STAGES

from .conftest import CARD, SECRET

if TYPE_CHECKING:
    from .conftest import Made

SCHEMAS = ROOT / "tests" / "schemas"


def check(document: Any, schema: str, known: dict[str, str]) -> None:
    """Raises if a document is not valid.

    Args:
        known: address -> file of a schema that this one refers to.
    """
    found = {address: Resource.from_contents(read_json(SCHEMAS / name)) for address, name in known.items()}
    whole = read_json(SCHEMAS / schema)
    kind = jsonschema.validators.validator_for(whole)
    kind(whole, registry=Registry().with_resources(found.items()), format_checker=kind.FORMAT_CHECKER).validate(
        document
    )


def test_the_bill_of_materials_is_cyclonedx_with_weights_data_packages_and_metrics(made: Made) -> None:
    bom, project = made.json("bom.cdx.json"), made.project
    address = "http://cyclonedx.org/schema/"
    names = {f"{address}{name}.SNAPSHOT.schema.json": f"{name}.schema.json" for name in ("spdx", "jsf-0.82")}
    check(bom, "bom-1.6.schema.json", names)

    model, parts = bom["metadata"]["component"], {each["bom-ref"]: each for each in bom["components"]}
    package = project.json("models/package/package.json")
    assert model["supplier"]["name"] == CARD["provider"]
    assert model["licenses"] == [{"license": {"id": "Apache-2.0"}}]
    assert parts["backbone-0"]["hashes"][0]["content"] == package["weights_sha256"]
    assert parts["data/raw"]["version"] == made.trace["data"]["raw"]
    head = next(each for each in model["components"] if each["name"] == "head.safetensors")
    assert head["hashes"][0]["content"] == sha256(project.root / "models" / "package" / "head.safetensors")
    torch = next(each for each in bom["components"] if each["name"] == "torch")
    assert (torch["scope"], torch["purl"].partition("@")[0]) == ("optional", "pkg:pypi/torch")
    assert next(each for each in bom["components"] if each["name"] == "openvino")["scope"] == "required"
    metrics = {
        (each["type"], each["slice"]): each for each in model["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
    }
    test = project.json("metrics/evaluate.json")
    assert float(metrics["accuracy", "test"]["value"]) == test["accuracy"]
    assert float(metrics["accuracy", "test"]["confidenceInterval"]["lowerBound"]) == float(
        f"{test['accuracy_low']:.6g}"
    )
    assert ("recall", "red") in metrics


def test_the_events_are_openlineage_with_the_versions_of_what_each_stage_read_and_wrote(made: Made) -> None:
    events = [json.loads(line) for line in made.text("openlineage.jsonl").splitlines()]
    core = {
        f"https://openlineage.io/spec/{version}/OpenLineage.json": "OpenLineage.json" for version in ("1-0-1", "1-0-2")
    }
    for event in events:
        check(event, "OpenLineage.json", {})
        assert event["schemaURL"].endswith("#/$defs/RunEvent")
        check(event["run"]["facets"], "ParentRunFacet.json", core)
        check(event["job"]["facets"], "SourceCodeLocationJobFacet.json", core)
        for data in (*event["inputs"], *event["outputs"]):
            check(data["facets"], "DatasetVersionDatasetFacet.json", core)

    kinds = [(event["job"]["name"], event["eventType"]) for event in events]
    assert kinds == [(f"graft.{stage}", kind) for stage in STAGES for kind in ("START", "COMPLETE")]
    features = {data["name"]: data["facets"]["version"]["datasetVersion"] for data in events[2]["outputs"]}
    assert features["data/features"] == made.project.lock()["data/features"]


def test_the_statement_is_in_toto_and_slsa_about_every_file_of_the_model(made: Made) -> None:
    document, told = made.json("provenance.intoto.json"), made.trace
    Statement.copy_from_pb(json_format.ParseDict(document, StatementMessage())).validate()
    json_format.ParseDict(document["predicate"], Provenance())  # refuses fields that SLSA does not know

    subjects = {each["name"]: each["digest"]["sha256"] for each in document["subject"]}
    package = made.project.root / "models" / "package"
    for file in ("head.safetensors", "graph.bin", "package.json"):
        assert subjects[f"artifacts/package/{file}"] == sha256(package / file)
    assert f"sha256:{subjects['model.files.json']}" == made.json("packet.json")["model_digest"]
    assert subjects["model.files.json"] == sha256(made.folder / "model.files.json")
    definition = document["predicate"]["buildDefinition"]
    assert definition["externalParameters"]["stages"]["head"]["strengths"] == "7"
    digests = {each.get("name"): each.get("digest") for each in definition["resolvedDependencies"]}
    assert digests["code"] == {"gitCommit": told["code"]["commit"]}
    assert digests["data/raw"] == {"md5": told["data"]["raw"].removesuffix(".dir")}


def test_the_data_set_is_croissant_whose_records_are_the_manifest(made: Made) -> None:
    data = mlcroissant.Dataset(jsonld=made.folder / "croissant.json")

    rows = [*data.records("images")]
    manifest = pd.read_parquet(made.project.root / "data" / "manifest" / "manifest.parquet")
    assert [row["images/image_id"].decode() for row in rows] == [*manifest["image_id"]]
    assert [row["classes/name"] for row in data.records("classes")] == ["blue", "green", "red"]
    files = {each["name"]: each for each in made.json("croissant.json")["distribution"]}
    raw = made.trace["data"]["raw"]
    assert f"{hashlib.md5((made.folder / 'data/raw.dir.json').read_bytes()).hexdigest()}.dir" == raw
    assert f"{files['raw']['md5']}.dir" == raw


def test_the_card_is_hugging_faces_names_what_is_missing_and_escapes_what_people_wrote(made: Made) -> None:
    text = made.text("README.md")
    card = ModelCard(text)

    assert (card.data.license, card.data.pipeline_tag) == ("apache-2.0", "image-classification")
    result = card.data.eval_results[0]
    assert (result.metric_type, result.metric_value) == (
        "accuracy",
        made.project.json("metrics/evaluate.json")["accuracy"],
    )
    assert len(re.findall(r"^## \d\. ", text, re.MULTILINE)) == 9
    assert "Ada & Söhne \\<ltd\\>" in text
    assert "Sorting \\*tiles\\* by colour." in text
    assert "Missing: `card.declaration` in params.yaml" in text
    assert "<ltd>" not in made.text("card.html")


def test_the_start_page_answers_ten_questions_from_the_packet_alone(made: Made) -> None:
    page, told = made.text("index.html"), made.trace
    answers = re.findall(r"<h3>(.*?)</h3>\s*<p.*?>(.*?)</p>", page, re.DOTALL)
    texts = [text for _, text in answers]

    assert len(answers) == 10
    assert told["data"]["raw"] in texts[0]
    assert "42 images: 24 train, 9 val, 9 test" in texts[1]
    assert told["backbone"]["weights_sha256"] in texts[3]
    assert told["code"]["commit"] in texts[4]
    assert "Version 7" in texts[5]
    assert "accuracy 100.0% against 75.0%" in texts[5]
    assert texts[6].startswith("Promoted: better")
    assert told["history"]["entries"][-1]["by"] in texts[7]
    assert "<td>gain</td>" in page
    links = set(re.findall(r'href="([^"#]+)"', page))
    assert [link for link in links if not (made.folder / link).is_file()] == []


def test_every_image_is_found_with_its_role(made: Made) -> None:
    data = json.loads(re.search(r'id="data">(.*?)</script>', made.text("images.html"), re.DOTALL)[1])  # type: ignore[index]
    manifest = pd.read_parquet(made.project.root / "data" / "manifest" / "manifest.parquet")

    assert {(row[0], row[1], row[3]) for row in data["rows"]} == {
        (row.path, row.split, row.image_id) for row in manifest.itertuples()
    }
    assert data["roles"]["val"].endswith("fitted to it too")


def test_no_page_asks_the_network_and_no_file_holds_a_password(made: Made) -> None:
    for file in (file for file in made.folder.rglob("*") if file.is_file()):
        content = file.read_bytes()
        assert SECRET.encode() not in content, file
        if file.suffix == ".html":
            assert not re.search(rb"(src|href)=.?(https?:)?//", content), file
