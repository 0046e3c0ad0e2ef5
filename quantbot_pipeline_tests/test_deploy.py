"""The files of deploy/: they name only what exists, in themselves, in the settings, in the package and in Dagster's chart.

There is no container engine and no `helm` here, so nothing of it is run; `orchestration.test_cluster` runs the same dagster.yaml and
the same command of a worker as processes.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from quantbot_pipeline.orchestration.cluster.run_launcher import ClusterRunLauncher
from quantbot_pipeline.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
DEPLOY = ROOT / "deploy"
COMPOSE = DEPLOY / "compose"
FILES = [path for path in [*DEPLOY.rglob("*"), ROOT / ".dockerignore"] if path.is_file()]
# The names of the chart's schema (helm/dagster/schema of Dagster 1.13) that the values use, level by level.
DEPLOYMENT = {"name", "image", "dagsterApiGrpcArgs", "port", "includeConfigInLaunchedRuns", "env", "envSecrets"}
CHART = {
    "": {
        *("dagster-user-deployments", "dagsterWebserver", "dagsterDaemon", "runLauncher", "postgresql"),
        *("computeLogManager", "telemetry", "additionalInstanceConfig"),
    },
    "dagster-user-deployments": {"enabled", "enableSubchart", "deployments"},
    "dagster-user-deployments.deployments.0": DEPLOYMENT | {"securityContext", "resources"},
    "dagsterWebserver": {"image", "securityContext"},
    "dagsterDaemon": {"image", "securityContext", "runMonitoring", "runRetries"},
    "dagsterDaemon.runMonitoring": {
        *(
            "enabled",
            "startTimeoutSeconds",
            "maxResumeRunAttempts",
            "pollIntervalSeconds",
            "freeSlotsAfterRunEndSeconds",
        ),
    },
    "dagsterDaemon.runRetries": {"enabled", "maxRetries"},
    "runLauncher": {"type", "config"},
    "runLauncher.config": {"k8sRunLauncher"},
    "runLauncher.config.k8sRunLauncher": {"imagePullPolicy"},
    "postgresql": {"enabled", "postgresqlScheme"},
    "computeLogManager": {"type"},
    "telemetry": {"enabled"},
    "additionalInstanceConfig": {"nux", "concurrency"},
}


def read(path: Path) -> Any:
    """A YAML file."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    found: dict[str, Any] = read(COMPOSE / "compose.yaml")
    return found


def ours(compose: dict[str, Any]) -> dict[str, Any]:
    """The services that run our image."""
    return {name: one for name, one in compose["services"].items() if one["image"] == "quantbot:local"}


def test_the_services_are_those_of_a_cluster_and_share_nothing_but_three_servers(compose: dict[str, Any]) -> None:
    assert set(ours(compose)) == {"code", "webserver", "daemon", "worker"}
    assert set(compose["services"]) - set(ours(compose)) == {"postgres", "redis", "s3", "bucket"}
    assert all("volumes" not in one for one in ours(compose).values()), "workers have no disk in common"
    environments = [one["environment"] for one in ours(compose).values()]
    assert all(one == environments[0] for one in environments)


def test_whatever_a_service_waits_for_and_whatever_it_mounts_exists(compose: dict[str, Any]) -> None:
    services = compose["services"]
    for name, one in services.items():
        for other, how in one.get("depends_on", {}).items():
            assert other in services, (name, other)
            if how["condition"] == "service_healthy":
                assert "healthcheck" in services[other], other
        for mount in one.get("volumes", ()):
            assert mount.split(":")[0] in compose["volumes"], mount
    mounted = {mount.split(":")[0] for one in services.values() for mount in one.get("volumes", ())}
    assert mounted == set(compose["volumes"])


def test_addresses_name_services_and_their_ports(compose: dict[str, Any]) -> None:
    environment = compose["x-quantbot"]["environment"]
    hosts = {host for value in environment.values() for host in re.findall(r"(?<=[@/])(\w+):\d+", value)}
    assert hosts == {"postgres", "redis", "s3"}
    (server,) = read(COMPOSE / "workspace.yaml")["load_from"]
    code = compose["services"][server["grpc_server"]["host"]]["command"]
    assert code[code.index("-p") + 1] == str(server["grpc_server"]["port"])
    assert code[code.index("-m") + 1] == server["grpc_server"]["location_name"] == "quantbot_pipeline.definitions"
    (port,) = compose["services"]["webserver"]["ports"]
    assert port.startswith("127.0.0.1:"), "there is no authentication"


def test_runs_at_once_are_as_many_as_worker_processes(compose: dict[str, Any]) -> None:
    worker = compose["services"]["worker"]
    processes = int(worker["command"][worker["command"].index("--concurrency") + 1])
    instance = read(COMPOSE / "dagster.yaml")
    assert instance["concurrency"]["runs"]["max_concurrent_runs"] == worker["deploy"]["replicas"] * processes
    assert "deploy" not in compose["services"]["daemon"], "two daemons launch everything twice"


def test_the_variables_are_in_the_example_and_no_secret_is(compose: dict[str, Any]) -> None:
    text = (COMPOSE / "compose.yaml").read_text()
    example = dict(line.split("=") for line in (COMPOSE / "example.env").read_text().splitlines() if "=" in line)
    assert set(re.findall(r"\$\{(\w+)", text)) == set(example)
    assert {name: value for name, value in example.items() if value} == {"FIRST_MONTH": "2024-01"}
    assert re.findall(r"\$\{\w+}", text) == [], "a variable that is not set ends the command"


def test_the_instance_names_variables_that_every_program_has(compose: dict[str, Any]) -> None:
    instance = read(COMPOSE / "dagster.yaml")
    wanted = set(re.findall(r"env: (\w+)", (COMPOSE / "dagster.yaml").read_text()))
    assert wanted == {"DAGSTER_POSTGRES_URL", "CELERY_BROKER_URL"}
    assert wanted <= set(compose["x-quantbot"]["environment"])
    launcher = instance["run_launcher"]
    assert (launcher["module"], launcher["class"]) == (ClusterRunLauncher.__module__, ClusterRunLauncher.__name__)
    assert set(launcher["config"]) <= set(ClusterRunLauncher.config_type())
    assert "orchestration.local" not in (COMPOSE / "dagster.yaml").read_text()


def settings_named() -> Iterator[tuple[str, str]]:
    """(file, setting) of every QUANTBOT_ variable in deploy/."""
    for path in FILES:
        for name in re.findall(r"QUANTBOT_(\w+)", path.read_text(encoding="utf-8")):
            yield path.name, name.lower()


def test_settings_that_are_named_exist() -> None:
    found = list(settings_named())
    assert {file for file, _ in found} >= {"compose.yaml", "values.yaml", "Containerfile", "quantbot-daemon.service"}
    assert [(file, name) for file, name in found if name not in Settings.model_fields] == []


def test_the_values_use_names_of_the_chart() -> None:
    values = read(DEPLOY / "kubernetes" / "values.yaml")
    for path, known in CHART.items():
        found: Any = values
        for step in filter(None, path.split(".")):
            found = found[int(step) if step.isdigit() else step]
        assert set(found) == known, path
    instance = read(COMPOSE / "dagster.yaml")
    assert values["additionalInstanceConfig"]["concurrency"]["pools"] == instance["concurrency"]["pools"]
    (code,) = values["dagster-user-deployments"]["deployments"]
    assert code["dagsterApiGrpcArgs"] == ["-m", "quantbot_pipeline.definitions"]
    assert not any("KEY" in name for name in code["env"]), "keys are in a secret"


def test_the_image_is_made_of_files_that_exist_and_runs_as_nobody_special() -> None:
    lines = re.sub(r"\\\n", " ", (DEPLOY / "Containerfile").read_text()).splitlines()
    copied = [word for line in lines if line.startswith("COPY") for word in line.split()[1:-1] if word[0] != "-"]
    assert len(copied) > 5
    admitted = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for name in copied:
        assert (ROOT / name).exists(), name
        assert any(name == one or name.startswith(f"{one}/") for one in admitted), f"{name} is left out of the build"
    installs = [line for line in lines if "pip install" in line]
    assert "--constraint constraints.txt" in installs[0]
    assert "--no-deps" in installs[1]
    user = lines.index("USER quantbot")
    assert not any(line.startswith(("USER", "COPY")) for line in lines[user + 1 :])
    assert "RUN quantbot warm-up" in lines[user:], "whoever runs it owns the compiled engine"
