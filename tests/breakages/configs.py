"""Breakages of what is promised about configs: none is stored unchecked, no secret told, no answer unbounded."""

from __future__ import annotations

from tests.breakages.tree import Breakage

ALTER = "tests/broker/test_alter_configs.py"
CLUSTER = "tests/unit/cluster/test_cluster_config.py"
DESCRIBE = "tests/broker/test_configs.py"

CONFIGURED = (
    Breakage(
        "check-the-first-config-of-the-cluster-alone",
        "P7",
        "warp/cluster/cluster_config.py",
        "    for name, value in changed.items():\n        check_value(",
        "    for name, value in list(changed.items())[:1]:\n        check_value(",
        (f"{CLUSTER}::test_a_wrong_config_beside_good_ones_is_refused",),
    ),
    Breakage(
        "make-changes-that-were-only-to-be-validated",
        "P7",
        "warp/handlers/alter_configs.py",
        "    if validate_only:\n        decide(catalogue.entries(EntryKind.CONFIG))\n        return\n",
        "    if validate_only:\n        decide(catalogue.entries(EntryKind.CONFIG))\n",
        (f"{ALTER}::test_validation_alone_runs_every_check_and_changes_nothing",),
    ),
    Breakage(
        "describe-without-counting-the-answer",
        "P8",
        "warp/handlers/configs.py",
        "memory.take(_size_bytes(described))",
        "memory.take(0)",
        (f"{DESCRIBE}::test_answers_take_their_memory_from_the_budget_for_answers",),
    ),
    Breakage(
        "tell-a-secret-among-the-synonyms",
        "P10",
        "warp/cluster/broker_config.py",
        "        synonyms = [Synonym(name, None, source) for _, _, source in synonyms]\n",
        "        synonyms[0] = Synonym(name, None, synonyms[0].source)\n",
        (f"{CLUSTER}::test_secrets_are_described_without_their_values",),
    ),
)
