-- Groups and their members. Each is written only under the lease of its slot, so by one agent at a time.

-- name: load_groups
select g.group_number, g.group_id, g.protocol_type, g.generation, g.protocol, g.leader, g.changed_ms
from rows($1 as w: slot integer) cross join groups g
where g.slot = w.slot

-- name: load_members
select m.group_number, m.member_id, m.fields
from rows($1 as w: slot integer) cross join groups g cross join group_members m
where g.slot = w.slot and m.group_number = g.group_number
order by m.group_number, m.place

-- name: upsert_groups
insert into groups (group_id, slot, protocol_type, generation, protocol, leader, changed_ms)
select w.group_id, w.slot, w.protocol_type, w.generation, w.protocol, w.leader, w.changed_ms
from rows($1 as w: group_id text, slot integer, protocol_type text, generation integer, protocol text, leader text,
    changed_ms bigint)
where true
on conflict (group_id) do update
set protocol_type = excluded.protocol_type, generation = excluded.generation, protocol = excluded.protocol,
    leader = excluded.leader, changed_ms = excluded.changed_ms
returning group_id, group_number

-- name: delete_other_members
delete from group_members
where group_number in (select w.group_number from rows($1 as w: group_number bigint))
    and (group_number, member_id) not in (
        select k.group_number, k.member_id from rows($2 as k: group_number bigint, member_id bytea)
    )

-- name: upsert_members
-- Leaves alone what has not changed: after most rebalances that is nearly everything.
insert into group_members (group_number, member_id, place, fields)
select w.group_number, w.member_id, w.place, w.fields
from rows($1 as w: group_number bigint, member_id bytea, place integer, fields bytea)
where true
on conflict (group_number, member_id) do update
set place = excluded.place, fields = excluded.fields
where group_members.place <> excluded.place or group_members.fields <> excluded.fields

-- name: delete_groups
delete from groups where group_id in (select w.group_id from rows($1 as w: group_id text))
returning group_id, group_number

-- name: delete_groups_without_offsets
delete from groups
where group_id in (select w.group_id from rows($1 as w: group_id text))
    and not exists (select 1 from group_members m where m.group_number = groups.group_number)
    and not exists (
        select 1 from group_offsets o cross join logs l
        where o.group_number = groups.group_number and l.log_id = o.log_id
    )
returning group_id, group_number

-- name: delete_members
delete from group_members where group_number in (select w.group_number from rows($1 as w: group_number bigint))
