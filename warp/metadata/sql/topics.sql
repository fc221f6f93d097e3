-- Topics, their configs and their logs.

-- name: all_topics
select topic_id, name, replication_factor from topics

-- name: all_configs
select topic_id, name, value from topic_configs order by topic_id, name

-- name: all_logs
select topic_id, log_id from logs order by topic_id, partition

-- name: changed_topics
select topic_id, name, replication_factor from topics where version > $1

-- name: changed_configs
select c.topic_id, c.name, c.value from topics t cross join topic_configs c
where t.version > $1 and c.topic_id = t.topic_id
order by c.topic_id, c.name

-- name: changed_logs
select l.topic_id, l.log_id from topics t cross join logs l
where t.version > $1 and l.topic_id = t.topic_id
order by l.topic_id, l.partition

-- name: removed_topics
select topic_id from deleted_topics where version > $1

-- name: colliding_topics
select t.collision_name, t.name from rows($1 as w: collision_name text) cross join topics t
where t.collision_name = w.collision_name

-- name: insert_topics
insert into topics (topic_id, name, collision_name, partitions, replication_factor, version, created_ms)
select w.topic_id, w.name, w.collision_name, w.partitions, w.replication_factor, w.version, w.created_ms
from rows($1 as w: topic_id bytea, name text, collision_name text, partitions integer, replication_factor integer,
    version bigint, created_ms bigint)

-- name: insert_configs
insert into topic_configs (topic_id, name, value)
select w.topic_id, w.name, w.value
from rows($1 as w: topic_id bytea, name text, value text)

-- name: insert_logs
insert into logs (topic_id, partition)
select w.topic_id, w.partition
from rows($1 as w: topic_id bytea, partition integer)

-- name: find_topics
select t.topic_id, t.name, t.partitions, t.replication_factor, t.version
from rows($1 as w: topic_id bytea) cross join topics t
where t.topic_id = w.topic_id

-- name: remember_deleted_topics
insert into deleted_topics (topic_id, name, version, deleted_ms)
select w.topic_id, w.name, w.version, w.deleted_ms
from rows($1 as w: topic_id bytea, name text, version bigint, deleted_ms bigint)

-- name: forget_deleted_topics
delete from deleted_topics where version <= $1 and deleted_ms < $2

-- name: logs_of_topics
select l.log_id, l.topic_id, l.partition from rows($1 as w: topic_id bytea) cross join logs l
where l.topic_id = w.topic_id

-- name: lock_logs_of_topics
select l.log_id, l.topic_id, l.partition from rows($1 as w: topic_id bytea) cross join logs l
where l.topic_id = w.topic_id
order by l.log_id
lock rows of l

-- name: remember_deleted_logs
insert into deleted_logs (log_id, topic_id, partition, deleted_ms)
select w.log_id, w.topic_id, w.partition, w.deleted_ms
from rows($1 as w: log_id bigint, topic_id bytea, partition integer, deleted_ms bigint)

-- name: delete_logs
delete from logs where log_id in (select w.log_id from rows($1 as w: log_id bigint))

-- name: delete_configs
delete from topic_configs where topic_id in (select w.topic_id from rows($1 as w: topic_id bytea))

-- name: delete_topics
delete from topics where topic_id in (select w.topic_id from rows($1 as w: topic_id bytea))

-- name: touch_topic
update topics set version = $2, partitions = $3 where topic_id = $1

-- name: configs_of_topics
select c.topic_id, c.name, c.value from rows($1 as w: topic_id bytea) cross join topic_configs c
where c.topic_id = w.topic_id
order by c.topic_id, c.name
