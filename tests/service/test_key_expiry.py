"""API keys that expire and are rotated: what each secret opens, and what the commands and metrics say."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from indexer.catalogue.catalogue import Catalogue
from indexer.catalogue.schema import api_keys
from indexer.errors import InvalidRequestError, NotFoundError
from service.auth import create_key, hash_key, rotate_key
from service.cli import app
from service.expiry import parse_duration, parse_expiry
from tests.service.conftest import Serve, assert_problem, bearer
from tests.service.test_home_metrics import parsed

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
ITEM = "/v1/collections/shop/items/bag/0000"


def soon(**duration: int) -> datetime:
    return datetime.now(UTC) + timedelta(**duration)


def move_back(catalogue: Catalogue, name: str, **duration: int) -> None:
    """Let time pass for a key: all its times move into the past."""
    columns = (api_keys.c.created_at, api_keys.c.rotated_at, api_keys.c.expires_at, api_keys.c.previous_expires_at)
    with catalogue.write() as connection:
        row = connection.execute(sa.select(*columns).where(api_keys.c.name == name)).mappings().one()
        moved = {column: None if at is None else at - timedelta(**duration) for column, at in row.items()}
        connection.execute(sa.update(api_keys).where(api_keys.c.name == name).values(moved))


def status(client: httpx.Client, key: str) -> int:
    return client.get(ITEM, headers=bearer(key)).status_code


def nitamono(*words: object) -> str:
    done = CliRunner().invoke(app, list(map(str, words)), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_an_expired_key_opens_nothing_and_says_when_it_expired(
    serve: Serve, home_copy: Path, catalogue: Catalogue
) -> None:
    client = serve(home_copy, public_read=False)
    key = create_key(catalogue, "till", "write", soon(days=90))
    assert status(client, key) == 200
    move_back(catalogue, "till", days=91)
    refused = client.delete(ITEM, headers=bearer(key))
    detail = assert_problem(refused, 401)["detail"]
    assert f"'till' expired at {soon(days=-1):%Y-%m-%d}" in detail and "nitamono keys rotate" in detail
    assert refused.headers["www-authenticate"] == 'Bearer realm="nitamono", error="invalid_token"'
    assert_problem(client.get("/v1/collections"), 401)  # the last valid key has expired, and still the API is closed
    other = create_key(catalogue, "page", "read")
    assert status(client, other) == 200


def test_an_expired_key_does_not_read_what_is_open_to_anyone(
    serve: Serve, home_copy: Path, catalogue: Catalogue
) -> None:
    client = serve(home_copy)
    key = create_key(catalogue, "till", "read", soon(hours=1))
    move_back(catalogue, "till", hours=2)
    assert status(client, key) == 401
    assert client.get(ITEM).status_code == 200


def test_after_a_rotation_both_secrets_are_valid_until_the_overlap_ends(
    serve: Serve, home_copy: Path, catalogue: Catalogue
) -> None:
    client = serve(home_copy, public_read=False)
    old = create_key(catalogue, "till", "write")
    new = rotate_key(catalogue, "till", overlap=timedelta(hours=24))
    assert old != new and [status(client, key) for key in (old, new)] == [200, 200]
    move_back(catalogue, "till", hours=25)
    assert [status(client, key) for key in (old, new)] == [401, 200]
    detail = assert_problem(client.get(ITEM, headers=bearer(old)), 401)["detail"]
    assert "'till' was replaced" in detail and "use the new one" in detail


def test_a_rotation_without_overlap_ends_the_old_secret_and_a_second_one_ends_the_earliest(
    serve: Serve, home_copy: Path, catalogue: Catalogue
) -> None:
    client = serve(home_copy, public_read=False)
    keys = [create_key(catalogue, "till", "write")]
    keys.append(rotate_key(catalogue, "till", overlap=timedelta()))
    assert [status(client, key) for key in keys] == [401, 200]
    keys.append(rotate_key(catalogue, "till", overlap=timedelta(hours=1)))
    keys.append(rotate_key(catalogue, "till", overlap=timedelta(hours=1)))
    assert [status(client, key) for key in keys] == [401, 401, 200, 200]
    catalogue.keys.revoke("till")
    assert [status(client, key) for key in keys] == [401, 401, 401, 401]
    with pytest.raises(NotFoundError, match="no API key named 'till' that could be rotated"):
        rotate_key(catalogue, "till", overlap=timedelta())
    with pytest.raises(NotFoundError, match="no API key named 'nobody'; `nitamono keys list`"):
        rotate_key(catalogue, "nobody", overlap=timedelta())


def test_a_rotation_renews_the_lifetime_and_does_not_revive_an_expired_secret(
    serve: Serve, home_copy: Path, catalogue: Catalogue
) -> None:
    client = serve(home_copy, public_read=False)
    old = create_key(catalogue, "till", "read", soon(days=90))
    move_back(catalogue, "till", days=91)
    new = rotate_key(catalogue, "till", overlap=timedelta(days=7))
    assert [status(client, key) for key in (old, new)] == [401, 200]
    for _ in range(2):
        expires_at = catalogue.keys.get("till").expires_at
        assert expires_at is not None and abs(expires_at - soon(days=90)) < timedelta(minutes=1)
        rotate_key(catalogue, "till", overlap=timedelta())
    rotate_key(catalogue, "till", overlap=timedelta(), expires_at=soon(days=5))
    expires_at = catalogue.keys.get("till").expires_at
    assert expires_at is not None and abs(expires_at - soon(days=5)) < timedelta(minutes=1)


def test_only_hashes_of_rotated_secrets_are_stored(home_copy: Path, catalogue: Catalogue) -> None:
    old = create_key(catalogue, "till", "admin")
    new = rotate_key(catalogue, "till", overlap=timedelta(days=1))
    found = {key: catalogue.keys.find(hash_key(key)) for key in (old, new)}
    assert [secret and secret.is_replaced for secret in found.values()] == [True, False]
    for file in home_copy.glob("catalogue.sqlite*"):
        assert not any(key.encode() in file.read_bytes() for key in (old, new))


def test_the_commands_create_list_and_rotate(home_copy: Path, catalogue: Catalogue) -> None:
    home = ("--home", home_copy)
    created = json.loads(nitamono("keys", "create", "till", "--scope", "write", "--expires", "90d", "--json", *home))
    assert abs(datetime.fromisoformat(created["expires_at"]) - soon(days=90)) < timedelta(minutes=1)
    create_key(catalogue, "page", "read")
    create_key(catalogue, "past", "read", soon(days=1))
    move_back(catalogue, "past", days=2)
    rotated = nitamono("keys", "rotate", "till", "--overlap", "2h", *home).strip()
    record = catalogue.keys.get("till")
    assert catalogue.keys.find(hash_key(rotated)) and catalogue.keys.find(hash_key(created["key"]))
    lines = nitamono("keys", "list", *home).splitlines()
    assert lines == [
        "page\tread\tvalid",
        f"past\tread\texpired\texpires {soon(days=-1):%Y-%m-%d %H:%M} UTC",
        f"till\twrite\tvalid\texpires {record.expires_at:%Y-%m-%d %H:%M} UTC"
        f"\told secret valid until {record.previous_expires_at:%Y-%m-%d %H:%M} UTC",
    ]
    listed = json.loads(nitamono("keys", "list", "--json", *home))["keys"]
    assert [(key["name"], key["state"]) for key in listed] == [
        ("page", "valid"),
        ("past", "expired"),
        ("till", "valid"),
    ]
    assert created["key"] not in str(listed) and hash_key(rotated) not in str(listed)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90d", NOW + timedelta(days=90)),
        ("30m", NOW + timedelta(minutes=30)),
        ("52w", NOW + timedelta(weeks=52)),
        ("2027-01-31", datetime(2027, 1, 31, tzinfo=UTC)),
        ("2027-01-31T12:00", datetime(2027, 1, 31, 12, tzinfo=UTC)),
        ("2027-01-31T12:00+02:00", datetime(2027, 1, 31, 10, tzinfo=UTC)),
    ],
)
def test_an_expiry_is_a_duration_or_a_date(text: str, expected: datetime) -> None:
    assert parse_expiry(text, NOW) == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("0d", "must be in the future"),
        ("2026-03-01", "must be in the future"),
        ("9999-12-31", "within 100 years"),
        ("2026-02-30", "not an ISO date"),
        ("36501d", "up to 100 years"),
        ("99999999w", "up to 100 years"),
        ("90", "a number and a unit"),
        ("-5d", "a number and a unit"),
        ("1.5h", "a number and a unit"),
        ("٣d", "a number and a unit"),
        ("5d\n", "a number and a unit"),
        ("", "a number and a unit"),
    ],
)
def test_a_wrong_expiry_is_named(text: str, reason: str) -> None:
    with pytest.raises(InvalidRequestError, match=reason) as caught:
        parse_expiry(text, NOW)
    assert repr(text) in str(caught.value)


def test_an_overlap_may_be_nothing() -> None:
    assert parse_duration("overlap", "0m") == timedelta()


def test_metrics_say_when_each_key_expires(serve: Serve, home_copy: Path, catalogue: Catalogue) -> None:
    create_key(catalogue, "for-ever", "read")
    create_key(catalogue, "revoked", "read", soon(days=3))
    catalogue.keys.revoke("revoked")
    expires_at = soon(days=90)
    key = create_key(catalogue, "till", "read", expires_at)
    found = parsed(serve(home_copy).get("/metrics", headers=bearer(key)).text)
    assert found["nitamono_api_key_expires_timestamp_seconds"] == {("till",): pytest.approx(expires_at.timestamp())}
