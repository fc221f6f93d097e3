-- Logs and their extents, as jobs read and trim them.

-- name: extents_in_segments
select e.log_id, e.base_offset, e.end_offset, e.segment_id, e.position, e.size_bytes, e.max_timestamp_ms, s.key, s.level
from rows($1 as w: segment_id bigint) cross join segments s cross join extents e
where s.segment_id = w.segment_id and e.segment_id = w.segment_id
    and (
        select 1 from quarantined_extents q where q.log_id = e.log_id and q.end_offset = e.end_offset
    ) is null
order by e.log_id, e.end_offset

-- name: extents_of_log
select e.log_id, e.base_offset, e.end_offset, e.segment_id, e.position, e.size_bytes, e.max_timestamp_ms, s.key, s.level
from extents e left join segments s on s.segment_id = e.segment_id
where e.log_id = $1 and e.end_offset > $2
order by e.end_offset
limit $3

-- name: log_heads
-- The first extent is the first that ends after the start: those before it only wait for their removal.
select l.log_id, l.start_offset, l.next_offset, l.size_bytes, e.end_offset, e.max_timestamp_ms
from rows($1 as w: log_id bigint) cross join logs l
left join extents e on e.log_id = l.log_id and e.end_offset = (
    select min(f.end_offset) from extents f where f.log_id = l.log_id and f.end_offset > l.start_offset
)
where l.log_id = w.log_id
order by l.log_id

-- name: log_dirt
-- Only dirty extents are looked at, and those that wait for their removal; what is left of the size is clean.
select l.log_id, l.start_offset, l.next_offset, l.clean_offset, l.size_bytes,
    (select coalesce(sum(e.size_bytes), 0) from extents e where e.log_id = l.log_id and e.end_offset <= l.start_offset),
    (select coalesce(sum(e.size_bytes), 0) from extents e
        where e.log_id = l.log_id and e.end_offset > l.start_offset and e.end_offset > l.clean_offset),
    (select e.max_timestamp_ms from extents e
        where e.log_id = l.log_id and e.end_offset > l.start_offset and e.end_offset > l.clean_offset
        order by e.end_offset limit 1)
from rows($1 as w: log_id bigint) cross join logs l
where l.log_id = w.log_id
order by l.log_id

-- name: walk_logs
-- And whether a log's first extent lies before its start altogether (1 or null).
select l.log_id,
    (select 1 from extents e where e.log_id = l.log_id and e.end_offset <= l.start_offset limit 1)
from logs l
where l.log_id > $1
order by l.log_id
limit $2

-- name: extents_before_starts
-- Of each log no more than $2 are looked at.
select e.log_id, e.end_offset, e.size_bytes
from rows($1 as w: log_id bigint, start_offset bigint) cross join extents e
where e.log_id = w.log_id and e.end_offset <= (
    select max(n.end_offset) from (
        select f.end_offset from extents f
        where f.log_id = w.log_id and f.end_offset <= w.start_offset
        order by f.end_offset
        limit $2
    ) n
)
order by e.log_id, e.end_offset
limit $2

-- name: lock_deleted_logs
select d.log_id from deleted_logs d order by d.log_id limit $1
lock rows of d

-- name: producers_of_deleted_logs
-- Of each log no more than $2 are looked at.
select p.log_id, p.producer_id
from rows($1 as w: log_id bigint) cross join producers p
where p.log_id = w.log_id and p.producer_id <= (
    select max(n.producer_id) from (
        select f.producer_id from producers f where f.log_id = w.log_id order by f.producer_id limit $2
    ) n
)
order by p.log_id, p.producer_id
limit $2

-- name: delete_producers
delete from producers
where (log_id, producer_id) in (select w.log_id, w.producer_id
    from rows($1 as w: log_id bigint, producer_id bigint)
)

-- name: forget_deleted_logs
delete from deleted_logs where log_id in (select w.log_id from rows($1 as w: log_id bigint))

-- name: walk_producers
select p.log_id, p.producer_id,
    case when p.open_offset is null and p.written_ms < $4 then 1 else 0 end
from producers p
where (p.log_id, p.producer_id) > ($1, $2)
order by p.log_id, p.producer_id
limit $3

-- name: lock_producers
select p.log_id, p.producer_id from rows($1 as w: log_id bigint, producer_id bigint) cross join producers p
where p.log_id = w.log_id and p.producer_id = w.producer_id
order by p.log_id, p.producer_id
lock rows of p

-- name: delete_idle_producers
-- As they are now, whatever they were when they were found.
delete from producers
where (log_id, producer_id) in (select w.log_id, w.producer_id
    from rows($1 as w: log_id bigint, producer_id bigint)
) and open_offset is null and written_ms < $2
