-- Committed offsets, by the numbers of group and log. Rows of a group or log that is gone are nobody's: no statement
-- shows them, and a job removes them.

-- name: resolve_offsets
-- The numbers behind names, null for what there is not; the last column is null when nothing is committed there yet.
-- Logs are looked up one by one, by topic and partition: a join may read all partitions of a topic for each of them.
select w.place, g.group_number, l.log_id,
    (select o.log_id from group_offsets o where o.group_number = g.group_number and o.log_id = l.log_id)
from rows($1 as w: place bigint, group_id text, topic text, partition integer)
left join groups g on g.group_id = w.group_id
left join logs l on l.log_id = (
    select n.log_id from topics t cross join logs n
    where t.name = w.topic and n.topic_id = t.topic_id and n.partition = w.partition
)

-- name: insert_simple_groups
-- A group that has come since its name was resolved is answered like a new one; an update that changes nothing does that.
insert into groups (group_id, slot, protocol_type, generation, changed_ms)
select w.group_id, w.slot, '', 0, w.changed_ms
from rows($1 as w: group_id text, slot integer, changed_ms bigint)
where true
on conflict (group_id) do update set slot = groups.slot
returning group_id, group_number

-- name: count_offsets
select w.group_number, (
    select count(*) from group_offsets o cross join logs l
    where o.group_number = w.group_number and l.log_id = o.log_id
)
from rows($1 as w: group_number bigint)

-- name: upsert_offsets
insert into group_offsets (group_number, log_id, committed_offset, leader_epoch, metadata, committed_ms, expires_ms)
select w.group_number, w.log_id, w.committed_offset, w.leader_epoch, w.metadata, w.committed_ms, w.expires_ms
from rows($1 as w: group_number bigint, log_id bigint, committed_offset bigint, leader_epoch integer, metadata bytea,
    committed_ms bigint, expires_ms bigint)
where true
on conflict (group_number, log_id) do update
set committed_offset = excluded.committed_offset, leader_epoch = excluded.leader_epoch, metadata = excluded.metadata,
    committed_ms = excluded.committed_ms, expires_ms = excluded.expires_ms

-- name: fetch_offsets
-- Looked up one by one, as above.
select w.place, w.topic, w.partition, o.committed_offset, o.leader_epoch, o.metadata, o.committed_ms, o.expires_ms
from rows($1 as w: place bigint, group_id text, topic text, partition integer) cross join group_offsets o
where o.group_number = (select g.group_number from groups g where g.group_id = w.group_id)
    and o.log_id = (
        select l.log_id from topics t cross join logs l
        where t.name = w.topic and l.topic_id = t.topic_id and l.partition = w.partition
    )

-- name: fetch_offsets_of_groups
select w.place, t.name, l.partition, o.committed_offset, o.leader_epoch, o.metadata, o.committed_ms, o.expires_ms
from rows($1 as w: place bigint, group_id text)
cross join groups g cross join group_offsets o cross join logs l cross join topics t
where g.group_id = w.group_id and o.group_number = g.group_number and l.log_id = o.log_id and t.topic_id = l.topic_id

-- name: offset_lags
select g.group_id, t.name, l.partition, o.committed_offset, l.start_offset, l.next_offset
from rows($1 as w: group_id text)
cross join groups g cross join group_offsets o cross join logs l cross join topics t
where g.group_id = w.group_id and o.group_number = g.group_number and l.log_id = o.log_id and t.topic_id = l.topic_id
limit $2

-- name: delete_offsets
delete from group_offsets
where (group_number, log_id) in (select w.group_number, w.log_id
    from rows($1 as w: group_number bigint, log_id bigint)
)

-- name: expired_offsets
select g.group_id, t.name, l.partition, g.group_number, o.log_id, o.committed_ms, o.expires_ms
from rows($1 as w: group_id text, committed_until_ms bigint)
cross join groups g cross join group_offsets o cross join logs l cross join topics t
where g.group_id = w.group_id and o.group_number = g.group_number
    and case when o.expires_ms is null then o.committed_ms <= w.committed_until_ms else o.expires_ms <= $3 end
    and l.log_id = o.log_id and t.topic_id = l.topic_id
    and (g.group_id, t.name) not in (select k.group_id, k.topic from rows($2 as k: group_id text, topic text))
limit $4

-- name: lock_offsets
-- In the order in which commits write them.
select o.group_number, o.log_id, o.committed_ms, o.expires_ms
from rows($1 as w: group_number bigint, log_id bigint) cross join group_offsets o
where o.group_number = w.group_number and o.log_id = w.log_id
order by o.group_number, o.log_id
lock rows of o

-- name: logs_with_offsets
-- Walks the index one log at a time, from after $1 on, at most $2 of them.
with recursive walk (log_id, steps_left) as (
    select (select min(o.log_id) from group_offsets o where o.log_id > $1), cast($2 as bigint)
    union all
    select (select min(o.log_id) from group_offsets o where o.log_id > k.log_id), k.steps_left - 1
    from walk k where k.log_id is not null and k.steps_left > 1
)
select k.log_id, l.log_id from walk k left join logs l on l.log_id = k.log_id where k.log_id is not null

-- name: groups_with_offsets
with recursive walk (group_number, steps_left) as (
    select (select min(o.group_number) from group_offsets o where o.group_number > $1), cast($2 as bigint)
    union all
    select (select min(o.group_number) from group_offsets o where o.group_number > k.group_number), k.steps_left - 1
    from walk k where k.group_number is not null and k.steps_left > 1
)
select k.group_number, g.group_number
from walk k left join groups g on g.group_number = k.group_number
where k.group_number is not null

-- name: delete_offsets_of_logs
delete from group_offsets
where (group_number, log_id) in (
    select o.group_number, o.log_id from group_offsets o
    where o.log_id in (select w.log_id from rows($1 as w: log_id bigint))
    limit $2
)

-- name: delete_offsets_of_groups
delete from group_offsets
where (group_number, log_id) in (
    select o.group_number, o.log_id from group_offsets o
    where o.group_number in (select w.group_number from rows($1 as w: group_number bigint))
    limit $2
)
