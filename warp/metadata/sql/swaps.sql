-- What a swap does, after it has locked the logs: whatever it depends on is read by statements later than the lock.

-- name: extents_as_they_are
select e.log_id, e.end_offset, e.base_offset, e.segment_id, e.position, e.size_bytes, e.max_timestamp_ms,
    e.prefix_max_timestamp_ms, q.segment_id
from rows($1 as w: log_id bigint, end_offset bigint) cross join extents e
left join quarantined_extents q on q.log_id = e.log_id and q.end_offset = e.end_offset
where e.log_id = w.log_id and e.end_offset = w.end_offset

-- name: segments_of_keys
select s.key, s.segment_id, s.level
from rows($1 as w: key text) cross join segments s
where s.key = w.key

-- name: keep_live_segments
-- Whoever marks a segment dead locks it first, and then looks again.
select s.key, s.segment_id
from rows($1 as w: key text) cross join segments s
where s.key = w.key and s.state = 0
order by s.segment_id
share rows of s

-- name: insert_segments
insert into segments (key, size_bytes, level, state, created_ms)
select w.key, w.size_bytes, w.level, 0, w.created_ms
from rows($1 as w: key text, size_bytes bigint, level integer, created_ms bigint)
where true
on conflict (key) do nothing
returning key, segment_id

-- name: delete_extents
delete from extents
where (log_id, end_offset) in (select w.log_id, w.end_offset
    from rows($1 as w: log_id bigint, end_offset bigint)
)

-- name: insert_extents
insert into extents (log_id, end_offset, base_offset, segment_id, position, size_bytes, max_timestamp_ms,
    prefix_max_timestamp_ms)
select w.log_id, w.end_offset, w.base_offset, w.segment_id, w.position, w.size_bytes, w.max_timestamp_ms,
    w.prefix_max_timestamp_ms
from rows($1 as w: log_id bigint, end_offset bigint, base_offset bigint, segment_id bigint, position bigint,
    size_bytes bigint, max_timestamp_ms bigint, prefix_max_timestamp_ms bigint)

-- name: change_logs
-- By how much each log has grown, and how far it is compacted at least.
update logs
set size_bytes = logs.size_bytes + w.grown_bytes,
    clean_offset = case when logs.clean_offset < w.clean_offset then w.clean_offset else logs.clean_offset end
from rows($1 as w: log_id bigint, grown_bytes bigint, clean_offset bigint)
where logs.log_id = w.log_id

-- name: logs_in_segments
select distinct e.log_id
from rows($1 as w: segment_id bigint) cross join extents e
where e.segment_id = w.segment_id
