from __future__ import annotations

from dataclasses import replace

import pytest

from chairlift.errors import IllegalTransition
from chairlift.server.jobs.job import JobStatus, is_job_id, transition
from tests.server.jobs.builders import a_job, job_id


def test_a_job_that_has_ended_goes_nowhere() -> None:
    ended = [status for status in JobStatus if status.is_terminal]
    assert ended == [JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED]
    for old in ended:
        for new in JobStatus:
            with pytest.raises(IllegalTransition, match=f"from {old} to {new}"):
                transition(old, new)


def test_a_job_succeeds_only_if_it_has_run() -> None:
    assert transition(JobStatus.QUEUED, JobStatus.RUNNING) is JobStatus.RUNNING
    assert transition(JobStatus.RUNNING, JobStatus.SUCCEEDED) is JobStatus.SUCCEEDED
    with pytest.raises(IllegalTransition):
        transition(JobStatus.QUEUED, JobStatus.SUCCEEDED)


@pytest.mark.parametrize("status", [JobStatus.QUEUED, JobStatus.RUNNING])
def test_an_unfinished_job_may_fail_and_be_cancelled(status: JobStatus) -> None:
    assert transition(status, JobStatus.FAILED).is_terminal
    assert transition(status, JobStatus.CANCELLED).is_terminal


def test_a_job_that_lost_its_server_returns_to_the_queue() -> None:
    assert transition(JobStatus.RUNNING, JobStatus.QUEUED) is JobStatus.QUEUED


@pytest.mark.parametrize(
    "text",
    [
        "",
        "job_",
        "job_" + 32 * "A",
        "job_" + 31 * "0",
        "../" + job_id(0),
        job_id(0) + "\n",
        "req_1",
    ],
)
def test_no_other_name_is_a_jobs_id(text: str) -> None:
    assert is_job_id(job_id(0))
    assert not is_job_id(text)
    with pytest.raises(ValueError, match="not a job's id"):
        replace(a_job(), id=text)
