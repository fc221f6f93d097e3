-- What puts a database right that is older than its bucket, or makes one out of the bucket alone. No agent is running.

-- name: forget_settings
delete from settings where name like $1

-- name: is_anything_there
select (select count(*) from topics), (select count(*) from logs), (select count(*) from segments),
    (select count(*) from deleted_topics)

-- name: beats_of_agents
select broker_id, name, counter from agents order by broker_id

-- name: all_segments_by_id
select segment_id, key, size_bytes, level, state, created_ms from segments
where segment_id > $1 order by segment_id limit $2

-- name: all_logs_by_id
select l.log_id, l.topic_id, l.partition, l.start_offset, l.next_offset
from logs l where l.log_id > $1 order by l.log_id limit $2

-- name: all_extents_by_offset
select e.log_id, e.base_offset, e.end_offset, e.segment_id, e.position, e.size_bytes, e.max_timestamp_ms
from extents e
where e.log_id > $1 or (e.log_id = $1 and e.end_offset > $2)
order by e.log_id, e.end_offset limit $3

-- name: all_topic_names
select topic_id, name, collision_name, partitions from topics

-- name: all_deleted_topics
select topic_id from deleted_topics

-- name: producers_of_logs
select p.log_id, p.producer_id, p.epoch, p.batches
from rows($1 as w: log_id bigint) cross join producers p
where p.log_id = w.log_id

-- name: insert_restored_topics
insert into topics (topic_id, name, collision_name, partitions, replication_factor, version, created_ms)
select w.topic_id, w.name, w.collision_name, w.partitions, 1, w.version, w.created_ms
from rows($1 as w: topic_id bytea, name text, collision_name text, partitions integer, version bigint,
    created_ms bigint)

-- name: grow_topics
update topics set partitions = w.partitions, version = w.version
from rows($1 as w: topic_id bytea, partitions integer, version bigint)
where topics.topic_id = w.topic_id

-- name: insert_restored_segments
-- Without an outcome: a commit of that key that still comes is refused.
insert into segments (key, size_bytes, level, state, created_ms)
select w.key, w.size_bytes, w.level, 0, w.created_ms
from rows($1 as w: key text, size_bytes bigint, level integer, created_ms bigint)
where true
on conflict (key) do nothing

-- name: ids_of_segments
select s.key, s.segment_id from rows($1 as w: key text) cross join segments s where s.key = w.key

-- name: delete_lost_extents
delete from extents
where (log_id, end_offset) in (select w.log_id, w.end_offset from rows($1 as w: log_id bigint, end_offset bigint))

-- name: forget_lost_quarantine
delete from quarantined_extents
where (log_id, end_offset) in (select w.log_id, w.end_offset from rows($1 as w: log_id bigint, end_offset bigint))

-- name: insert_restored_extents
insert into extents (log_id, end_offset, base_offset, segment_id, position, size_bytes, max_timestamp_ms,
    prefix_max_timestamp_ms, payload)
select w.log_id, w.end_offset, w.base_offset, w.segment_id, w.position, w.size_bytes, w.max_timestamp_ms,
    w.max_timestamp_ms, w.payload
from rows($1 as w: log_id bigint, end_offset bigint, base_offset bigint, segment_id bigint, position bigint,
    size_bytes bigint, max_timestamp_ms bigint, payload bytea)

-- name: set_ends_of_logs
update logs set start_offset = w.start_offset, next_offset = w.next_offset
from rows($1 as w: log_id bigint, start_offset bigint, next_offset bigint)
where logs.log_id = w.log_id

-- name: count_sizes_of_logs
update logs set size_bytes = w.size_bytes,
    max_timestamp_ms = case when w.max_ms > logs.max_timestamp_ms then w.max_ms else logs.max_timestamp_ms end
from (
    select k.log_id, coalesce(sum(e.size_bytes), 0) as size_bytes, coalesce(max(e.max_timestamp_ms), -1) as max_ms
    from rows($1 as k: log_id bigint) left join extents e on e.log_id = k.log_id
    group by k.log_id
) w
where logs.log_id = w.log_id

-- name: bury_segments
-- Whose objects are gone. A commit of their keys that still came would find them known.
update segments set state = 2, died_ms = w.died_ms
from rows($1 as w: segment_id bigint, died_ms bigint)
where segments.segment_id = w.segment_id

-- name: count_prefix_maxima
-- Timestamps of what was put in change the maxima of all that follows.
update extents set prefix_max_timestamp_ms = w.prefix_max_ms
from (
    select e.log_id, e.end_offset, max(e.max_timestamp_ms) over (
        partition by e.log_id order by e.end_offset rows between unbounded preceding and current row
    ) as prefix_max_ms
    from rows($1 as k: log_id bigint) cross join extents e
    where e.log_id = k.log_id
) w
where extents.log_id = w.log_id and extents.end_offset = w.end_offset

-- name: upsert_restored_producers
insert into producers (log_id, producer_id, epoch, batches, written_ms)
select w.log_id, w.producer_id, w.epoch, w.batches, w.written_ms
from rows($1 as w: log_id bigint, producer_id bigint, epoch integer, batches bytea, written_ms bigint)
where true
on conflict (log_id, producer_id) do update
set epoch = excluded.epoch, batches = excluded.batches, written_ms = excluded.written_ms

-- name: raise_producer_ids
update producer_ids
set next_producer_id = $1 + case when next_producer_id > $2 then next_producer_id else $2 end
where id = 1

-- name: raise_leases
-- Whoever held one before finds it taken.
update leases set holder = null, epoch = epoch + cast($1 as integer), counter = counter + 1

-- name: raise_generations
update groups set generation = generation + cast($1 as integer) where generation >= 0
