-- What a commit does, in its order. The lock comes first; what depends on it is read by later statements, because a
-- statement that has waited for a lock sees other tables as they were before the wait.

-- name: lock_logs
select l.log_id, l.start_offset, l.next_offset, l.size_bytes, l.max_timestamp_ms
from rows($1 as w: log_id bigint) cross join logs l
where l.log_id = w.log_id
order by l.log_id
lock rows of l

-- name: insert_segments
insert into segments (key, size_bytes, level, state, created_ms)
select w.key, w.size_bytes, 0, 0, w.created_ms
from rows($1 as w: key text, size_bytes bigint, created_ms bigint)
where true
on conflict (key) do nothing
returning key, segment_id

-- name: known_segments
select s.key, s.segment_id, s.outcome
from rows($1 as w: key text) cross join segments s
where s.key = w.key

-- name: read_producers
select p.log_id, p.producer_id, p.epoch, p.batches, p.open_offset
from rows($1 as w: log_id bigint, producer_id bigint) cross join producers p
where p.log_id = w.log_id and p.producer_id = w.producer_id

-- name: read_open_offsets
-- Of the logs that have an open transaction.
select w.log_id, min(p.open_offset)
from rows($1 as w: log_id bigint) cross join producers p
where p.log_id = w.log_id and p.open_offset is not null
group by w.log_id

-- name: update_logs
update logs
set next_offset = w.next_offset, size_bytes = w.size_bytes, max_timestamp_ms = w.max_timestamp_ms
from rows($1 as w: log_id bigint, next_offset bigint, size_bytes bigint, max_timestamp_ms bigint)
where logs.log_id = w.log_id

-- name: insert_extents
insert into extents (log_id, end_offset, base_offset, segment_id, position, size_bytes, max_timestamp_ms,
    prefix_max_timestamp_ms)
select w.log_id, w.end_offset, w.base_offset, w.segment_id, w.position, w.size_bytes, w.max_timestamp_ms,
    w.prefix_max_timestamp_ms
from rows($1 as w: log_id bigint, end_offset bigint, base_offset bigint, segment_id bigint, position bigint,
    size_bytes bigint, max_timestamp_ms bigint, prefix_max_timestamp_ms bigint)

-- name: upsert_producers
insert into producers (log_id, producer_id, epoch, batches, written_ms)
select w.log_id, w.producer_id, w.epoch, w.batches, w.written_ms
from rows($1 as w: log_id bigint, producer_id bigint, epoch integer, batches bytea, written_ms bigint)
where true
on conflict (log_id, producer_id) do update
set epoch = excluded.epoch, batches = excluded.batches, written_ms = excluded.written_ms

-- name: store_outcomes
update segments set outcome = w.outcome
from rows($1 as w: segment_id bigint, outcome bytea)
where segments.segment_id = w.segment_id

-- name: extents_of_segments
select e.log_id, e.base_offset, e.end_offset, s.key, e.position, e.size_bytes, e.max_timestamp_ms, s.level, e.payload
from rows($1 as w: segment_id bigint) cross join segments s cross join extents e
where s.segment_id = w.segment_id and e.segment_id = w.segment_id
order by e.log_id, e.end_offset

-- name: claim_key
-- The sweep's: a commit of that key is refused from then on.
insert into segments (key, size_bytes, level, state, created_ms, died_ms)
values ($1, $2, 0, 1, $3, $3)
on conflict (key) do nothing

-- name: move_log_starts
update logs set start_offset = w.start_offset
from rows($1 as w: log_id bigint, start_offset bigint)
where logs.log_id = w.log_id
