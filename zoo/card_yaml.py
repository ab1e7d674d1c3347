"""Front matter as strict YAML, in and out: plain types, no key twice, no anchors, and no number taken for text."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml

from zoo.errors import CardError

# A card may come from a stranger: libyaml's composer recurses, and enough brackets would end the process.
MAX_DEPTH = 32
MAX_CHARACTERS = 200_000

_ALMOST = "tag:zoo,almost-a-number"
ALMOST_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)[eE][-+]?\d+\Z")
_FIRST = list("-+.0123456789")


class AlmostNumber(str):
    """A plain scalar such as 1e-6: a number to a person, text to YAML 1.1, which wants a dot and a signed exponent."""


class _Loader(yaml.CSafeLoader):
    """YAML's plain types only: a key given twice is refused, and a date stays text."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue  # refused below, as no key of a dict
            if key.value in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"{key.value!r} is given twice", problem_mark=key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.CSafeDumper):
    """Never writes anchors; quotes what `_Loader` or another YAML reader would not take for text."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Loader.yaml_implicit_resolvers = {
    first: [rule for rule in rules if rule[0] != "tag:yaml.org,2002:timestamp"]
    for first, rules in _Loader.yaml_implicit_resolvers.items()
}
for _end in (_Loader, _Dumper):
    _end.add_implicit_resolver(_ALMOST, ALMOST_NUMBER, _FIRST)
_Loader.add_constructor(_ALMOST, lambda _, node: AlmostNumber(node.value))


def split(text: str) -> tuple[str, str] | None:
    """A Markdown file -> (front matter, body), or None where it does not begin with front matter."""
    if not (opening := re.match(r"---[ \t]*\n", text)):
        return None
    rest = text[opening.end() :]
    if not (closing := re.search(r"^---[ \t]*$", rest, re.MULTILINE)):
        return None
    return rest[: closing.start()], rest[closing.end() :].strip("\n")


def load(text: str) -> dict[str, Any]:
    """The mapping that front matter spells. Raises CardError with the line, counted with the opening `---`."""
    if len(text) > MAX_CHARACTERS:
        raise CardError(f"{len(text):,} characters of front matter; a card has at most {MAX_CHARACTERS:,}")
    try:
        _refuse_tricks(text)
        data = yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f"line {mark.line + 2}: " if mark else ""
        raise CardError(f"{line}{error.problem or error.context}") from None
    # ValueError: a number with thousands of digits, a lone surrogate
    except (yaml.YAMLError, ValueError) as error:
        raise CardError(f"the front matter is no YAML: {error}") from None
    if not isinstance(data, dict):
        raise CardError("the front matter is not lines of `key: value`")
    return data


def _refuse_tricks(text: str) -> None:
    """Anchors, tags and deep nesting have no place on a card, and can cost a reader its memory or its life."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        trick = "nested too deeply" if depth > MAX_DEPTH else ""
        if isinstance(event, yaml.NodeEvent) and event.anchor:
            trick = f"the anchor or alias {event.anchor!r}; write the value out"
        elif tag := getattr(event, "tag", None):
            trick = f"the tag {tag!r}; leave it out, a card needs none"
        if trick:
            raise CardError(f"line {event.start_mark.line + 2}: {trick}")  # type: ignore[union-attr]


def dump(data: Mapping[str, Any]) -> str:
    """Front matter, without its `---` lines. Symmetric with `load`."""
    text: str = yaml.dump(
        data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110, default_flow_style=None
    )
    return text
