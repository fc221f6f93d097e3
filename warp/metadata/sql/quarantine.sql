-- Extents whose bytes could not be read.

-- name: insert_quarantined
insert into quarantined_extents (log_id, end_offset, segment_id, reason, found_ms)
select w.log_id, w.end_offset, w.segment_id, w.reason, w.found_ms
from rows($1 as w: log_id bigint, end_offset bigint, segment_id bigint, reason text, found_ms bigint)
where true
on conflict (log_id, end_offset) do nothing

-- name: quarantined_of_log
select q.log_id, q.end_offset, q.segment_id, q.reason, q.found_ms from quarantined_extents q
where q.log_id = $1
order by q.end_offset

-- name: quarantined
select q.log_id, q.end_offset, q.segment_id, q.reason, q.found_ms from quarantined_extents q
order by q.log_id, q.end_offset
limit $1

-- name: release_quarantined
delete from quarantined_extents
where (log_id, end_offset, segment_id, found_ms) in (select w.log_id, w.end_offset, w.segment_id, w.found_ms
    from rows($1 as w: log_id bigint, end_offset bigint, segment_id bigint, found_ms bigint)
)

-- name: forget_quarantined
delete from quarantined_extents
where (log_id, end_offset) in (select w.log_id, w.end_offset
    from rows($1 as w: log_id bigint, end_offset bigint)
)
