-- The first schema. Times are milliseconds since 1970, ids of logs, segments and agents are never given out twice.

create table settings (
    name text primary key,
    value text not null
) without rowid;

create table agents (
    broker_id integer primary key autoincrement,
    name text not null unique,
    registered_ms integer not null
);

-- One row: the version of all that the catalogue holds. It rises in the transaction that changes any of it.
create table catalogue (
    id integer primary key check (id = 1),
    version integer not null
);
insert into catalogue (id, version) values (1, 1);

-- One row: the next producer id that nobody has been given.
create table producer_ids (
    id integer primary key check (id = 1),
    next_producer_id integer not null
);
insert into producer_ids (id, next_producer_id) values (1, 0);

-- collision_name is the name with every '.' as '_': two topics that differ in that alone would share metric names.
-- version is the catalogue's at the topic's last change.
create table topics (
    topic_id blob primary key,
    name text not null unique,
    collision_name text not null unique,
    partitions integer not null,
    replication_factor integer not null,
    version integer not null,
    created_ms integer not null
) without rowid;
create index topics_by_version on topics (version);

create table topic_configs (
    topic_id blob not null,
    name text not null,
    value text not null,
    primary key (topic_id, name)
) without rowid;

create table deleted_topics (
    topic_id blob primary key,
    name text not null,
    version integer not null,
    deleted_ms integer not null
) without rowid;
create index deleted_topics_by_version on deleted_topics (version);

create table logs (
    log_id integer primary key autoincrement,
    topic_id blob not null,
    partition integer not null,
    start_offset integer not null default 0,
    next_offset integer not null default 0,
    size_bytes integer not null default 0,
    max_timestamp_ms integer not null default -1,
    unique (topic_id, partition)
);

-- Logs of deleted topics whose extents have yet to be removed.
create table deleted_logs (
    log_id integer primary key,
    topic_id blob not null,
    partition integer not null,
    deleted_ms integer not null
);

-- state: 0 live, 1 dead. outcome: what the commit decided for each batch; null for a key that was claimed as dead.
create table segments (
    segment_id integer primary key autoincrement,
    key text not null unique,
    size_bytes integer not null,
    level integer not null,
    state integer not null,
    created_ms integer not null,
    died_ms integer,
    outcome blob
);
create index segments_dead on segments (died_ms) where state = 1;

-- The extents of a log tile [start of the first one, next offset). An extent lies in a segment or is its payload.
-- prefix_max_timestamp_ms is at least the largest timestamp up to and with this extent, and never falls along a log:
-- so the first extent that can hold a time is found by bisection.
create table extents (
    log_id integer not null,
    end_offset integer not null,
    base_offset integer not null,
    segment_id integer,
    position integer not null,
    size_bytes integer not null,
    max_timestamp_ms integer not null,
    prefix_max_timestamp_ms integer not null,
    payload blob,
    primary key (log_id, end_offset)
) without rowid;
create index extents_by_segment on extents (segment_id);

-- batches: the last five, packed. open_offset: the first offset of an open transaction.
create table producers (
    log_id integer not null,
    producer_id integer not null,
    epoch integer not null,
    batches blob not null,
    open_offset integer,
    written_ms integer not null,
    primary key (log_id, producer_id)
) without rowid;
create index producers_open on producers (log_id, open_offset) where open_offset is not null;
