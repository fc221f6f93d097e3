-- Entries of the catalogue: ACLs, credentials, quotas, configs of the whole cluster. The release before knows nothing of
-- them and works beside them; it enforces none of them.
-- works from schema: 1

-- digest: SHA-256 of kind and key, because keys may be longer than an index takes. value: null once the entry is deleted,
-- so that agents find that out, for some time. version is the catalogue's at the entry's last change.
create table catalogue_entries (
    digest blob primary key,
    kind text not null,
    key text not null,
    value text,
    version integer not null
) without rowid;
create index catalogue_entries_by_version on catalogue_entries (version);
create index catalogue_entries_deleted on catalogue_entries (version) where value is null;
