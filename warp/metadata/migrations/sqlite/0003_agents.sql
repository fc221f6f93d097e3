-- Agents tell each other that they live. The release before registers an agent and leaves these columns as they are.
-- works from schema: 1

-- incarnation: random text, another one for each process; '' for an agent that has only been given its broker id.
-- state: see AgentState. counter rises with every beat and every new incarnation; observers time how long it has stood
-- still. beat_ms: the agent's own wall time of its last beat. facts: JSON, see AgentFacts.
alter table agents add column incarnation text not null default '';
alter table agents add column state integer not null default 0;
alter table agents add column counter integer not null default 0;
alter table agents add column beat_ms integer not null default 0;
alter table agents add column facts text not null default '{}';
