"""Deployments for teams: prefect.yaml on a real server and worker; the compose file as far as it goes without Docker.

The servers of the compose file run as processes, by its own commands; their databases are files.
"""

from __future__ import annotations

import base64
import os
import re
import shlex
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import pytest
import yaml
from packaging.utils import canonicalize_name
from projects import ROOT, Project, ask, free_port, wait_for

from graft.flows.maintenance.licences import needed
from graft.flows.retrain.zombies import heartbeat_settings
from graft.flows.runtime.servers import answers

DEPLOY = ROOT / "deploy"
TIME_LIMIT = 180.0

SERVICE_KEYS = {
    *("build", "command", "depends_on", "environment", "healthcheck", "image", "init", "logging", "ports", "restart"),
    *("profiles", "stop_grace_period", "volumes", "working_dir", "user"),
    *("cap_drop", "mem_limit", "pids_limit", "read_only", "security_opt", "tmpfs"),
}
"""Those of the compose specification that the file uses: a misspelt one is in neither."""


SERVERS = ("postgres", "prefect", "mlflow", "model")
"""They write only into their volumes."""

PASSWORDS = {
    "POSTGRES_PASSWORD": "secret",
    "PREFECT_AUTH_STRING": "graft:secret",
    "MLFLOW_PASSWORD": "secretsecret",
    "MLFLOW_SECRET_KEY": "key",
}
"""What nobody may forget to fill in."""

VARIABLE = re.compile(r"\$\$|\$\{(\w+)(?::\?[^}]*)?\}")
"""`${NAME}`, `${NAME:?why it is needed}`, or a dollar."""


# prefect.yaml


@pytest.fixture
def deployed(
    empty_project: Project, finished: Project, prefect_api: dict[str, str], tmp_path: Path
) -> Iterator[tuple[Project, Project, Any]]:
    """Somebody's checkout, from which prefect.yaml has been deployed as its comment says; the project on the worker's
    machine; and the deployment."""
    office, project = empty_project, finished.copy(tmp_path / "worker" / "repository")
    shutil.copyfile(ROOT / "prefect.yaml", office.root / "prefect.yaml")
    settings = {**prefect_api, "GRAFT_PROJECT": str(project.root)}
    prefect(office, settings, "work-pool", "create", "graft", "--type", "process", "--overwrite")
    prefect(office, settings, "deploy", "--all")
    deployment = ask(prefect_api, lambda client: client.read_deployment_by_name("retrain/nightly"))
    yield office, project, deployment
    ask(prefect_api, lambda client: client.delete_deployment(deployment.id))


def prefect(office: Project, settings: dict[str, str], *words: str) -> str:
    return office.call(sys.executable, "-m", "prefect", "--no-prompt", *words, **settings).stdout


def test_the_deployment_has_its_schedule_one_run_at_a_time_and_the_workers_project(
    deployed: tuple[Project, Project, Any], prefect_api: dict[str, str]
) -> None:
    office, project, deployment = deployed
    (schedule,) = deployment.schedules
    assert (schedule.schedule.cron, schedule.schedule.timezone, schedule.active) == ("0 2 * * *", "UTC", True)
    assert deployment.global_concurrency_limit.limit == 1
    assert deployment.concurrency_options.collision_strategy.value == "CANCEL_NEW"
    assert deployment.parameters == {"project": str(project.root), "unattended": True}
    assert (deployment.work_pool_name, deployment.entrypoint) == ("graft", "graft.flows.retrain.flow.retrain")
    assert [list(step) for step in deployment.pull_steps] == [["prefect.deployments.steps.set_working_directory"]]
    assert deployment.job_variables == {"env": {"GRAFT_PROJECT": str(project.root), **heartbeat_settings()}}

    prefect(office, {**prefect_api, "GRAFT_PROJECT": str(project.root)}, "deploy", "--all")

    again = ask(prefect_api, lambda client: client.read_deployment_by_name("retrain/nightly"))
    assert (again.id, len(again.schedules)) == (deployment.id, 1), "deployed twice, it is there once"


def test_a_worker_runs_the_deployment_in_its_own_clone(
    deployed: tuple[Project, Project, Any], prefect_api: dict[str, str]
) -> None:
    office, project, deployment = deployed
    (office.root / "draft.txt").write_text("not for the worker", encoding="utf-8")
    before = project.git("status", "--porcelain"), project.git("rev-parse", "HEAD")
    run = ask(prefect_api, lambda client: client.create_flow_run_from_deployment(deployment.id))
    worker = subprocess.Popen(
        [sys.executable, "-m", "prefect", "worker", "start", "--pool", "graft"],
        cwd=project.root.parent,
        env=project.environment(**prefect_api, PYTHONPATH=""),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        ended = wait_for(lambda: final(prefect_api, run.id), seconds=TIME_LIMIT)
    finally:
        worker.terminate()
        worker.wait(60)
    assert ended.state_name == "Completed", ended.state.message
    assert ended.name == "retrain repository"
    assert (project.git("status", "--porcelain"), project.git("rev-parse", "HEAD")) == before


def final(prefect_api: dict[str, str], run_id: UUID) -> Any:
    run = ask(prefect_api, lambda client: client.read_flow_run(run_id))
    return run if run.state.is_final() else None


# deploy/compose.yaml


def examples() -> dict[str, str]:
    """The variables of .env.example, with something in those that each must fill in."""
    lines = (DEPLOY / ".env.example").read_text(encoding="utf-8").splitlines()
    pairs = (line.split("=", 1) for line in lines if line and not line.startswith("#"))
    return {**dict(pairs), **PASSWORDS}  # type: ignore[arg-type]


def compose(**values: str) -> Any:
    """The compose file with its variables filled in, as Docker fills them in: after reading it, in every text."""
    known = {**examples(), **values}
    document = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))

    def fill(part: Any) -> Any:
        if isinstance(part, dict):
            return {key: fill(value) for key, value in part.items()}
        if isinstance(part, list):
            return [fill(value) for value in part]
        return VARIABLE.sub(lambda found: known[found[1]] if found[1] else "$", part) if isinstance(part, str) else part

    return fill(document)


def lasting(services: dict[str, Any]) -> dict[str, Any]:
    return {name: service for name, service in services.items() if service["restart"] != "no"}


def test_every_variable_of_the_compose_file_is_explained_and_no_other() -> None:
    text = (DEPLOY / "compose.yaml").read_text(encoding="utf-8").replace("$$", "")
    assert set(re.findall(r"\$\{(\w+)", text)) == examples().keys()


def test_docker_refuses_to_start_without_passwords_and_no_example_holds_one() -> None:
    text = (DEPLOY / "compose.yaml").read_text(encoding="utf-8")
    lines = (DEPLOY / ".env.example").read_text(encoding="utf-8").splitlines()
    for name in PASSWORDS:
        assert re.search(rf"\$\{{{name}:\?[^}}]+\}}", text), name
        assert f"{name}=" in lines


def test_services_wait_for_each_other_stay_up_and_are_asked_for_their_health() -> None:
    document = compose()
    services = document["services"]
    for name, service in services.items():
        assert service.keys() <= SERVICE_KEYS, name
        for other, how in service.get("depends_on", {}).items():
            assert how == {"condition": "service_healthy"}
            assert "healthcheck" in services[other], f"{name} waits for the health of {other}"
    assert services["deploy"]["restart"] == "no"
    for name, service in lasting(services).items():
        assert service["restart"] == "unless-stopped", name
        assert service["healthcheck"]["test"][0] == "CMD", name
    named = {mount.split(":")[0] for service in services.values() for mount in service.get("volumes", [])}
    folders = {name for name in named if name.startswith((".", "/"))}
    assert named - folders == document["volumes"].keys()
    assert (DEPLOY / "databases.sql").is_file()


def test_no_container_gets_more_rights_or_takes_all_memory() -> None:
    services = compose()["services"]
    for name, service in services.items():
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["cap_drop"] == ["ALL"], name
        assert re.fullmatch(r"\d+g", service["mem_limit"]), name
        assert service["pids_limit"] > 0, name
    assert {name for name, service in services.items() if service.get("read_only")} == {*SERVERS}
    for name in SERVERS:
        assert "/tmp" in services[name]["tmpfs"]


def test_ports_and_names_are_those_that_the_worker_gets() -> None:
    services = compose()["services"]
    worker = services["worker"]["environment"]
    for variable, name in (("PREFECT_API_URL", "prefect"), ("MLFLOW_TRACKING_URI", "mlflow")):
        address, command = urlsplit(worker[variable]), services[name]["command"]
        assert address.hostname == name
        assert str(address.port) == command[command.index("--port") + 1]
        assert services[name]["ports"][0].endswith(f":{address.port}")
        assert f"127.0.0.1:{address.port}/" in services[name]["healthcheck"]["test"][-1]
        assert name in services["worker"]["depends_on"]
    databases = (DEPLOY / "databases.sql").read_text(encoding="utf-8")
    for name, variable in (
        ("prefect", "PREFECT_SERVER_DATABASE_CONNECTION_URL"),
        ("mlflow", "MLFLOW_BACKEND_STORE_URI"),
    ):
        store = urlsplit(services[name]["environment"][variable])
        assert (store.hostname, store.port, store.password) == ("postgres", 5432, "secret")
        assert f"CREATE DATABASE {store.path.strip('/')};" in databases
    pages = services["prefect"]["environment"]
    assert worker["PREFECT_UI_URL"] == pages["PREFECT_UI_URL"]
    assert worker["PREFECT_UI_URL"] + "/api" == pages["PREFECT_SERVER_UI_API_URL"]
    assert heartbeat_settings().items() <= worker.items()
    assert services["worker"]["working_dir"] == worker["GRAFT_PROJECT"] == "/repository"


def test_every_option_of_every_command_exists() -> None:
    helps = {
        "prefect": ["prefect", "server", "start"],
        "mlflow": ["mlflow", "server"],
        "worker": ["prefect", "worker", "start"],
        "deploy": ["prefect", "deploy"],
        "model": ["graft.flows.cli", "serve"],
    }
    services = compose()["services"]
    assert helps.keys() == {name for name, service in services.items() if "command" in service}
    for name, words in helps.items():
        done = subprocess.run(
            [sys.executable, "-m", *words, "--help"],
            env={**os.environ, "COLUMNS": "200"},
            capture_output=True,
            text=True,
            check=True,
        )
        for option in (word for word in services[name]["command"] if word.startswith("--")):
            assert f"{option} " in done.stdout.replace("/", " ").replace(",", " "), f"{' '.join(words)} {option}"


def test_the_images_are_pinned_and_made_of_what_is_in_the_repository() -> None:
    text = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    sources = {name for line in re.findall(r"^COPY (.+) \S+$", text, re.MULTILINE) for name in line.split()}
    assert sources == {
        *("pyproject.toml", "README.md", "LICENSE", "flows", "tasks", "src", "sample"),
        *("deploy/locks", "deploy/locks/servers.txt", "deploy/locks/ray.txt"),
    }
    assert all((ROOT / name).exists() for name in sources)
    sent = (DEPLOY / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    assert {line.removeprefix("!") for line in sent if line.startswith("!")} == {
        name for name in sources if not name.startswith("deploy/locks/")
    }
    stages = set(re.findall(r"^FROM \S+ AS (\w+)$", text, re.MULTILINE))
    for service in compose()["services"].values():
        assert re.fullmatch(r"[a-z-]+:\d+(\.\d+)+(-\w+)?", service["image"])
        if "build" in service:
            assert service["build"]["target"] in stages
            assert (DEPLOY / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
            assert service["build"]["args"]["PYTHON_IMAGE"] == examples()["PYTHON_IMAGE"]
    assert f"ARG PYTHON_IMAGE={examples()['PYTHON_IMAGE']}\nFROM ${{PYTHON_IMAGE}} AS base" in text
    assert examples()["PYTHON_IMAGE"].startswith("python:3.11."), "the Python whose versions constraints.txt holds"
    assert text.count("\nUSER graft\n") == 3, "no image runs as root"


# deploy/locks


def lock(name: str) -> dict[str, str]:
    """Package -> version, of a lock all whose lines have hashes."""
    text = (DEPLOY / "locks" / f"{name}.txt").read_text(encoding="utf-8")
    entry = re.compile(r"([a-z0-9-]+)==(\S+)( ; platform_machine == '\w+')?(?: \\\n    --hash=sha256:[0-9a-f]{64})+\n")
    assert not entry.sub("", text.partition("\n")[2]), "each package has a version and at least one hash"
    return {found[1]: found[2] for found in entry.finditer(text)}


def constraints() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = (line.split(";")[0].strip().split("==") for line in lines if line and not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in pairs}


def test_the_containers_get_the_versions_of_the_constraints() -> None:
    pins = constraints()
    for file in (DEPLOY / "locks").iterdir():
        for package, version in lock(file.stem).items():
            assert pins.get(package, version) == version, f"make lock: {file.name} has {package} {version}"


def test_the_image_of_the_worker_has_all_that_graft_needs() -> None:
    locked = lock("worker").keys() | lock("torch").keys()
    assert needed("graft").keys() - {"graft"} <= locked
    assert not lock("worker").keys() & lock("torch").keys()


def test_pip_installs_nothing_without_a_hash_but_graft_itself_and_torch_of_another_index() -> None:
    text = (DEPLOY / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    commands = [" ".join(found.split()) for found in re.findall(r"pip install [^;&\n]+", text)]
    assert len(commands) == 6
    assert all("--no-deps" in command for command in commands)
    without = [command for command in commands if "--require-hashes" not in command]
    assert [command.split()[-1] for command in without if "TORCH_INDEX" not in command] == ["."]
    assert text.count("&& pip check") == 3, "a lock that lacks a package is noticed"


def test_each_remote_that_the_example_offers_has_a_lock() -> None:
    text = (DEPLOY / ".env.example").read_text(encoding="utf-8")
    offered = re.search(r"the package that it needs \(([^;]+);", text)
    assert offered is not None
    assert {f"dvc-{name}" for name in offered[1].split(", ")} == {
        file.stem for file in (DEPLOY / "locks").glob("dvc-*.txt")
    }


# the worker's credentials


def test_git_of_the_worker_finds_the_token() -> None:
    settings = {"GIT_HOST": "git.example.org", "GIT_USERNAME": "robot", "GIT_TOKEN": "t0ken"}
    environment = compose(**settings)["services"]["worker"]["environment"]
    asked = {**os.environ, **environment, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    question = "protocol=https\nhost=git.example.org\n\n"
    done = subprocess.run(["git", "credential", "fill"], input=question, env=asked, capture_output=True, text=True)
    assert done.stdout.splitlines() == [*question.split(), "username=robot", "password=t0ken"]

    for host in ("evil.example.org", "git.example.org.evil.org"):
        other = f"protocol=https\nhost={host}\n\n"
        done = subprocess.run(["git", "credential", "fill"], input=other, env=asked, capture_output=True, text=True)
        assert done.returncode, f"{host} gets no token"
        assert "t0ken" not in done.stdout

    for name in ("GIT_TOKEN", "GIT_HOST"):
        environment = compose(**{**settings, name: ""})["services"]["worker"]["environment"]
        done = subprocess.run(
            ["git", "credential", "fill"], input=question, env={**asked, **environment}, capture_output=True, text=True
        )
        assert done.returncode, f"without {name} git fails at once"


# the servers of deploy/compose.yaml as processes, their databases in files


@contextmanager
def started(service: dict[str, Any], folder: Path, swaps: dict[str, str], environment: dict[str, str]) -> Iterator[str]:
    """The service's own command as a process, but for what `swaps` replaces; gives its health check's address."""
    words = [swaps.get(word, word) for word in service["command"]]
    check = re.search(r"http://\S+?(?=')", service["healthcheck"]["test"][-1])
    assert check is not None
    address = check[0].replace(str(urlsplit(check[0]).port), words[words.index("--port") + 1])
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "PREFECT_"))}
    process = subprocess.Popen(
        [sys.executable, "-m", *words],
        cwd=folder,
        env={**kept, **service["environment"], **environment},
        stdout=(folder / "log").open("w"),
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        wait_for(lambda: process.poll() is not None or answers(address), seconds=TIME_LIMIT)
        assert process.poll() is None, (folder / "log").read_text(encoding="utf-8")
        yield address
    finally:
        subprocess.run(shlex.split(f"kill -TERM -- -{process.pid}"), check=False)
        process.wait(30)


def status(url: str, data: bytes | None = None, **headers: str) -> int:
    request = urllib.request.Request(url, data=data, headers={**headers, "Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=30) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_the_mlflow_server_answers_by_its_names_who_has_the_password_and_keeps_artifacts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    port = str(free_port())
    services = compose(MLFLOW_PORT=port, PUBLIC_HOST="graft.example.org")["services"]
    swaps = {"5000": port, "0.0.0.0": "127.0.0.1", "/artifacts": str(tmp_path / "artifacts")}
    logins = (DEPLOY / "mlflow-login.ini").read_text(encoding="utf-8").replace("////login/", f"///{tmp_path}/")
    (tmp_path / "login.ini").write_text(logins, encoding="utf-8")
    database = {
        "MLFLOW_BACKEND_STORE_URI": f"sqlite:///{tmp_path}/mlflow.db",
        "MLFLOW_AUTH_CONFIG_PATH": str(tmp_path / "login.ini"),
    }
    with started(services["mlflow"], tmp_path, swaps, database) as health:
        base = health.removesuffix("/health")
        search = f"{base}/api/2.0/mlflow/experiments/search"
        within = urlsplit(services["worker"]["environment"]["MLFLOW_TRACKING_URI"]).netloc
        login = basic("graft:secretsecret")
        for name in (within, f"localhost:{port}", f"127.0.0.1:{port}", f"graft.example.org:{port}"):
            assert status(f"{search}?max_results=1", Host=name, **login) == 200, name
            assert status(f"{search}?max_results=1", Host=name) == 401, name
        for name in ("evil.example.org", f"evil.example.org:{port}", "mlflow.evil.example.org:5000"):
            assert status(f"{search}?max_results=1", Host=name, **login) == 403, name
        question = b'{"max_results": 1}'
        assert status(search, question, Origin=f"http://graft.example.org:{port}", **login) == 200
        assert status(search, question, Origin="http://evil.example.org", **login) == 403
        for path in (
            "/",
            "/api/2.0/mlflow-artifacts/artifacts",
            "/ajax-api/2.0/mlflow/experiments/search?max_results=1",
        ):
            assert status(base + path) == status(base + path, **basic("graft:guessed")) == 401, path

        for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
            monkeypatch.setenv(name, services["worker"]["environment"][name])
        client = MlflowClient(base)
        run = client.create_run(client.create_experiment("graft"))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", base)  # of the artifacts' own client
        client.log_text(run.info.run_id, "kept", "note.txt")
        assert run.info.artifact_uri.startswith("mlflow-artifacts:/")
        (kept,) = (tmp_path / "artifacts").rglob("note.txt")
        assert kept.read_text(encoding="utf-8") == "kept"


def basic(login: str) -> dict[str, str]:
    return {"Authorization": f"Basic {base64.b64encode(login.encode()).decode()}"}


def test_the_prefect_server_tells_its_pages_where_it_is_and_answers_only_who_has_the_password(tmp_path: Path) -> None:
    port = str(free_port())
    services = compose(PREFECT_PORT=port, PUBLIC_HOST="graft.example.org")["services"]
    service = services["prefect"]
    database = {
        "PREFECT_HOME": str(tmp_path),
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{tmp_path}/prefect.db",
    }
    with started(service, tmp_path, {"4200": port, "0.0.0.0": "127.0.0.1"}, database) as health:
        with urllib.request.urlopen(health.replace("/api/health", "/ui-settings"), timeout=30) as reply:
            told = reply.read().decode()
        assert f"http://graft.example.org:{port}/api" in told
        url = health.replace("/health", "/admin/version")
        login = basic(services["worker"]["environment"]["PREFECT_API_AUTH_STRING"])
        assert status(url, **login) == 200
        assert status(url) == status(url, Host="evil.example.org") == 401
        pages = f"http://graft.example.org:{port}"
        for origin, allowed in ((pages, pages), ("http://evil.example.org", None)):
            request = urllib.request.Request(url, headers={**login, "Origin": origin})
            with urllib.request.urlopen(request, timeout=30) as reply:
                assert reply.headers["Access-Control-Allow-Origin"] == allowed


# Kubernetes


def test_the_ray_cluster_has_the_version_that_is_locked_asks_for_a_token_and_runs_confined() -> None:
    cluster = yaml.safe_load((DEPLOY / "kuberay.yaml").read_text(encoding="utf-8"))
    spec = cluster["spec"]
    assert (cluster["apiVersion"], cluster["kind"]) == ("ray.io/v1", "RayCluster")
    assert spec["rayVersion"] == lock("ray")["ray"] == constraints()["ray"]
    assert spec["authOptions"] == {"mode": "token"}
    groups = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert all(isinstance(value, str) for group in groups for value in group["rayStartParams"].values())
    for pod in (group["template"]["spec"] for group in groups):
        (container,) = pod["containers"]
        assert container["image"].startswith("graft-node:")
        assert {"name": "RAY_USAGE_STATS_ENABLED", "value": "0"} in container["env"]
        assert pod["securityContext"]["runAsNonRoot"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["limits"].keys() == {"cpu", "memory"}
        assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
