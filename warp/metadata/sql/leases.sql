-- Leases. Whoever writes under one shares its row first; whoever takes it waits for those, and they then find it taken.

-- name: share_leases
select l.name, l.holder, l.epoch from rows($1 as w: name text) cross join leases l
where l.name = w.name
order by l.name
share rows of l

-- name: lock_leases
select l.name, l.holder, l.epoch from rows($1 as w: name text) cross join leases l
where l.name = w.name
order by l.name
lock rows of l

-- name: lock_free_leases
-- Of an agent that is frozen in the midst of a write, some may be locked for seconds yet: that is to hold up no others.
select l.name from rows($1 as w: name text) cross join leases l
where l.name = w.name
order by l.name
lock free rows of l

-- name: take_leases
insert into leases (name, holder, epoch, counter)
select w.name, w.holder, 1, 1
from rows($1 as w: name text, holder integer)
where true
on conflict (name) do update
set holder = excluded.holder, epoch = leases.epoch + 1, counter = leases.counter + 1
returning name, epoch

-- name: take_leases_as_seen
-- Only where nothing has happened to the lease since it was seen at that epoch and counter; 0 and 0: not there at all.
insert into leases (name, holder, epoch, counter)
select w.name, w.holder, w.epoch + 1, w.counter + 1
from rows($1 as w: name text, holder integer, epoch integer, counter integer)
where true
on conflict (name) do update
set holder = excluded.holder, epoch = excluded.epoch, counter = excluded.counter
where leases.epoch = excluded.epoch - 1 and leases.counter = excluded.counter - 1
returning name, epoch

-- name: renew_leases
update leases set counter = leases.counter + 1
from rows($1 as w: name text)
where leases.name = w.name

-- name: release_leases
update leases set holder = null, counter = leases.counter + 1
from rows($1 as w: name text)
where leases.name = w.name

-- name: read_leases
select l.name, l.holder, l.epoch, l.counter from rows($1 as w: name text) cross join leases l
where l.name = w.name

-- name: leases_of_holder
select l.name, l.epoch from leases l where l.holder = $1 order by l.name
