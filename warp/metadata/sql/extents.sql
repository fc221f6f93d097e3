-- Reading the index of a log.

-- name: log_states
select l.log_id, l.start_offset, l.next_offset,
    coalesce((select min(p.open_offset) from producers p where p.log_id = l.log_id and p.open_offset is not null),
        l.next_offset),
    l.size_bytes
from rows($1 as w: log_id bigint) cross join logs l
where l.log_id = w.log_id

-- name: read_extents
-- Walks each log's index one extent at a time, so the cost grows with the answer alone.
with recursive walk (query, log_id, end_offset, bytes_left, steps_left) as (
    select w.query, w.log_id,
        (select min(e.end_offset) from extents e where e.log_id = w.log_id and e.end_offset > w.start),
        w.bytes_max, w.steps_max
    from rows($1 as w: query bigint, log_id bigint, start bigint, bytes_max bigint, steps_max bigint)
    union all
    select k.query, k.log_id,
        (select min(n.end_offset) from extents n where n.log_id = k.log_id and n.end_offset > k.end_offset),
        k.bytes_left - e.size_bytes, k.steps_left - 1
    from walk k cross join extents e
    where e.log_id = k.log_id and e.end_offset = k.end_offset
        and k.bytes_left > e.size_bytes and k.steps_left > 1
)
select k.query, e.log_id, e.base_offset, e.end_offset, s.key, e.position, e.size_bytes, e.max_timestamp_ms, s.level,
    e.payload
from walk k cross join extents e left join segments s on s.segment_id = e.segment_id
where e.log_id = k.log_id and e.end_offset = k.end_offset
order by k.query, e.end_offset

-- name: first_offset_reaching_time
-- Bisects [low, high) for the smallest offset whose extent has a prefix maximum of at least the time: as many steps as
-- the log's length has bits. The next offset when there is none.
with recursive bisect (low, high, is_left) as (
    select l.start_offset, l.next_offset, 1 from logs l where l.log_id = $1
    union all
    select
        case when h.is_left = 1 then b.low else b.low + (b.high - b.low) / 2 + 1 end,
        case when h.is_left = 1 then b.low + (b.high - b.low) / 2 else b.high end,
        h.is_left
    from bisect b cross join (select 1 as is_left union all select 0) h
    where b.low < b.high and h.is_left = case when (
        select e.prefix_max_timestamp_ms from extents e
        where e.log_id = $1 and e.end_offset > b.low + (b.high - b.low) / 2
        order by e.end_offset limit 1
    ) >= $2 then 1 else 0 end
)
select low from bisect where low >= high

-- name: extents_reaching_time
select e.log_id, e.base_offset, e.end_offset, s.key, e.position, e.size_bytes, e.max_timestamp_ms, s.level, e.payload
from extents e left join segments s on s.segment_id = e.segment_id
where e.log_id = $1 and e.end_offset > $2 and e.max_timestamp_ms >= $3
order by e.end_offset
limit $4

-- name: largest_timestamps
select l.max_timestamp_ms, l.start_offset from logs l where l.log_id = $1 and l.start_offset < l.next_offset

-- name: extent_of_largest_timestamp
select e.log_id, e.base_offset, e.end_offset, s.key, e.position, e.size_bytes, e.max_timestamp_ms, s.level, e.payload
from extents e left join segments s on s.segment_id = e.segment_id
where e.log_id = $1 and e.end_offset > $2
order by e.max_timestamp_ms desc, e.end_offset
limit 1
