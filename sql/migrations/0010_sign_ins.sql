-- Sign-ins: a browser shows a key once, and from then on a cookie. Runs once.

set local lock_timeout = '10s';
set local statement_timeout = '10min';

set local role fleetwatt_owner;

create table sign_in (
    token_sha256 bytea primary key check (octet_length(token_sha256) = 32),
    key_id text collate "C" not null references api_key (key_id) on delete cascade,
    created_at timestamptz not null default now(),
    expires_at timestamptz not null
);
create index sign_in_key_id_created_at_idx on sign_in (key_id, created_at);
create index sign_in_expires_at_idx on sign_in (expires_at);
comment on table sign_in is 'Browsers that showed a good key, and read with a cookie until the end';
comment on column sign_in.token_sha256 is 'SHA-256 of the 256 random bits in the cookie, which are stored nowhere';
comment on column sign_in.key_id is 'The key that was shown; the sign-in ends with it at the latest';
comment on column sign_in.created_at is 'When the key was shown';
comment on column sign_in.expires_at is 'From when on the cookie is good for nothing';

-- Beginning and ending them is left to functions (sql/repeatable/027_sign_ins.sql).
grant select on sign_in to fleetwatt_service;

reset role;
