"""Errors to problem details and back."""

from __future__ import annotations

import errno
import sqlite3

import msgspec
import pytest

import headrace as hr
from headrace import errors
from headrace.serving.problems import KINDS, NOT_ALLOWED, ProblemError, error_of, headers_of, kind_of, problem_of


def full_disk() -> hr.StorageError:
    try:
        raise OSError(errno.ENOSPC, "No space left on device")
    except OSError as cause:
        try:
            raise hr.StorageError("expected to write, found no space") from cause
        except hr.StorageError as error:
            return error


def full_database() -> hr.StorageError:
    cause = sqlite3.OperationalError("database or disk is full")
    cause.sqlite_errorcode = sqlite3.SQLITE_FULL
    error = hr.StorageError("cannot write the table")
    error.__cause__ = cause
    return error


STATUSES = [
    (hr.UnknownNameError("x"), 404),
    (hr.TooLargeError("x"), 413),
    (hr.DecodeError("x"), 400),
    (hr.InputError("x"), 400),
    (hr.StaleError("x"), 504),
    (hr.LockedError("x"), 503),
    (hr.StorageError("x"), 503),
    (full_disk(), 507),
    (full_database(), 507),
    (hr.ClosedError("x"), 503),
    (hr.SchemaError("x"), 500),
    (hr.MissingDependencyError("x"), 500),
    (hr.RemoteError("x"), 502),
    (ProblemError(NOT_ALLOWED, "x"), 405),
    (KeyError("x"), 500),
]


@pytest.mark.parametrize(("error", "status"), STATUSES, ids=[type(error).__name__ for error, _ in STATUSES])
def test_status_of_each_error(error: Exception, status: int) -> None:
    assert problem_of(error).status == status


def test_the_detail_is_the_errors_own_message() -> None:
    problem = problem_of(hr.UnknownNameError("no view 'x'"), "/v1/features/x/1")
    assert msgspec.json.decode(msgspec.json.encode(problem)) == {
        "type": "urn:headrace:problem:unknown-name",
        "title": "Nothing has that name",
        "status": 404,
        "detail": "no view 'x'",
        "instance": "/v1/features/x/1",
    }


def test_a_fault_of_ours_shows_nothing_of_itself() -> None:
    problem = problem_of(KeyError("secret"), "urn:uuid:1")
    assert (problem.status, problem.detail) == (500, "the server failed; its log has the reason under urn:uuid:1")


def test_the_client_is_told_when_to_come_again() -> None:
    assert (b"retry-after", b"1") in headers_of(hr.ClosedError("x"))


INPUTS = [
    errors.DecodeError,
    errors.UnknownNameError,
    errors.TooLargeError,
    errors.InputError,
    errors.StaleError,
    errors.StorageError,
    errors.LockedError,
    errors.ClosedError,
]


@pytest.mark.parametrize("kind", INPUTS)
def test_an_error_comes_out_of_its_problem_as_it_went_in(kind: type[hr.HeadraceError]) -> None:
    problem = problem_of(kind("what and why"))
    back = error_of(problem.status, msgspec.json.encode(problem))
    assert (type(back), str(back)) == (kind, "what and why")


def test_a_full_disk_is_a_storage_error_again() -> None:
    problem = problem_of(full_disk())
    assert type(error_of(problem.status, msgspec.json.encode(problem))) is hr.StorageError


@pytest.mark.parametrize("error", [KeyError("x"), hr.ConfigError("x"), ProblemError(NOT_ALLOWED, "x")])
def test_what_is_only_the_servers_is_a_remote_error(error: Exception) -> None:
    problem = problem_of(error)
    back = error_of(problem.status, msgspec.json.encode(problem))
    assert isinstance(back, hr.RemoteError)
    assert back.status == problem.status


@pytest.mark.parametrize(
    "body", [b"", b"<html>no gateway</html>", b"[]", b"null", b"\xff", b'{"type": 7}', b'{"detail": null}']
)
def test_an_answer_that_is_no_problem_is_a_remote_error(body: bytes) -> None:
    back = error_of(502, body)
    assert isinstance(back, hr.RemoteError)
    assert back.status == 502


def test_each_kind_has_its_own_name() -> None:
    assert all(slug == kind.slug for slug, kind in KINDS.items())
    assert kind_of(full_disk()).slug == "storage-full"
