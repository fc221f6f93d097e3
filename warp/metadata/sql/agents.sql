-- The agents of a cluster: their registrations, which they keep moving, and what they read of each other.

-- name: find_agent
select a.broker_id, a.name, a.incarnation, a.state, a.counter, a.beat_ms, a.facts from agents a where a.name = $1

-- name: insert_agent
insert into agents (name, registered_ms, incarnation, state, counter, beat_ms, facts)
values ($1, $2, $3, $4, 1, $2, $5)
on conflict (name) do nothing
returning broker_id

-- name: take_over_agent
update agents
set registered_ms = $4, incarnation = $5, state = $6, counter = counter + 1, beat_ms = $4, facts = $7
where name = $1 and incarnation = $2 and counter = $3
returning broker_id

-- name: beat
update agents set state = $3, counter = counter + 1, beat_ms = $4, facts = $5
where broker_id = $1 and incarnation = $2
returning counter

-- name: all_agents
select a.broker_id, a.name, a.incarnation, a.state, a.counter, a.beat_ms, a.facts from agents a order by a.broker_id

-- name: all_leases
select l.name, l.holder, l.epoch, l.counter from leases l order by l.name

-- name: lock_leases_of_holders
select l.name from leases l
where l.holder in (select w.broker_id from rows($1 as w: broker_id bigint))
order by l.name
lock rows of l

-- name: lock_agents_as_seen
select a.broker_id from agents a
where (a.broker_id, a.incarnation, a.counter) in (
    select w.broker_id, w.incarnation, w.counter from rows($1 as w: broker_id bigint, incarnation text, counter bigint)
)
order by a.broker_id
lock rows of a

-- name: delete_agents
delete from agents where broker_id in (select w.broker_id from rows($1 as w: broker_id bigint))

-- name: find_segment
select 1 from segments s where s.key = $1
