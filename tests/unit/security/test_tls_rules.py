"""Kafka's mapping rules: which fits, what it makes of a subject, and which can't be read."""

from __future__ import annotations

import pytest

from warp.security.tls_rules import RULES_MAX, PrincipalRules

SERVICE = "CN=kafka-1.example.com,OU=ServiceUsers,O=Unknown,L=Unknown,ST=Unknown,C=Unknown"


@pytest.mark.parametrize(
    ("rules", "subject", "expected"),
    [
        ("DEFAULT", SERVICE, SERVICE),
        (" DEFAULT ", "CN=a", "CN=a"),
        ("RULE:^CN=(.*?),OU=ServiceUsers.*$/$1/", SERVICE, "kafka-1.example.com"),
        ("RULE:^CN=(.*?),OU=(.*?),.*$/$1@$2/L", SERVICE, "kafka-1.example.com@serviceusers"),
        ("RULE:^CN=(.*?),.*$/$1/U", SERVICE, "KAFKA-1.EXAMPLE.COM"),
        ("RULE:^CN=nobody$/x/, RULE:^CN=(a.*)$/$1/, DEFAULT", "CN=alice", "alice"),
        ("RULE:^CN=nobody$/x/,DEFAULT", "CN=alice", "CN=alice"),
        # A pattern has to match all of it.
        ("RULE:CN=a/x/,DEFAULT", "CN=alice", "CN=alice"),
        ("RULE:.*/all/", "CN=alice", "all"),
        # Slashes and other characters that are escaped; commas inside of rules.
        (r"RULE:^CN=(.*?)\/(.*?)$/$1\/$2\$1/", "CN=a/b", "a/b$1"),
        ("RULE:^CN=(.*?),OU=(.{1,5})$/$2,$1/", "CN=a,OU=b", "b,a"),
        # Numbers of no group are plain text, and as many digits count as name one.
        ("RULE:^CN=(.*)$/$1-$2-$12/", "CN=a", "a-$2-a2"),
        ("RULE:^CN=(.*?)(,OU=b)?$/$1$2/", "CN=a", "a"),
    ],
)
def test_the_first_rule_that_fits_makes_the_name(rules: str, subject: str, expected: str) -> None:
    assert PrincipalRules(rules).name(subject) == expected


@pytest.mark.parametrize("rules", ["RULE:^CN=b$/x/", "RULE:^CN=(.*)$//", "RULE:^CN=a(b?)$/$1/"])
def test_who_gets_no_name_is_refused(rules: str) -> None:
    with pytest.raises(ValueError, match="--tls-principal-rules"):
        PrincipalRules(rules).name("CN=a")


@pytest.mark.parametrize(
    "rules",
    ["", " ", "default", "RULE:", "RULE:a/b", "RULE:a/b/X", "RULE:a/b/LU", "RULE:(a/b/", "DEFAULT,", "DEFAULT DEFAULT",
     "RULE:a/b/c/d/", "DEFAULT,,DEFAULT", ",".join(["DEFAULT"] * (RULES_MAX + 1))],
)  # fmt: skip
def test_rules_that_can_not_be_read_are_refused(rules: str) -> None:
    with pytest.raises(ValueError, match=r"neither DEFAULT nor RULE|regular expression|missing after"):
        PrincipalRules(rules)
