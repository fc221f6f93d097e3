-- Entries of the catalogue, by the digest of kind and key.

-- name: changed_entries
select kind, key, value from catalogue_entries where version > $1

-- name: all_entries
select kind, key, value from catalogue_entries where value is not null

-- name: newer_entry
select version from catalogue_entries where version > $2 and kind = $1 limit 1

-- name: upsert_entries
insert into catalogue_entries (digest, kind, key, value, version)
select w.digest, w.kind, w.key, w.value, w.version
from rows($1 as w: digest bytea, kind text, key text, value text, version bigint)
where true
on conflict (digest) do update set value = excluded.value, version = excluded.version

-- name: delete_entries
update catalogue_entries set value = null, version = $2
where digest in (select w.digest from rows($1 as w: digest bytea)) and value is not null

-- name: forget_deleted_entries
delete from catalogue_entries where value is null and version <= $1
