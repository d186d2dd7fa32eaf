import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import pytest

import graft.tasks
from graft.tasks.common.heads.calibration import Calibration
from graft.tasks.register.package import MODULES, REQUIREMENTS, copy_code


def code_of(paths):
    (folder,) = (paths.package / "code").iterdir()
    return folder


def run_alone(program, paths, *words):
    """Runs a program that sees the package's code, in an empty folder, far from this project."""
    settings = {**os.environ, "PYTHONPATH": str(paths.package / "code"), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program, str(paths.package), *words],
        cwd=paths.root / "data",
        env=settings,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_the_package_holds_graph_head_facts_requirements_code_entry_and_reference(finished_paths, names_in, head_files):
    graph, reference = {"graph.xml", "graph.bin"}, {"reference.safetensors", "reference.json"}
    model = {"package.json", "requirements.txt", "code", "model.py"}
    assert names_in(finished_paths.package) == head_files | graph | model | reference


def test_requirements_are_pinned_to_what_is_installed(finished_paths):
    lines = (finished_paths.package / "requirements.txt").read_text().splitlines()
    assert lines == [f"{name}=={version(name)}" for name in REQUIREMENTS]


def test_the_code_is_that_of_this_project_to_the_byte(finished_paths):
    source = Path(graft.tasks.__file__).parent
    code = code_of(finished_paths)
    copied = {file.relative_to(code).as_posix(): file.read_bytes() for file in code.rglob("*") if file.is_file()}
    assert copied == {module: (source / module).read_bytes() for module in MODULES}


def test_the_code_brings_every_module_of_its_own_that_it_imports(finished_paths):
    program = (
        "import importlib, json, os, pathlib, sys\n"
        "code = os.listdir(pathlib.Path(sys.argv[1]) / 'code')[0]\n"
        "importlib.import_module(code + '.register.serving')\n"
        "print(json.dumps([name for name in sys.modules if name.split('.')[0] in ('graft', 'tasks', 'flows')]))\n"
    )
    assert run_alone(program, finished_paths) == []


def test_the_code_needs_neither_torch_nor_timm_nor_mlflow(finished_paths):
    program = (
        "import importlib, json, os, pathlib, sys\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "code = os.listdir(folder / 'code')[0]\n"
        "model = importlib.import_module(code + '.register.serving').ImageClassifier(folder)\n"
        "model.predict([pathlib.Path(sys.argv[2])])\n"
        "print(json.dumps([name for name in ('torch', 'timm', 'mlflow', 'torchvision') if name in sys.modules]))\n"
    )
    assert run_alone(program, finished_paths, str(finished_paths.raw / "red/000.png")) == []


def test_the_codes_name_is_stable(tmp_path):
    assert copy_code(tmp_path / "one") == copy_code(tmp_path / "two")


def test_the_codes_name_changes_with_the_code(tmp_path, monkeypatch):
    name = copy_code(tmp_path / "one")
    changed = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: changed(path) + (b"#" if path.name == "decode.py" else b""))
    assert copy_code(tmp_path / "two") != name


def test_the_codes_name_can_be_imported(tmp_path):
    assert copy_code(tmp_path).isidentifier()


def test_the_package_holds_no_bytecode(finished_paths):
    assert not list(finished_paths.package.rglob("__pycache__"))
    assert not list(finished_paths.package.rglob("*.pyc"))


def test_a_fresh_process_predicts_what_evaluate_saw_from_every_form_of_an_image(finished_paths):
    program = (
        "import base64, importlib, json, os, pathlib, sys\n"
        "folder, raw = map(pathlib.Path, sys.argv[1:3])\n"
        "code = os.listdir(folder / 'code')[0]\n"
        "model = importlib.import_module(code + '.register.serving').ImageClassifier(folder)\n"
        "files = [raw / path for path in json.loads(sys.argv[3])]\n"
        "text = [base64.b64encode(f.read_bytes()).decode() for f in files]\n"
        "forms = {'path': files, 'bytes': [f.read_bytes() for f in files],\n"
        "         'base64': text, 'data URL': ['data:image/png;base64,' + t for t in text]}\n"
        "print(json.dumps({name: model.predict(images) for name, images in forms.items()}))\n"
    )
    seen = pd.read_parquet(finished_paths.report / "predictions.parquet")
    answers = run_alone(program, finished_paths, str(finished_paths.raw), json.dumps(list(seen["path"])))
    for answer in answers.values():
        for row, (_, expected) in zip(answer, seen.iterrows(), strict=True):
            assert row["label"] == expected["predicted"]
            assert all(p == pytest.approx(expected[f"p_{name}"], abs=1e-6) for name, p in row["probabilities"].items())


ANSWERS = {
    "all": (Calibration(), []),
    "some": (Calibration(threshold=2.0), ["abstain"]),
    "sets": (Calibration(set_least=1.0), ["set"]),
}


@pytest.mark.parametrize(("calibration", "further"), ANSWERS.values(), ids=ANSWERS)
def test_mlflows_entry_answers_a_table_of_images(paths, calibration, further):
    program = (
        "import json, pathlib, runpy, sys, types, pandas as pd\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "model = runpy.run_path(str(folder / 'model.py'))['Model']()\n"
        "model.load_context(types.SimpleNamespace(artifacts={'package': str(folder)}))\n"
        "images = pd.DataFrame({'image': [pathlib.Path(sys.argv[2])] * 2})\n"
        "print(model.predict(None, images).to_json(orient='split'))\n"
    )
    calibration.save(paths.package)
    answer = run_alone(program, paths, str(paths.raw / "red/000.png"))
    assert answer["columns"] == ["label", "score", "probabilities", *further, "typicality"]
    for label, _, _, *told, typicality in answer["data"]:
        assert told == [{"abstain": True, "set": [label]}[name] for name in further]
        assert 0 < typicality <= 1
