-- Settings, agents and producer ids.

-- name: read_setting
select value from settings where name = $1

-- name: write_setting
insert into settings (name, value) values ($1, $2)
on conflict (name) do update set value = excluded.value

-- name: write_setting_once
insert into settings (name, value) values ($1, $2)
on conflict (name) do nothing

-- name: register_agent
insert into agents (name, registered_ms) values ($1, $2)
on conflict (name) do update set registered_ms = excluded.registered_ms
returning broker_id

-- name: allocate_producer_ids
update producer_ids set next_producer_id = next_producer_id + $1
where id = 1
returning next_producer_id
