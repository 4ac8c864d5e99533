"""Settings: what is wrong is named, and Keyturn's own folders are found from anywhere."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from orchestrator.core.errors import InvalidInput
from orchestrator.settings import Settings, find_app, find_config, find_migrations, load_settings

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for field in Settings.model_fields:
        monkeypatch.delenv(f"KEYTURN_{field.upper()}", raising=False)


def test_defaults_serve_this_machine_only() -> None:
    settings = load_settings()
    assert (settings.host, settings.port, settings.database_url) == ("127.0.0.1", 8001, None)
    assert (settings.lease_seconds, settings.worker_concurrency, settings.max_attempts) == (15.0, 16, 5)
    assert settings.data_dir.is_absolute()


def test_the_environment_sets_and_the_command_line_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYTURN_PORT", "9000")
    monkeypatch.setenv("KEYTURN_LEASE_SECONDS", "3")
    assert load_settings().port == 9000
    settings = load_settings(port=9001, host=None)
    assert (settings.port, settings.host, settings.lease_seconds) == (9001, "127.0.0.1", 3.0)


@pytest.mark.parametrize(
    ("name", "value", "word"),
    [
        ("PORT", "http", "integer"),
        ("PORT", "70000", "65535"),
        ("LEASE_SECONDS", "nan", "finite"),
        ("LEASE_SECONDS", "0", "greater"),
        ("WORKER_CONCURRENCY", "0", "greater"),
        ("LOG_LEVEL", "loud", "'warning'"),
        ("NAMESPACE", "a b", "pattern"),
        ("CONFIG_DIR", "/no/such/folder", "there is no folder"),
        ("MIGRATIONS_DIR", "/no/such/folder", "there is no folder"),
        ("APP", "/no/such/langgraph.json", "there is no file"),
        ("STATEMENT_TIMEOUT_SECONDS", "-1", "greater"),
    ],
)
def test_a_bad_value_is_named_with_its_variable(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, word: str
) -> None:
    monkeypatch.setenv(f"KEYTURN_{name}", value)
    with pytest.raises(InvalidInput) as refused:
        load_settings()
    assert refused.value.detail.startswith(f"KEYTURN_{name}={value}: ")
    assert word in refused.value.detail


def test_every_bad_value_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYTURN_PORT", "x")
    monkeypatch.setenv("KEYTURN_MAX_ATTEMPTS", "none")
    with pytest.raises(InvalidInput) as refused:
        load_settings()
    problems = refused.value.facts["problems"]
    assert isinstance(problems, list)
    assert len(problems) == 2


def test_a_bad_database_address_is_named_and_its_password_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYTURN_DATABASE_URL", "postgresql://me:hunter2@[db/x")
    with pytest.raises(InvalidInput) as refused:
        load_settings()
    assert "KEYTURN_DATABASE_URL" in refused.value.detail
    assert "hunter2" not in str(refused.value)


def test_the_password_is_not_in_the_settings_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYTURN_DATABASE_URL", "postgresql://me:hunter2@db/x")
    settings = load_settings()
    assert settings.require_database_url().endswith("@db/x")
    assert "hunter2" not in repr(settings)


def test_a_missing_database_address_says_what_to_set() -> None:
    with pytest.raises(InvalidInput, match="KEYTURN_DATABASE_URL is not set"):
        load_settings().require_database_url()


def test_the_pool_bounds_must_agree() -> None:
    with pytest.raises(InvalidInput, match="KEYTURN_POOL_MIN"):
        load_settings(pool_min=9, pool_max=3)


def test_an_unknown_setting_is_refused() -> None:
    with pytest.raises(InvalidInput, match="there is no such setting"):
        load_settings(prot=1)


def test_settings_are_frozen() -> None:
    settings = load_settings()
    with pytest.raises(ValidationError):
        settings.port = 1  # pyright: ignore[reportAttributeAccessIssue]


def test_a_projects_own_rules_win_inside_its_repository(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / "config" / "hitl").mkdir(parents=True)
    (tmp_path / "graphs").mkdir()
    (tmp_path / "graphs" / "langgraph.json").write_text("{}")
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)
    assert find_config(inside) == tmp_path / "config"
    assert find_app(inside) == tmp_path / "graphs" / "langgraph.json"


def test_rules_in_a_shared_folder_above_are_not_picked_up(tmp_path: Path) -> None:
    (tmp_path / "config" / "hitl").mkdir(parents=True)
    inside = tmp_path / "work"
    inside.mkdir()
    assert find_config(inside) == REPOSITORY / "config"
    assert find_config(tmp_path) == tmp_path / "config"


def test_another_projects_migrations_are_not_taken_for_ours(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / "migrations").mkdir()
    assert find_migrations(tmp_path) == REPOSITORY / "migrations"


def test_strict_msgpack_is_on_before_langgraph_can_be_imported() -> None:
    from langgraph.checkpoint.serde import _msgpack

    assert _msgpack.STRICT_MSGPACK_ENABLED
