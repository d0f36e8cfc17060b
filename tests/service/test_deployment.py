"""What `docker/` has for containers and schedulers: linted, and in agreement with the commands and with each other."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from itertools import chain
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from indexer.catalogue.home import Home
from service.settings import Settings
from tests.commands import installed, parse

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
DOCKERFILE = (DOCKER / "Dockerfile").read_text()
INSTALLED = "/opt/nitamono/bin/nitamono"
UNITS = sorted((DOCKER / "systemd").iterdir())
CRON = (DOCKER / "cron" / "nitamono").read_text()
MANIFESTS = [path for path in sorted((DOCKER / "kubernetes").iterdir()) if path.name != "kustomization.yaml"]
OBJECTS = {
    f"{found['kind']}/{found['metadata']['name']}": found
    for path in MANIFESTS
    for found in yaml.safe_load_all(path.read_text())
}
OVERLAYS: tuple[tuple[str, ...], ...] = (
    (), ("postgres",), ("monitoring",), ("cuda",), ("postgres", "monitoring", "cuda"),
)  # fmt: skip


def tool(name: str, package: str) -> str:
    """A program beside this Python or on the path; a Debian package that is missing skips the test outside of CI."""
    found = shutil.which(name, path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    return installed(name, found, package)


def passes(*command: object, **options: Any) -> str:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def composed(*overlays: str) -> dict[str, Any]:
    """The services of compose files, as `docker compose` merges them."""
    files = [DOCKER / "compose.yaml", *(DOCKER / f"compose.{name}.yaml" for name in overlays)]
    needed = {f"NITAMONO_{name}": "x" for name in ("PHOTOS", "DB_PASSWORD", "GRAFANA_PASSWORD")}
    options = list(chain.from_iterable(("--file", str(path)) for path in files))
    command = [tool("docker-compose", "docker-compose"), *options, "--profile", "*", "config", "--format", "json"]
    services: dict[str, Any] = json.loads(passes(*command, env={**os.environ, **needed}))["services"]
    return services


def pods() -> dict[str, Any]:
    """The pod of the deployment and of each job."""
    found = {}
    for name, each in OBJECTS.items():
        if each["kind"] == "Deployment":
            found[name] = each["spec"]["template"]["spec"]
        elif each["kind"] == "CronJob":
            found[name] = each["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    return found


def command_lines() -> dict[str, list[str]]:
    """Every command line of `nitamono` in docker/, by where it is."""
    found = {"Dockerfile": [f"nitamono {' '.join(json.loads(re.findall('^CMD (.*)', DOCKERFILE, re.M)[0]))}"]}
    for path in UNITS:
        found[path.name] = re.findall(r"/nitamono [^'\n]+", path.read_text())
    found["cron"] = re.findall(r"\$(NITAMONO .*?) 2>&1", CRON)
    found["compose"] = [f"nitamono {shlex.join(s['command'])}" for s in composed("cuda").values() if s.get("command")]
    for name, pod in pods().items():
        args = pod["containers"][0]["args"]
        found[name] = re.findall(r"^nitamono .+", "\n".join(args), re.M) or [f"nitamono {shlex.join(args)}"]
    return found


def test_hadolint_passes_the_dockerfile() -> None:
    passes(tool("hadolint", "hadolint"), DOCKER / "Dockerfile")


@pytest.mark.parametrize("overlays", OVERLAYS, ids=["-".join(names) or "alone" for names in OVERLAYS])
def test_docker_compose_accepts_the_files_and_their_overlays(overlays: tuple[str, ...]) -> None:
    services = composed(*overlays)
    stages = set(re.findall(r"^FROM \S+ AS (\S+)", DOCKERFILE, re.M))
    assert {service["build"]["target"] for service in services.values() if "build" in service} <= stages
    assert services["retrain"]["build"]["target"] == ("cuda" if "cuda" in overlays else "train")
    urls = [services[name]["environment"].get("NITAMONO_DATABASE_URL") for name in ("nitamono", "retrain")]
    expected = "postgresql+psycopg://nitamono:x@database/nitamono" if "postgres" in overlays else None
    assert urls == [expected, expected]


@pytest.mark.parametrize("name", OBJECTS)
def test_kubernetes_schemas_accept_the_manifests(name: str) -> None:
    kubernetes_validate.validate(OBJECTS[name], "1.37", strict=True)


def test_kustomize_renders_every_manifest() -> None:
    rendered = passes(tool("kubectl", "kubernetes-client"), "kustomize", DOCKER / "kubernetes")
    found = {f"{each['kind']}/{each['metadata']['name']}": each for each in yaml.safe_load_all(rendered)}
    assert found.keys() == OBJECTS.keys()
    images = set(re.findall(r"image: (\S+)", rendered))
    assert images == {"nitamono:latest", "nitamono:train"}


def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    analyze = tool("systemd-analyze", "systemd")
    for path in UNITS:
        (tmp_path / path.name).write_text(path.read_text().replace(INSTALLED, sys.executable))
    assert {path.suffix for path in UNITS} == {".service", ".timer"}
    passes(analyze, "verify", *(tmp_path / path.name for path in UNITS))


def test_cron_accepts_the_lines(tmp_path: Path) -> None:
    """`crontab` reads the table of one user, which has no column for the user."""
    table = re.sub(r"^((?:\S+ +){5})nitamono  ", r"\1", CRON, flags=re.M)
    assert table.count("  nitamono  ") == 0 != CRON.count("  nitamono  ")
    (tmp_path / "table").write_text(table)
    passes(tool("crontab", "cron"), "-n", tmp_path / "table")


def test_every_command_line_parses() -> None:
    found = command_lines()
    assert all(found[name] for name in ("Dockerfile", "cron", "compose", *pods()))
    assert all(found[path.name] for path in UNITS if path.suffix == ".service")
    for line in chain.from_iterable(found.values()):
        parse(shlex.split(re.sub(r"\$\([^)]*\)", "date", line)))


@pytest.mark.slow
def test_cron_prints_what_failed_and_nothing_else(tmp_path: Path) -> None:
    """Old backups are removed after a new one has succeeded, and only then."""
    backups = tmp_path / "backups"
    for name in ("2020-01-01", "2020-02-02", "notes"):
        (backups / name).mkdir(parents=True)
        os.utime(backups / name, (0, 0))
    os.utime(backups / "2020-02-02")
    (line,) = re.findall(r"nitamono  (.*backup.*)", CRON)
    variables = {"BACKUPS": str(backups), "NITAMONO": f"{sys.executable} -m service.cli"}

    def run(home: Path) -> str:
        settings = {**variables, "NITAMONO_HOME": str(home)}
        return passes("/bin/sh", "-c", line.replace("\\%", "%"), cwd=ROOT, env={**os.environ, **settings})

    assert run(tmp_path / "home").startswith(f"nitamono: no home at {tmp_path / 'home'}")
    assert (backups / "2020-01-01").exists()
    with Home.open(tmp_path / "home", create=True):
        pass
    assert run(tmp_path / "home") == ""
    left = sorted(path.name for path in backups.iterdir())
    assert left[0] == "2020-02-02" and left[2] == "notes" and (backups / left[1] / "backup.json").exists()


def test_whoever_stops_the_server_waits_longer_than_it_drains() -> None:
    drain = Settings().drain_seconds
    service = (DOCKER / "systemd" / "nitamono.service").read_text()
    (systemd,) = re.findall(r"^TimeoutStopSec=(\d+)", service, re.M)
    grace = composed()["nitamono"]["stop_grace_period"]
    assert grace.endswith("s")
    kubernetes = pods()["Deployment/nitamono"]["terminationGracePeriodSeconds"]
    assert drain < min(int(systemd), int(grace.removesuffix("s")), kubernetes)


def test_containers_run_as_the_user_of_the_image_and_keep_its_home() -> None:
    (user,) = re.findall(r"^USER (\d+)", DOCKERFILE, re.M)
    (home,) = re.findall(r"NITAMONO_HOME=(\S+)", DOCKERFILE)
    assert f"--uid {user} " in DOCKERFILE and f"VOLUME {home}\n" in DOCKERFILE
    for pod in pods().values():
        security = pod["securityContext"]
        assert security["runAsNonRoot"] and {security["runAsUser"], security["fsGroup"]} == {int(user)}
        (container,) = pod["containers"]
        assert container["resources"]["limits"]["memory"]
        assert container["securityContext"]["readOnlyRootFilesystem"]
        assert home in {mount["mountPath"] for mount in container["volumeMounts"]}
    for name in ("nitamono", "retrain"):
        mounts = {volume["target"]: volume for volume in composed()[name]["volumes"]}
        assert (mounts[home]["type"], mounts["/photos"]["type"]) == ("volume", "bind")


def test_a_volume_gets_the_owner_of_the_folder_in_the_image() -> None:
    """It exists before `VOLUME`, owned by the user; otherwise root would own what is mounted there."""
    made = DOCKERFILE.index("install --directory --owner=nitamono --group=nitamono /home/nitamono/data")
    assert made < DOCKERFILE.index("\nVOLUME /home/nitamono/data")
