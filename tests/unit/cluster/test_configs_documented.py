"""docs/configs.md and the tables of configs say the same."""

from __future__ import annotations

from pathlib import Path

from warp.cluster.broker_config import BROKER_CONFIGS, OTHER_UNITS
from warp.cluster.config_definition import ConfigDefinition
from warp.cluster.topic_config import REMOVED_CONFIGS, TOPIC_CONFIGS

ROOT = Path(__file__).parents[3]
DOCUMENT = ROOT / "docs" / "configs.md"
DEFAULTS = {definition.broker_name for definition in TOPIC_CONFIGS if definition.synonyms}


def topic_row(definition: ConfigDefinition) -> str:
    default = f"`{definition.default}`" if definition.default else "empty"
    of_cluster = f"`{definition.broker_name}`" if definition.synonyms else "none"
    return (
        f"| `{definition.name}` | {definition.type.name.lower()} | {default} | {definition.effect.value} "
        f"| {of_cluster} | {definition.documentation} |"
    )


def removed_row(name: str) -> str:
    return f"| `{name}` | {REMOVED_CONFIGS[name]} |"


def dynamic_row(definition: ConfigDefinition) -> str:
    flag = f"`{definition.flag}`" if definition.flag else ""
    return f"| `{definition.name}` | `{definition.default}` | {flag} | {definition.documentation} |"


def static_row(definition: ConfigDefinition) -> str:
    flag = f"`{definition.flag}`" if definition.flag else "fixed"
    return f"| `{definition.name}` | {flag} | {definition.documentation} |"


def expected_rows() -> list[str]:
    """Every row that the document has to have, table by table."""
    own = [definition for definition in BROKER_CONFIGS if definition.name not in DEFAULTS]
    return [
        *map(topic_row, TOPIC_CONFIGS),
        *map(removed_row, REMOVED_CONFIGS),
        *(dynamic_row(definition) for definition in own if definition.is_dynamic),
        *(static_row(definition) for definition in own if not definition.is_dynamic),
    ]


def test_every_config_is_documented_as_the_code_has_it_and_no_other() -> None:
    rows = [line for line in DOCUMENT.read_text().splitlines() if line.startswith("| `")]
    assert rows == expected_rows()


def test_every_other_unit_of_a_config_is_documented() -> None:
    text = DOCUMENT.read_text()
    for name, instead in OTHER_UNITS.items():
        assert f"`{name}`" in text
        assert f"`{instead}`" in text
