from typing import Any, NamedTuple

class RuleSetEndpoint(NamedTuple):
    url: str
    properties: dict[str, Any]
    headers: dict[str, list[str]]

class EndpointProvider:
    def __init__(self, ruleset_data: Any, partition_data: Any) -> None: ...
    def resolve_endpoint(self, **input_parameters: object) -> RuleSetEndpoint: ...
