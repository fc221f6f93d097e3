-- Consumer groups: who coordinates them, what outlives their coordinator, and the offsets that they have committed.
-- The release before knows nothing of these tables and works beside them.
-- works from schema: 1

-- epoch rises with every taking and never falls. holder: a broker id; null once released. counter: how often the lease
-- was taken, renewed or released; observers time how long it has stood still.
create table leases (
    name text primary key,
    holder integer,
    epoch integer not null,
    counter integer not null
) without rowid;

-- A group that is deleted and created anew has another number, so what is left of the old one's offsets is nobody's.
-- protocol_type is '' for a group that nobody has joined. changed_ms: when the group was stored last.
create table groups (
    group_number integer primary key autoincrement,
    group_id text not null unique,
    slot integer not null,
    protocol_type text not null,
    generation integer not null,
    protocol text,
    leader text,
    changed_ms integer not null
);
create index groups_by_slot on groups (slot, group_number);

-- The members of the last complete generation, in the order of joining. member_id is UTF-8; fields: all else, packed.
create table group_members (
    group_number integer not null,
    member_id blob not null,
    place integer not null,
    fields blob not null,
    primary key (group_number, member_id)
) without rowid;

-- A log of a deleted topic is in no other table, so its offsets are nobody's; a topic created anew has new logs.
-- metadata: UTF-8, null for none. expires_ms: when the client wanted it gone; null leaves that to the cluster's setting.
create table group_offsets (
    group_number integer not null,
    log_id integer not null,
    committed_offset integer not null,
    leader_epoch integer not null,
    metadata blob,
    committed_ms integer not null,
    expires_ms integer,
    primary key (group_number, log_id)
) without rowid;
create index group_offsets_by_log on group_offsets (log_id);
