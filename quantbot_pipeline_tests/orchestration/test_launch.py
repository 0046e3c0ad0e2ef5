"""A run that the command line made is, to Dagster, a run of the job that the web UI serves."""

import dagster as dg
import pytest
from dagster._core.remote_origin import GrpcServerCodeLocationOrigin, RemoteRepositoryOrigin
from dagster._core.storage.tags import MAX_RETRIES_TAG as DAGSTERS_TAG
from dagster._core.storage.tags import REPOSITORY_LABEL_TAG, WILL_RETRY_TAG

from quantbot_pipeline.definitions import defs
from quantbot_pipeline.orchestration.launch import LOCATION, MAX_RETRIES_TAG
from quantbot_pipeline.orchestration.partitions import MONTHS_TAG, months_of
from quantbot_pipeline_tests.conftest import Quantbot


@pytest.fixture
def launched(quantbot: Quantbot, instance: dg.DagsterInstance) -> list[dg.DagsterRun]:
    """Two runs, in the order of their months: April has no call."""
    assert quantbot("backtest", "policy", "--from", "2024-02", "--to", "2024-05").status == 0
    return list(instance.get_runs(ascending=True))


def served_origin() -> RemoteRepositoryOrigin:
    """Where `quantbot ui` has its jobs from; the socket is another at every start."""
    server = GrpcServerCodeLocationOrigin(host="localhost", socket="/tmp/any", location_name=LOCATION)
    return RemoteRepositoryOrigin(server, defs.get_repository_def().name)


def test_the_run_belongs_to_the_job_that_the_web_ui_serves(
    launched: list[dg.DagsterRun], instance: dg.DagsterInstance
) -> None:
    served = served_origin()
    for run in launched:
        assert run.status == dg.DagsterRunStatus.SUCCESS
        assert run.remote_job_origin is not None
        assert run.remote_job_origin.job_name == "policy"
        assert run.remote_job_origin.repository_origin.get_selector() == served.get_selector()
    # By this the run lists of the job, of the timeline and of the code location are filtered.
    listed = instance.get_runs(dg.RunsFilter(job_name="policy", tags={REPOSITORY_LABEL_TAG: served.get_label()}))
    assert {run.run_id for run in listed} == {run.run_id for run in launched}


def test_the_job_of_the_run_has_not_changed_since(launched: list[dg.DagsterRun]) -> None:
    # Though this home is given by hand to the resources of the work.
    assert {run.job_snapshot_id for run in launched} == {defs.resolve_job_def("policy").get_job_snapshot_id()}


def test_the_months_of_the_run_are_a_tag_that_the_run_list_shows(launched: list[dg.DagsterRun]) -> None:
    assert [run.tags[MONTHS_TAG] for run in launched] == ["2024-02 … 2024-03", "2024-05"]
    assert [months_of(run.tags) for run in launched] == [["2024-02", "2024-03"], ["2024-05"]]
    assert not MONTHS_TAG.startswith("dagster/"), "the web UI shows Dagster's own tags on request"


def test_the_daemon_repeats_no_run_that_somebody_started_by_hand(
    launched: list[dg.DagsterRun], instance: dg.DagsterInstance
) -> None:
    assert MAX_RETRIES_TAG == DAGSTERS_TAG
    assert instance.run_retries_enabled
    job = defs.resolve_job_def("policy")
    for tags, repeated in (({}, "true"), (launched[0].tags, "false")):
        killed = instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED, tags=tags)
        instance.report_run_failed(killed)
        found = instance.get_run_by_id(killed.run_id)
        assert found is not None
        assert found.tags[WILL_RETRY_TAG] == repeated
