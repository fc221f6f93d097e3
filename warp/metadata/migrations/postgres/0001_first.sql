-- The first schema on PostgreSQL: that of the third migration on SQLite. Times are milliseconds since 1970, ids of logs,
-- segments, groups and agents are never given out twice. Texts compare byte by byte, as they do on SQLite.
--
-- Rows that are updated again and again leave free space in their pages, and none of their changing columns is in an
-- index: so a new version stays beside the old one, and no index grows with it.

create table settings (
    name text collate "C" primary key,
    value text not null
);

-- incarnation: random text, another one for each process; '' for an agent that has only been given its broker id.
-- state: see AgentState. counter rises with every beat and every new incarnation; observers time how long it has stood
-- still. beat_ms: the agent's own wall time of its last beat. facts: JSON, see AgentFacts.
create table agents (
    broker_id bigint generated always as identity primary key,
    name text collate "C" not null unique,
    registered_ms bigint not null,
    incarnation text not null default '',
    state integer not null default 0,
    counter bigint not null default 0,
    beat_ms bigint not null default 0,
    facts text not null default '{}'
) with (fillfactor = 25, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_scale_factor = 0);

-- One row: the version of all that the catalogue holds. It rises in the transaction that changes any of it.
create table catalogue (
    id bigint primary key check (id = 1),
    version bigint not null
) with (fillfactor = 10);
insert into catalogue (id, version) values (1, 1);

-- One row: the next producer id that nobody has been given.
create table producer_ids (
    id bigint primary key check (id = 1),
    next_producer_id bigint not null
) with (fillfactor = 10);
insert into producer_ids (id, next_producer_id) values (1, 0);

-- collision_name is the name with every '.' as '_': two topics that differ in that alone would share metric names.
-- version is the catalogue's at the topic's last change.
create table topics (
    topic_id bytea primary key,
    name text collate "C" not null unique,
    collision_name text collate "C" not null unique,
    partitions bigint not null,
    replication_factor bigint not null,
    version bigint not null,
    created_ms bigint not null
);
create index topics_by_version on topics (version);

create table topic_configs (
    topic_id bytea not null,
    name text collate "C" not null,
    value text not null,
    primary key (topic_id, name)
);

create table deleted_topics (
    topic_id bytea primary key,
    name text collate "C" not null,
    version bigint not null,
    deleted_ms bigint not null
);
create index deleted_topics_by_version on deleted_topics (version);

-- Every commit updates the rows of its logs.
create table logs (
    log_id bigint generated always as identity primary key,
    topic_id bytea not null,
    partition bigint not null,
    start_offset bigint not null default 0,
    next_offset bigint not null default 0,
    size_bytes bigint not null default 0,
    max_timestamp_ms bigint not null default -1,
    unique (topic_id, partition)
) with (fillfactor = 40, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);

-- Logs of deleted topics whose extents have yet to be removed.
create table deleted_logs (
    log_id bigint primary key,
    topic_id bytea not null,
    partition bigint not null,
    deleted_ms bigint not null
);

-- state: 0 live, 1 dead. outcome: what the commit decided for each batch; null for a key that was claimed as dead.
-- Each row is updated once, by the transaction that inserts it.
create table segments (
    segment_id bigint generated always as identity primary key,
    key text collate "C" not null unique,
    size_bytes bigint not null,
    level bigint not null,
    state bigint not null,
    created_ms bigint not null,
    died_ms bigint,
    outcome bytea
) with (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05);
create index segments_dead on segments (died_ms) where state = 1;

-- The extents of a log tile [start of the first one, next offset). An extent lies in a segment or is its payload.
-- prefix_max_timestamp_ms is at least the largest timestamp up to and with this extent, and never falls along a log:
-- so the first extent that can hold a time is found by bisection.
create table extents (
    log_id bigint not null,
    end_offset bigint not null,
    base_offset bigint not null,
    segment_id bigint,
    position bigint not null,
    size_bytes bigint not null,
    max_timestamp_ms bigint not null,
    prefix_max_timestamp_ms bigint not null,
    payload bytea,
    primary key (log_id, end_offset)
) with (autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.02,
    autovacuum_vacuum_insert_scale_factor = 0.05);
create index extents_by_segment on extents (segment_id);

-- batches: the last five, packed. open_offset: the first offset of an open transaction.
create table producers (
    log_id bigint not null,
    producer_id bigint not null,
    epoch bigint not null,
    batches bytea not null,
    open_offset bigint,
    written_ms bigint not null,
    primary key (log_id, producer_id)
) with (fillfactor = 40, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);
create index producers_open on producers (log_id, open_offset) where open_offset is not null;

-- epoch rises with every taking and never falls. holder: a broker id; null once released. counter: how often the lease
-- was taken, renewed or released.
create table leases (
    name text collate "C" primary key,
    holder bigint,
    epoch bigint not null,
    counter bigint not null
) with (fillfactor = 25, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_scale_factor = 0);

-- A group that is deleted and created anew has another number, so what is left of the old one's offsets is nobody's.
-- protocol_type is '' for a group that nobody has joined. changed_ms: when the group was stored last.
create table groups (
    group_number bigint generated always as identity primary key,
    group_id text collate "C" not null unique,
    slot integer not null,
    protocol_type text not null,
    generation bigint not null,
    protocol text,
    leader text,
    changed_ms bigint not null
) with (fillfactor = 50);
create index groups_by_slot on groups (slot, group_number);

-- The members of the last complete generation, in the order of joining. member_id is UTF-8; fields: all else, packed.
create table group_members (
    group_number bigint not null,
    member_id bytea not null,
    place integer not null,
    fields bytea not null,
    primary key (group_number, member_id)
);

-- A log of a deleted topic is in no other table, so its offsets are nobody's; a topic created anew has new logs.
-- metadata: UTF-8, null for none. expires_ms: when the client wanted it gone; null leaves that to the cluster's setting.
create table group_offsets (
    group_number bigint not null,
    log_id bigint not null,
    committed_offset bigint not null,
    leader_epoch integer not null,
    metadata bytea,
    committed_ms bigint not null,
    expires_ms bigint,
    primary key (group_number, log_id)
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);
create index group_offsets_by_log on group_offsets (log_id);
