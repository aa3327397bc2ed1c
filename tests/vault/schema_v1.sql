-- A vault as version 1 of the schema left it: tables, a few rows, and PRAGMA user_version. Frozen: never edited.
-- Its root key is 11 repeated 32 times; secret "db" has two versions, "made" a schedule, "old" is in the trash.
BEGIN TRANSACTION;
CREATE TABLE agent_projects (
    agent_id TEXT NOT NULL REFERENCES ai_agents (id) ON DELETE CASCADE,
    project_id TEXT NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
    PRIMARY KEY (agent_id, project_id)
);
INSERT INTO "agent_projects" VALUES('00000000-0000-4000-8000-000000000002','proj_8zaaeq4t4podzox4');
CREATE TABLE ai_agents (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    public_key BLOB NOT NULL UNIQUE,
    scopes TEXT NOT NULL,
    restricted INTEGER NOT NULL,
    approved_ms INTEGER,
    enabled INTEGER NOT NULL DEFAULT 1,
    created_ms INTEGER NOT NULL
);
INSERT INTO "ai_agents" VALUES('00000000-0000-4000-8000-000000000001','First',X'000102030405060708090A0B0C0D0E0F101112131415161718191A1B1C1D1E1F','["projects.read"]',0,1767225600000,1,1767225600000);
INSERT INTO "ai_agents" VALUES('00000000-0000-4000-8000-000000000002','Second',X'0102030405060708090A0B0C0D0E0F101112131415161718191A1B1C1D1E1F20','["audit.read"]',1,NULL,0,1767225600000);
CREATE TABLE audit (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    action TEXT NOT NULL,
    severity TEXT NOT NULL,
    actor_kind TEXT NOT NULL,
    user_id TEXT,
    machine_id TEXT,
    agent_id TEXT,
    secret_id TEXT,
    project_id TEXT,
    source_ip TEXT,
    detail TEXT NOT NULL,
    created_ms INTEGER NOT NULL
);
INSERT INTO "audit" VALUES(1,'project_create','low','ai_agent',NULL,NULL,'00000000-0000-4000-8000-000000000001',NULL,'proj_8zaaeq4t4podzox4','127.0.0.1','project proj_8zaaeq4t4podzox4 created as Payments',1767225600000);
INSERT INTO "audit" VALUES(2,'secret_create','low','ai_agent',NULL,NULL,'00000000-0000-4000-8000-000000000001','sk_42316k8mmepn3pto','proj_8zaaeq4t4podzox4','127.0.0.1','secret created as db',1767225600000);
INSERT INTO "audit" VALUES(3,'secret_update','low','ai_agent',NULL,NULL,'00000000-0000-4000-8000-000000000001','sk_42316k8mmepn3pto','proj_8zaaeq4t4podzox4','127.0.0.1','value replaced, now version 2',1767225600000);
INSERT INTO "audit" VALUES(4,'dynamic_secret_create','low','ai_agent',NULL,NULL,'00000000-0000-4000-8000-000000000001','sk_24qcdmfcmiwiifv8','proj_8zaaeq4t4podzox4','127.0.0.1','rotates every 3600 seconds',1767225600000);
INSERT INTO "audit" VALUES(5,'secret_create','low','ai_agent',NULL,NULL,'00000000-0000-4000-8000-000000000001','sk_r1llqavyqet2ryom','proj_8zaaeq4t4podzox4','127.0.0.1','secret created as old',1767225600000);
INSERT INTO "audit" VALUES(6,'secret_delete','medium','ai_agent',NULL,NULL,'00000000-0000-4000-8000-000000000001','sk_r1llqavyqet2ryom','proj_8zaaeq4t4podzox4','127.0.0.1','old moved to the trash',1767225600000);
INSERT INTO "audit" VALUES(7,'bootstrap_token_create','medium','user','owner',NULL,NULL,NULL,NULL,NULL,'scopes: projects.read',1767225600000);
CREATE TABLE bootstrap_tokens (
    token_hash BLOB PRIMARY KEY,
    name TEXT,
    scopes TEXT NOT NULL,
    allowlist TEXT,
    created_ms INTEGER NOT NULL,
    expires_ms INTEGER NOT NULL,
    used_ms INTEGER
);
INSERT INTO "bootstrap_tokens" VALUES(X'13AE6D222C7B09592CAFCED3FE15C8D065A1CDFEC027A990E2EA0C3A68729E42','Second','["projects.read"]','["proj_8zaaeq4t4podzox4"]',1767225600000,1767312000000,NULL);
CREATE TABLE grants (
    machine_id TEXT NOT NULL REFERENCES machines (id) ON DELETE CASCADE,
    secret_id TEXT NOT NULL REFERENCES secrets (id) ON DELETE CASCADE,
    granted_ms INTEGER NOT NULL,
    PRIMARY KEY (machine_id, secret_id)
);
INSERT INTO "grants" VALUES('00000000-0000-4000-8000-000000000003','sk_42316k8mmepn3pto',1767225600000);
CREATE TABLE machines (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('standard', 'ephemeral', 'temp')),
    hostname TEXT NOT NULL,
    public_key BLOB NOT NULL UNIQUE,
    approved_ms INTEGER,
    expires_ms INTEGER,
    enrollment_token_id TEXT,
    last_seen_ms INTEGER,
    created_ms INTEGER NOT NULL
);
INSERT INTO "machines" VALUES('00000000-0000-4000-8000-000000000003','ci','standard','host',X'02030405060708090A0B0C0D0E0F101112131415161718191A1B1C1D1E1F2021',1767225600000,NULL,NULL,NULL,1767225600000);
CREATE TABLE nonces (
    identity TEXT NOT NULL,
    nonce TEXT NOT NULL,
    forget_ms INTEGER NOT NULL,
    PRIMARY KEY (identity, nonce)
) WITHOUT ROWID;
INSERT INTO "nonces" VALUES('00000000-0000-4000-8000-000000000001','nonce-00000000000001',1767226800000);
CREATE TABLE project_machines (
    project_id TEXT NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
    machine_id TEXT NOT NULL REFERENCES machines (id) ON DELETE CASCADE,
    added_ms INTEGER NOT NULL,
    PRIMARY KEY (project_id, machine_id)
);
INSERT INTO "project_machines" VALUES('proj_8zaaeq4t4podzox4','00000000-0000-4000-8000-000000000003',1767225600000);
CREATE TABLE projects (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    description TEXT NOT NULL,
    wrapped_key BLOB NOT NULL,
    created_ms INTEGER NOT NULL,
    updated_ms INTEGER NOT NULL
);
INSERT INTO "projects" VALUES('proj_8zaaeq4t4podzox4','Payments','',X'2087618E6817712F67DDC9F434295D3BC38C03297D2313ECFE864165DF3361469650877E6C2A792ED5BAEBDB6EC730043E780C592165CB6DB2049C7E',1767225600000,1767225600000);
CREATE TABLE rotation_schedules (
    secret_id TEXT PRIMARY KEY REFERENCES secrets (id) ON DELETE CASCADE,
    interval_s INTEGER NOT NULL,
    length INTEGER NOT NULL,
    charset TEXT NOT NULL,
    fields TEXT,
    enabled INTEGER NOT NULL DEFAULT 1,
    next_ms INTEGER,
    last_ms INTEGER,
    created_ms INTEGER NOT NULL,
    updated_ms INTEGER NOT NULL
);
INSERT INTO "rotation_schedules" VALUES('sk_24qcdmfcmiwiifv8',3600,12,'numbers',NULL,1,1767229200000,NULL,1767225600000,1767225600000);
CREATE TABLE secret_versions (
    secret_id TEXT NOT NULL REFERENCES secrets (id) ON DELETE CASCADE,
    version INTEGER NOT NULL,
    origin TEXT NOT NULL,
    wrapped_key BLOB NOT NULL,
    ciphertext BLOB NOT NULL,
    created_ms INTEGER NOT NULL,
    PRIMARY KEY (secret_id, version)
);
INSERT INTO "secret_versions" VALUES('sk_42316k8mmepn3pto',1,'create',X'F5F7F0EC39FFBA91AEE0D05A9C0014780F259F7878EA46E7CEA58FE1C9316BDA003C32E32B85632F0891EC23985D9DF1441626738B13B917C32BD8F8',X'94F1588EA9AD107EEC26C3D2F7DCA28455123804365D70EBF337E0F0454BCFDD4AB208B80E011A6DB1DE07B48364FA21AAABDC7C',1767225600000);
INSERT INTO "secret_versions" VALUES('sk_42316k8mmepn3pto',2,'update',X'5D56A6EC3272D209D8A04D360CA5F750045B057D6DBCCDE56CD53165CDC0DDE2B6A8F1B72943CA878348E52704DD9A1A302F81D8740AA3A1B71A5656',X'0305FE0F6D0B0052782A820888600F4ECA21E1F5F4B0B0D1E263272E67642AAAF7A43EF4FA6F18BEF3154AF860EDA5F17D313A0585',1767225600000);
INSERT INTO "secret_versions" VALUES('sk_24qcdmfcmiwiifv8',1,'create',X'1AE9FE9481054B5535AAB1EE7AC2568557CF89747D1FDD5BF0AF27C1621ACCE0A0FD6A1BAF0269240AEF54F0BDBEAEC2EFCFC8E90FF882DB21328293',X'0BA4DA37CC00DC85EB12B64C1867A4E539A9FEA07A247A39F888B919E32B2DBAE1F8D001E960360A',1767225600000);
INSERT INTO "secret_versions" VALUES('sk_r1llqavyqet2ryom',1,'create',X'D4D09E42CE5D46A8D50E64195A2151D6BFB6757A1DB6230B5587AC892D2C4244F960CC914CB04E8E136847AB43C47514C23069DF4F45F1AD2C9CAABF',X'5707F949BB41A1200AD2E20366476F7E1D239F19501F936A62E29F6337EAD3AED1F378',1767225600000);
CREATE TABLE secrets (
    id TEXT PRIMARY KEY,
    project_id TEXT NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('secret', 'structured', 'canary')),
    field_names TEXT,
    note TEXT NOT NULL,
    version INTEGER NOT NULL,
    created_ms INTEGER NOT NULL,
    updated_ms INTEGER NOT NULL,
    deleted_ms INTEGER
);
INSERT INTO "secrets" VALUES('sk_42316k8mmepn3pto','proj_8zaaeq4t4podzox4','db','secret',NULL,'',2,1767225600000,1767225600000,NULL);
INSERT INTO "secrets" VALUES('sk_24qcdmfcmiwiifv8','proj_8zaaeq4t4podzox4','made','secret',NULL,'',1,1767225600000,1767225600000,NULL);
INSERT INTO "secrets" VALUES('sk_r1llqavyqet2ryom','proj_8zaaeq4t4podzox4','old','secret',NULL,'',1,1767225600000,1767225600000,1767225600000);
CREATE TABLE vault (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    id TEXT NOT NULL,
    root_key_proof BLOB NOT NULL,
    created_ms INTEGER NOT NULL
);
INSERT INTO "vault" VALUES(1,'vault_k04wmbr5i2xii7b6',X'34EEA2C1143178677142254684F1AAC3500A1F01ECDE8AE0906A9F94',1767225600000);
CREATE INDEX audit_by_agent ON audit (agent_id, id);
CREATE INDEX audit_by_project ON audit (project_id, id);
CREATE TRIGGER audit_keeps_rows BEFORE DELETE ON audit
    BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
CREATE TRIGGER audit_keeps_words BEFORE UPDATE ON audit
    BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
CREATE INDEX nonces_by_age ON nonces (forget_ms);
CREATE INDEX secrets_by_project ON secrets (project_id);
CREATE INDEX rotation_schedules_due ON rotation_schedules (next_ms) WHERE next_ms IS NOT NULL;
INSERT INTO "sqlite_sequence" VALUES('audit',7);
COMMIT;
PRAGMA user_version = 1;
