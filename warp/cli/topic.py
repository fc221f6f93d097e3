"""`warp topic create|list|describe|config|delete`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence

from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, KafkaError, KafkaException
from confluent_kafka.admin import NewTopic

from warp.cli.arguments import Parser, action_of, add_client_options, positive_count
from warp.cli.client import Client, ClientError
from warp.cli.configs.command import add_config_options, run_config
from warp.cli.configs.resource import TopicConfigs
from warp.errors import UsageError

ACTIONS = ("create", "list", "describe", "config", "delete")

HELP_EXAMPLES = """\
  warp topic create orders --partitions 6 --config retention.ms=86400000
  warp topic list
  warp topic describe orders
  warp topic config orders --set retention.ms=86400000 --delete cleanup.policy
  warp topic config orders --all
  warp topic delete orders
"""


def run(words: Sequence[str]) -> int:
    """Run the command; the exit code."""
    action = action_of("warp topic", words, ACTIONS, HELP_EXAMPLES)
    if action is None:
        return 0
    parser = _parser(action)
    found = parser.parse_all(words[1:])
    client = Client(found)
    actions = {
        "create": _create,
        "list": _list,
        "describe": _describe,
        "config": _config,
        "delete": _delete,
    }
    actions[action](found, client)
    return 0


def _parser(action: str) -> Parser:
    descriptions = {
        "create": "Create a topic.",
        "list": "List the topics.",
        "describe": "Show a topic's partitions, their offsets, and its settings.",
        "config": "Show or change a topic's configs. Changes are made all together, or not at all.",
        "delete": "Delete topics and all their records.",
    }
    examples = "".join(f"{line}\n" for line in HELP_EXAMPLES.splitlines() if f" {action}" in line)
    parser = Parser(f"warp topic {action}", descriptions[action], examples)
    if action == "create":
        parser.add_argument("topic", metavar="TOPIC")
        parser.add_argument(
            "-p", "--partitions", type=positive_count, metavar="NUMBER", help="Default: what the broker sets."
        )
        parser.add_argument(
            "-c",
            "--config",
            action="append",
            default=[],
            metavar="NAME=VALUE",
            help="Setting of the topic. May be repeated.",
        )
        parser.add_argument(
            "--if-not-exists", action="store_true", help="Succeed when the topic is there already."
        )
    elif action == "delete":
        parser.add_argument("topics", metavar="TOPIC", nargs="+")
    elif action in ("describe", "config"):
        parser.add_argument("topic", metavar="TOPIC")
    if action == "config":
        add_config_options(parser)
    if action in ("list", "describe"):
        parser.add_argument("--json", action="store_true", help="Print JSON instead of columns.")
    add_client_options(parser)
    return parser


def _create(found: argparse.Namespace, client: Client) -> None:
    configs = {}
    for text in found.config:
        name, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"--config {text!r} is not NAME=VALUE")
        configs[name] = value
    new = NewTopic(found.topic, num_partitions=found.partitions or -1, replication_factor=-1, config=configs)
    admin = client.admin()
    pending = admin.create_topics([new], operation_timeout=client.timeout_s, request_timeout=client.timeout_s)
    try:
        pending[found.topic].result()
    except KafkaException as error:
        if found.if_not_exists and error.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS:
            print(f"topic {found.topic} is there already")
            return
        raise client.failure(error) from error
    print(f"created topic {found.topic}")


def _list(found: argparse.Namespace, client: Client) -> None:
    topics = client.cluster(client.admin()).topics
    rows = [(name, len(topics[name].partitions)) for name in sorted(topics)]
    if found.json:
        print(json.dumps([{"topic": name, "partitions": count} for name, count in rows]))
        return
    width = max((len(name) for name, _ in rows), default=0)
    for name, count in rows:
        print(f"{name:<{width}}  {count} partition{'s' if count != 1 else ''}")


def _describe(found: argparse.Namespace, client: Client) -> None:
    admin = client.admin()
    partitions = client.topic_partitions(admin, found.topic)
    consumer = client.consumer()
    try:
        starts = client.offsets(consumer, found.topic, dict.fromkeys(partitions, OFFSET_BEGINNING))
        ends = client.offsets(consumer, found.topic, dict.fromkeys(partitions, OFFSET_END))
        configs = {config.name: config.value for config in TopicConfigs(client, found.topic).describe_own()}
    except KafkaException as error:
        raise client.failure(error) from error
    rows = [
        {"partition": partition, "start_offset": starts[partition], "end_offset": ends[partition]}
        for partition in partitions
    ]
    if found.json:
        print(json.dumps({"topic": found.topic, "partitions": rows, "configs": configs}))
        return
    print(f"topic {found.topic}, {len(rows)} partition{'s' if len(rows) != 1 else ''}")
    for name, value in configs.items():
        print(f"  {name}={value}")
    print("PARTITION  START  END")
    for row in rows:
        print(f"{row['partition']:<9}  {row['start_offset']:<5}  {row['end_offset']}")


def _config(found: argparse.Namespace, client: Client) -> None:
    run_config(found, TopicConfigs(client, found.topic))


def _delete(found: argparse.Namespace, client: Client) -> None:
    admin = client.admin()
    pending = admin.delete_topics(
        found.topics, operation_timeout=client.timeout_s, request_timeout=client.timeout_s
    )
    failures: list[ClientError] = []
    for topic in found.topics:
        try:
            pending[topic].result()
            print(f"deleted topic {topic}")
        except KafkaException as error:
            failures.append(ClientError(f"{topic}: {client.failure(error)}"))
    if failures:
        raise ClientError("; ".join(map(str, failures)))
