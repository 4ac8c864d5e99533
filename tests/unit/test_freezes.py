"""Freezes: when they hold, also over midnight, over several days, and where clocks change."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.freezes import Freeze, Span, Weekly, freeze_from_json, frozen_until, never_opens

BERLIN = ZoneInfo("Europe/Berlin")
TICK = timedelta(microseconds=1)
MON, TUE, WED, THU, FRI, SAT, SUN = range(7)
NIGHTS = Weekly(frozenset({FRI, SAT}), 18 * 60, 8 * 60, "Europe/Berlin", "no deploys at night")


def berlin(day: int, hour: int, minute: int = 0, month: int = 6, fold: int = 0) -> datetime:
    return datetime(2026, month, day, hour, minute, tzinfo=BERLIN, fold=fold)


def weekly(*days: int, opens: int = 0, closes: int = 24 * 60, zone: str = "Europe/Berlin") -> Weekly:
    return Weekly(frozenset(days), opens, closes, zone)


def test_a_span_holds_from_its_start_up_to_its_end() -> None:
    span = Span(berlin(1, 18), berlin(3, 8))
    assert span.until(berlin(1, 18)) == span.until(berlin(3, 8) - TICK) == berlin(3, 8)
    assert span.until(berlin(1, 18) - TICK) is None
    assert span.until(berlin(3, 8)) is None


@pytest.mark.parametrize(
    ("now", "until"),
    [
        (berlin(5, 17, 59), None),  # Friday
        (berlin(5, 18), berlin(6, 8)),
        (berlin(6, 0), berlin(6, 8)),
        (berlin(6, 8), None),
        (berlin(6, 18), berlin(7, 8)),
        (berlin(7, 7, 59), berlin(7, 8)),
        (berlin(7, 18), None),  # Sunday
        (berlin(4, 18), None),
    ],
)
def test_a_window_over_midnight_ends_on_the_next_day(now: datetime, until: datetime | None) -> None:
    assert NIGHTS.until(now) == until
    assert NIGHTS.until(now.astimezone(UTC)) == until


def test_days_are_those_of_the_windows_time_zone() -> None:
    auckland = weekly(SAT, zone="Pacific/Auckland")
    assert auckland.until(datetime(2026, 6, 5, 11, 59, tzinfo=UTC)) is None
    assert auckland.until(datetime(2026, 6, 5, 12, tzinfo=UTC)) == datetime(2026, 6, 6, 12, tzinfo=UTC)


def test_windows_that_follow_one_another_count_as_one() -> None:
    weekend = [weekly(FRI, opens=16 * 60), weekly(SAT, SUN), Span(berlin(8, 0), berlin(8, 6))]
    assert frozen_until(weekend, berlin(5, 15, 59)) is None
    assert frozen_until(weekend, berlin(5, 16)) == frozen_until(weekend, berlin(7, 12)) == berlin(8, 6)
    assert frozen_until(weekend, berlin(8, 6)) is None
    assert frozen_until([], berlin(8, 6)) is None
    assert frozen_until([weekly(SAT, SUN)], berlin(6, 12)) == berlin(8, 0)


def test_a_window_of_exactly_a_day_comes_back_to_its_own_time() -> None:
    day = weekly(WED, opens=9 * 60, closes=9 * 60)
    assert day.until(berlin(3, 9)) == day.until(berlin(4, 8, 59)) == berlin(4, 9)


def test_the_lost_hour_shortens_a_window_and_the_one_that_comes_twice_lengthens_it() -> None:
    spring = NIGHTS.until(berlin(28, 18, month=3))
    assert spring == berlin(29, 8, month=3)
    assert spring is not None
    assert spring.astimezone(UTC) - berlin(28, 18, month=3).astimezone(UTC) == timedelta(hours=13)
    autumn = NIGHTS.until(berlin(24, 18, month=10))
    assert autumn is not None
    assert autumn.astimezone(UTC) - berlin(24, 18, month=10).astimezone(UTC) == timedelta(hours=15)


def test_where_a_time_comes_twice_or_not_at_all_the_freeze_is_the_longer_one() -> None:
    # 02:30 does not exist on 29 March and comes twice on 25 October.
    ends = weekly(SUN, opens=0, closes=150)
    assert ends.until(berlin(29, 1, month=3)) == datetime(2026, 3, 29, 1, 30, tzinfo=UTC)
    assert ends.until(berlin(25, 1, month=10)) == datetime(2026, 10, 25, 1, 30, tzinfo=UTC)
    begins = weekly(SUN, opens=150, closes=360)
    assert begins.until(berlin(25, 2, 30, month=10)) == begins.until(berlin(25, 2, 10, month=10, fold=1))
    assert begins.until(berlin(25, 2, 29, month=10)) is None


def test_a_week_that_leaves_nothing_open_is_told() -> None:
    assert never_opens([weekly(*range(7))])
    assert never_opens([weekly(MON, TUE, WED), weekly(THU, FRI, SAT, SUN, opens=600, closes=600), weekly(THU)])
    assert not never_opens([weekly(*range(6))])
    assert not never_opens([weekly(*range(7), opens=1)])
    assert not never_opens([Span(berlin(1, 0), berlin(30, 0))])
    assert not never_opens([])


def test_together_with_another_that_never_opens_it_is_looked_at_again_some_day() -> None:
    until = frozen_until([weekly(MON, TUE, WED), weekly(THU, FRI, SAT, SUN)], berlin(1, 0))
    assert until is not None
    assert until > berlin(1, 0) + timedelta(days=365)


freezes = st.one_of(
    st.builds(
        Weekly,
        st.frozensets(st.integers(0, 6), min_size=1),
        st.integers(0, 1439),
        st.integers(1, 1440),
        st.sampled_from(["UTC", "Europe/Berlin", "America/St_Johns", "Pacific/Apia", "Australia/Lord_Howe"]),
        st.sampled_from(["", "quiet"]),
    ),
    st.builds(Span, st.just(berlin(1, 0)), st.just(berlin(9, 0)), st.just("")),
)
instants = st.datetimes(datetime(2026, 1, 1), datetime(2027, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001 set by Hypothesis


@given(freezes, instants)
def test_an_end_lies_ahead_and_is_free_of_its_own_window(freeze: Freeze, now: datetime) -> None:
    until = freeze.until(now)
    if until is not None:
        assert now < until
        assert freeze.until(until - TICK) is not None
    end = frozen_until([freeze], now)
    assert (end is None) is (until is None)
    if end is not None and not never_opens([freeze]):
        assert freeze.until(end) is None


@given(freezes)
def test_a_freeze_is_kept_whole(freeze: Freeze) -> None:
    kept = freeze_from_json(freeze.to_json())
    assert kept == freeze
