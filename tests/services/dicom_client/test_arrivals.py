import pytest

from services.dicom_client.arrivals import (
    Complete,
    CompletenessSettings,
    SeriesSoFar,
    completeness,
    instance_key,
    series_key,
)

SETTINGS = CompletenessSettings(quiet_s=60, short_s=600)


@pytest.mark.parametrize(
    ("series", "now", "how"),
    [
        (SeriesSoFar(0, 0.0), 1e9, Complete.WAITING),
        (SeriesSoFar(20, 100.0), 159.0, Complete.WAITING),
        (SeriesSoFar(20, 100.0), 160.0, Complete.QUIET),
        # Released and counted: at once.
        (SeriesSoFar(20, 100.0, 20, 101.0), 101.0, Complete.COUNTED),
        (SeriesSoFar(21, 100.0, 20, 101.0), 101.0, Complete.COUNTED),
        # Released, but nobody said how many: another association may bring more.
        (SeriesSoFar(20, 100.0, None, 101.0), 101.0, Complete.WAITING),
        (SeriesSoFar(20, 100.0, None, 101.0), 160.0, Complete.QUIET),
        # Counted, but the association goes on.
        (SeriesSoFar(20, 100.0, 20), 101.0, Complete.WAITING),
        (SeriesSoFar(20, 100.0, 20), 160.0, Complete.QUIET),
        # Released before the last one came: that was another association.
        (SeriesSoFar(20, 100.0, 20, 99.0), 101.0, Complete.WAITING),
        # Fewer than announced.
        (SeriesSoFar(19, 100.0, 20, 101.0), 160.0, Complete.WAITING),
        (SeriesSoFar(19, 100.0, 20, 101.0), 700.0, Complete.SHORT),
        # A count of zero says nothing.
        (SeriesSoFar(19, 100.0, 0, 101.0), 101.0, Complete.WAITING),
        (SeriesSoFar(19, 100.0, 0, 101.0), 160.0, Complete.QUIET),
    ],
)
def test_a_series_is_whole_when_it_is_counted_or_quiet(series, now, how):
    assert completeness(series, now, SETTINGS) is how


def test_a_clock_that_was_set_back_neither_ends_the_waiting_nor_keeps_it_for_ever():
    series = SeriesSoFar(20, 1000.0)
    assert completeness(series, 990.0, SETTINGS) is Complete.WAITING
    assert completeness(series, 500.0, SETTINGS) is Complete.QUIET


def test_keys_of_a_series_and_an_instance_differ_and_hold_no_uid():
    assert series_key("1.2.3") != instance_key("1.2.3")
    assert "1.2.3" not in series_key("1.2.3")
