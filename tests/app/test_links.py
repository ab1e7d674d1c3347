"""Settings in an address, and what is made of impossible ones."""

from __future__ import annotations

import pytest

from zoo.app.links import Setting, read_link, writer

SETTINGS = {
    "photo": Setting("cat", ["cat", "rocket"]),
    "models": Setting(["a"], ["a", "b", "c"]),
    "ratio": Setting(0.75, (0, 0.95)),
    "seed": Setting(0, (0, 100)),
    "mask": Setting(""),
}


def test_a_link_is_read() -> None:
    values, wrong = read_link(
        {"photo": "rocket", "models": "c,a", "ratio": "0.5", "seed": "7", "mask": "10/01", "__theme": "dark"},
        SETTINGS,
    )
    assert wrong == []
    assert values == {"photo": "rocket", "models": ["c", "a"], "ratio": 0.5, "seed": 7, "mask": "10/01"}
    assert read_link({}, SETTINGS) == ({name: each.default for name, each in SETTINGS.items()}, [])


@pytest.mark.parametrize(
    ("name", "value"),
    [("photo", "../secret"), ("models", "a,z"), ("models", ""), ("ratio", "nan"), ("ratio", "1"), ("ratio", "x"),
     ("seed", "-1"), ("seed", "1.5"), ("seed", "101")],
)  # fmt: skip
def test_an_impossible_value_is_the_default_and_told(name: str, value: str) -> None:
    values, wrong = read_link({name: value}, SETTINGS)
    assert wrong == [name] and values[name] == SETTINGS[name].default


def test_the_writer_names_its_settings_in_order() -> None:
    assert '["photo", "models"].forEach' in writer(["photo", "models"])
