-- What fsck reads, in pages and from snapshots, and the little that it repairs.

-- name: page_of_logs
select l.log_id, l.topic_id, l.partition, l.start_offset, l.next_offset, l.size_bytes, l.max_timestamp_ms,
    l.clean_offset, t.name, t.partitions
from logs l left join topics t on t.topic_id = l.topic_id
where l.log_id > $1
order by l.log_id
limit $2

-- name: log_of_partition
select l.log_id, l.topic_id, l.partition, l.start_offset, l.next_offset, l.size_bytes, l.max_timestamp_ms,
    l.clean_offset, t.name, t.partitions
from topics t cross join logs l
where t.name = $1 and l.topic_id = t.topic_id and l.partition = $2

-- name: deleted_logs_between
select d.log_id, d.topic_id, d.partition from deleted_logs d
where d.log_id > $1 and d.log_id <= $2
order by d.log_id

-- name: page_of_extents
-- The whole index in its order, from behind one extent up to a log. has_payload is a length, -1 without one.
select e.log_id, e.base_offset, e.end_offset, e.segment_id, e.position, e.size_bytes, e.max_timestamp_ms,
    e.prefix_max_timestamp_ms, coalesce(length(e.payload), -1), s.key, s.size_bytes, s.level, s.state, s.created_ms
from extents e left join segments s on s.segment_id = e.segment_id
where (e.log_id, e.end_offset) > ($1, $2) and e.log_id <= $3
order by e.log_id, e.end_offset
limit $4

-- name: payloads_of_page
select e.log_id, e.base_offset, e.end_offset, e.payload from extents e
where (e.log_id, e.end_offset) > ($1, $2) and e.payload is not null
order by e.log_id, e.end_offset
limit $3

-- name: topics_of_page
select t.topic_id, t.name, t.partitions, (select count(*) from logs l where l.topic_id = t.topic_id)
from topics t
where t.topic_id > $1
order by t.topic_id
limit $2

-- name: page_of_segments
select s.segment_id, s.key, s.size_bytes, s.level, s.state, s.created_ms, s.died_ms from segments s
where s.segment_id > $1 and s.segment_id <= $2
order by s.segment_id
limit $3

-- name: segments_by_key
select s.segment_id, s.key, s.size_bytes, s.level, s.state, s.created_ms, s.died_ms
from rows($1 as w: key text) cross join segments s
where s.key = w.key

-- name: count_segments
select count(*) from segments s where s.state = 0

-- name: last_segment
select coalesce(max(s.segment_id), 0) from segments s

-- name: count_logs
select count(*) from logs

-- name: extents_of_segments
select e.segment_id, e.log_id, e.base_offset, e.end_offset, e.position, e.size_bytes, e.max_timestamp_ms,
    coalesce(l.topic_id, d.topic_id), coalesce(l.partition, d.partition),
    case when l.log_id is null then 1 else 0 end, q.reason
from rows($1 as w: segment_id bigint) cross join extents e
left join logs l on l.log_id = e.log_id
left join deleted_logs d on d.log_id = e.log_id
left join quarantined_extents q on q.log_id = e.log_id and q.end_offset = e.end_offset
where e.segment_id = w.segment_id
order by e.segment_id, e.position, e.log_id, e.end_offset

-- name: page_of_quarantined
select q.log_id, q.end_offset, q.segment_id, q.reason, q.found_ms, e.segment_id, e.base_offset, s.key
from quarantined_extents q
left join extents e on e.log_id = q.log_id and e.end_offset = q.end_offset
left join segments s on s.segment_id = q.segment_id
where (q.log_id, q.end_offset) > ($1, $2)
order by q.log_id, q.end_offset
limit $3

-- name: page_of_producers
select p.log_id, p.producer_id, p.batches, p.open_offset, l.next_offset,
    case when d.log_id is null then 0 else 1 end
from producers p
left join logs l on l.log_id = p.log_id
left join deleted_logs d on d.log_id = p.log_id
where (p.log_id, p.producer_id) > ($1, $2)
order by p.log_id, p.producer_id
limit $3

-- name: page_of_group_offsets
select o.group_number, o.log_id, o.committed_offset, g.group_id, l.log_id
from group_offsets o
left join groups g on g.group_number = o.group_number
left join logs l on l.log_id = o.log_id
where (o.group_number, o.log_id) > ($1, $2)
order by o.group_number, o.log_id
limit $3

-- name: members_without_group
select m.group_number, count(*) from group_members m
where not exists (select 1 from groups g where g.group_number = m.group_number)
group by m.group_number
order by m.group_number
limit $1

-- name: undead_logs
-- Logs that count as deleted, and are there.
select d.log_id from deleted_logs d cross join logs l
where l.log_id = d.log_id
order by d.log_id
limit $1

-- name: size_of_extents
select cast(coalesce(sum(e.size_bytes), 0) as bigint) from extents e where e.log_id = $1

-- name: repair_log_size
update logs set size_bytes = $2 where log_id = $1 and size_bytes <> $2

-- name: extents_for_prefix
select e.end_offset, e.max_timestamp_ms, e.prefix_max_timestamp_ms from extents e
where e.log_id = $1 and e.end_offset > $2
order by e.end_offset
limit $3

-- name: repair_prefix
update extents set prefix_max_timestamp_ms = w.prefix_max_timestamp_ms
from rows($1 as w: log_id bigint, end_offset bigint, prefix_max_timestamp_ms bigint)
where extents.log_id = w.log_id and extents.end_offset = w.end_offset

-- name: repair_log_maximum
update logs set max_timestamp_ms = $2 where log_id = $1 and max_timestamp_ms < $2

-- name: repair_clean_offset
update logs set clean_offset = 0 where log_id = $1 and clean_offset > next_offset

-- name: release_quarantined
delete from quarantined_extents where log_id = $1 and end_offset = $2 and segment_id = $3

-- name: remove_producer
-- Of a log that is nowhere: log ids are never given out again.
delete from producers where log_id = $1 and producer_id = $2
    and not exists (select 1 from logs l where l.log_id = $1)
    and not exists (select 1 from deleted_logs d where d.log_id = $1)

-- name: largest_of_extents
select coalesce(max(e.max_timestamp_ms), -1) from extents e where e.log_id = $1
