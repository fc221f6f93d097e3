"""What a configuration comes to: an agent's settings by Kafka's names, and what its server listens on."""

from __future__ import annotations

from warp.config import AgentConfig
from warp.config_values import Address
from warp.handlers.context import Endpoint
from warp.ids import BrokerId
from warp.security.tls import TlsSettings
from warp.server.limits import ServerLimits
from warp.server.listener import ListenerConfig

MINUTE_MS = 60_000
AUTHORIZER = "warp.security.acl_authorizer.AclAuthorizer"
"""Tools look whether Kafka's setting for it has a value before they show ACLs."""
SECRET = "[hidden]"


def broker_settings(config: AgentConfig, broker_id: BrokerId) -> dict[str, str]:
    """The values that this agent was given; `warp.cluster.broker_config` has the defaults of the others."""
    settings = {
        "advertised.listeners": ",".join(
            f"{listener.protocol}://{told}"
            for listener, told in zip(config.listen, config.advertise or config.listen, strict=True)
        ),
        "auto.create.topics.enable": str(config.auto_create_topics).lower(),
        "broker.id": str(broker_id),
        "connections.max.idle.ms": str(config.connection_idle_ms),
        "group.initial.rebalance.delay.ms": str(config.group_rebalance_delay_ms),
        "group.max.session.timeout.ms": str(config.group_session_max_ms),
        "group.max.size": str(config.group_members_max),
        "group.min.session.timeout.ms": str(config.group_session_min_ms),
        "listeners": ",".join(f"{listener.protocol}://{listener}" for listener in config.listen),
        "log.cleaner.backoff.ms": str(config.compaction_interval_ms),
        "log.retention.check.interval.ms": str(config.retention_check_interval_ms),
        "max.connections": str(config.connections_max),
        "message.max.bytes": str(config.message_bytes_max),
        "node.id": str(broker_id),
        "num.partitions": str(config.num_partitions),
        "offsets.retention.minutes": str(config.offsets_retention_ms // MINUTE_MS),
        "producer.id.expiration.ms": str(config.producer_expiry_ms),
        "socket.request.max.bytes": str(config.request_bytes_max),
    }
    if config.zone is not None:
        settings["broker.rack"] = config.zone
    return settings | _security_settings(config)


def _security_settings(config: AgentConfig) -> dict[str, str]:
    """Who gets in, and what they may do. No secret is read for this: what stands for one is never shown anyway."""
    protocols = {listener.protocol for listener in config.listen}
    settings: dict[str, object] = {
        "connections.max.reauth.ms": config.sasl_session_max_ms,
        "max.connection.creation.rate": config.connection_rate_max,
        "max.connections.per.ip": config.connections_per_address_max,
        "ssl.client.auth": config.tls_client_auth,
        "ssl.keystore.location": config.tls_certificate,
        "ssl.key.password": config.tls_key_password_file and SECRET,
        "ssl.principal.mapping.rules": config.tls_principal_rules,
        "ssl.truststore.location": config.tls_client_ca,
    }
    if any(protocol.startswith("SASL_") for protocol in protocols):
        settings["sasl.enabled.mechanisms"] = ",".join(config.sasl_mechanisms)
    if config.authorization != "off":
        settings["authorizer.class.name"] = AUTHORIZER
        settings["super.users"] = ";".join(config.super_users)
    return {name: str(value) for name, value in settings.items() if value is not None}


def listener_configs(config: AgentConfig) -> list[ListenerConfig]:
    """What the server listens on, and what it tells clients of each listener."""
    advertised = config.advertise or (None,) * len(config.listen)
    listeners = []
    for bind, told in zip(config.listen, advertised, strict=True):
        advertise = None if told is None else Endpoint(told.host, told.port or bind.port)
        listeners.append(ListenerConfig(Endpoint(bind.host, bind.port), advertise, bind.protocol))
    return listeners


def server_limits(config: AgentConfig) -> ServerLimits:
    """What its listeners and connections may cost."""
    return ServerLimits(
        connections_max=config.connections_max,
        connections_per_address_max=config.connections_per_address_max,
        connection_rate_max=config.connection_rate_max,
        request_bytes_max=config.request_bytes_max,
        idle_ms_max=config.connection_idle_ms,
    )


def tls_settings(config: AgentConfig) -> TlsSettings | None:
    """Its certificates; None where nothing is encrypted."""
    if config.tls_certificate is None:
        return None
    return TlsSettings(
        certificate=config.tls_certificate,
        key=config.tls_key,
        key_password_file=config.tls_key_password_file,
        client_ca=config.tls_client_ca,
        client_auth=config.tls_client_auth,
        principal_rules=config.tls_principal_rules,
        version_min=config.tls_version_min,
    )


def open_passwords(config: AgentConfig) -> list[str]:
    """Listeners that others than this machine can reach and that take passwords in the clear, by their addresses."""
    if "PLAIN" not in config.sasl_mechanisms:
        return []
    return [
        str(listener)
        for listener in config.listen
        if listener.protocol == "SASL_PLAINTEXT" and not listener.is_loopback
    ]


def peer_address(config: AgentConfig, kafka: Endpoint, http: Address | None) -> str | None:
    """Where other agents reach this one's HTTP face, as HOST:PORT; None when they can't.

    `kafka` is what clients of the first listener are told, `http` where HTTP is bound (None: it is off). What is bound
    to loopback is reached by agents of the same machine alone, so it is told only where Kafka is as well.
    """
    if http is None:
        return None
    told = config.advertise_http
    if told is not None:
        return str(Address(told.host, told.port or http.port))
    host = Address(kafka.host, http.port)
    return str(host) if host.is_loopback or not http.is_loopback else None
