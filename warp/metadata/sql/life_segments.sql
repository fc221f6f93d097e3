-- Segments from their commit to their end, as jobs see them.

-- name: segment_totals
select s.level, count(*), sum(s.size_bytes) from segments s where s.state = 0 group by s.level order by s.level

-- name: live_levels
-- The levels that live segments have, each found by one look at the index.
with recursive walk (level) as (
    select (select min(s.level) from segments s where s.state = 0)
    union all
    select (select min(s.level) from segments s where s.state = 0 and s.level > k.level)
    from walk k where k.level is not null
)
select k.level from walk k where k.level is not null

-- name: live_segments_of_level
-- And whether there are extents in each, and quarantined ones (1 or null): looked up one by one, because a join, or
-- exists, may become a pass over all extents.
select s.segment_id, s.key, s.size_bytes, s.level, s.created_ms,
    (select 1 from extents e where e.segment_id = s.segment_id limit 1),
    (select 1 from quarantined_extents q where q.segment_id = s.segment_id limit 1)
from segments s
where s.state = 0 and s.level = $1 and s.segment_id > $2
order by s.segment_id
limit $3

-- name: lock_live_segments
select s.segment_id from rows($1 as w: segment_id bigint) cross join segments s
where s.segment_id = w.segment_id and s.state = 0
order by s.segment_id
lock rows of s

-- name: mark_empty_dead
update segments set state = 1, died_ms = $2
where segment_id in (
    select w.segment_id from rows($1 as w: segment_id bigint)
    where (select 1 from extents e where e.segment_id = w.segment_id limit 1) is null
        and (select 1 from quarantined_extents q where q.segment_id = w.segment_id limit 1) is null
) and state = 0

-- name: dead_segments
select s.segment_id, s.key, s.size_bytes, s.died_ms
from segments s
where s.state = 1 and (s.died_ms, s.segment_id) > ($1, $2)
order by s.died_ms, s.segment_id
limit $3

-- name: gone_segments
select s.segment_id, s.key, s.size_bytes, s.died_ms
from segments s
where s.state = 2 and (s.died_ms, s.segment_id) > ($1, $2)
order by s.died_ms, s.segment_id
limit $3

-- name: lock_segments
select s.segment_id from rows($1 as w: segment_id bigint) cross join segments s
where s.segment_id = w.segment_id
order by s.segment_id
lock rows of s

-- name: mark_gone
update segments set state = 2
where segment_id in (select w.segment_id from rows($1 as w: segment_id bigint)) and state = 1

-- name: forget_segments
delete from segments
where segment_id in (select w.segment_id from rows($1 as w: segment_id bigint)) and state = 2

-- name: known_keys
select s.key from rows($1 as w: key text) cross join segments s where s.key = w.key

-- name: claim_keys
insert into segments (key, size_bytes, level, state, created_ms, died_ms)
select w.key, w.size_bytes, 0, 1, w.died_ms, w.died_ms
from rows($1 as w: key text, size_bytes bigint, died_ms bigint)
where true
on conflict (key) do nothing
returning key
