-- What the jobs remember that merge, compact and delete. The release before works beside it, and runs none of them.
-- works from schema: 1

-- What lies before clean_offset has been compacted by key.
alter table logs add column clean_offset integer not null default 0;

-- state of a segment, from now on: 0 live, 1 dead, 2 dead and its object deleted: the row stays for a while, so that a
-- late commit of its key is still known.
create index segments_live on segments (level, segment_id, size_bytes, state) where state = 0;
create index segments_gone on segments (died_ms) where state = 2;

-- Extents whose bytes a job has found missing or damaged: no job touches them again, nor deletes their segment.
create table quarantined_extents (
    log_id integer not null,
    end_offset integer not null,
    segment_id integer not null,
    reason text not null,
    found_ms integer not null,
    primary key (log_id, end_offset)
) without rowid;
create index quarantined_segments on quarantined_extents (segment_id);
