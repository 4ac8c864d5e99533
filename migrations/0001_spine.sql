-- The spine: people and keys, workflows with their lease, approvals and votes, the event chain, the effects ledger.
--
-- The workflow row is the truth, the queue and the fence. Lock order everywhere: workflow, then approvals (by id),
-- then votes. Every table carries its namespace, but for `graphs` and `workers`: workers serve all namespaces alike.
-- Times are timestamptz on the database's clock.

-- The values a column may have, as domains: a table's own checks are parsed and run anew by every statement that writes
-- one of its rows, a domain's only where a value of it is made.
CREATE DOMAIN keyturn.workflow_mode AS text CHECK (VALUE IN ('interactive', 'autonomous'));
CREATE DOMAIN keyturn.workflow_status AS text
    CHECK (VALUE IN ('ready', 'running', 'waiting', 'completed', 'failed', 'rejected', 'expired', 'cancelled',
                     'timed_out'));
CREATE DOMAIN keyturn.approval_kind AS text CHECK (VALUE IN ('approval', 'question'));
CREATE DOMAIN keyturn.approval_dialect AS text
    CHECK (VALUE IN ('keyturn', 'langchain', 'langchain_call', 'agent_inbox', 'raw'));
CREATE DOMAIN keyturn.approval_route AS text CHECK (VALUE IN ('AUTO', 'QUICK', 'FULL', 'DENIED'));
CREATE DOMAIN keyturn.approval_state AS text
    CHECK (VALUE IN ('pending', 'approved', 'executed', 'lapsed', 'stale', 'rejected', 'expired', 'withdrawn', 'answered',
                     'cancelled'));
CREATE DOMAIN keyturn.rejection_outcome AS text CHECK (VALUE IN ('cancel', 'resume'));
CREATE DOMAIN keyturn.vote_verdict AS text CHECK (VALUE IN ('approve', 'reject'));
CREATE DOMAIN keyturn.effect_state AS text CHECK (VALUE IN ('started', 'finished', 'failed'));

CREATE TABLE keyturn.people (
    namespace  text NOT NULL,
    person     text NOT NULL,
    name       text NOT NULL DEFAULT '',
    email      text,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (namespace, person)
);

CREATE TABLE keyturn.role_bindings (
    namespace  text NOT NULL,
    person     text NOT NULL,
    role       text NOT NULL,
    granted_by text NOT NULL,
    granted_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (namespace, person, role),
    FOREIGN KEY (namespace, person) REFERENCES keyturn.people ON DELETE CASCADE
);
CREATE INDEX role_bindings_by_role ON keyturn.role_bindings (namespace, role);

-- Only a SHA-256 of the secret is kept; the key itself is shown once.
CREATE TABLE keyturn.api_keys (
    key_id        text PRIMARY KEY,
    namespace     text NOT NULL,
    person        text NOT NULL,
    secret_sha256 bytea NOT NULL,
    permissions   text[] NOT NULL,
    label         text NOT NULL DEFAULT '',
    created_by    text NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now(),
    expires_at    timestamptz,
    revoked_at    timestamptz,
    FOREIGN KEY (namespace, person) REFERENCES keyturn.people ON DELETE CASCADE
);
CREATE INDEX api_keys_by_person ON keyturn.api_keys (namespace, person);

-- What workers offer: the newest version of each graph, with what the API needs to know of it.
CREATE TABLE keyturn.graphs (
    graph        text NOT NULL,
    version      text NOT NULL,
    input_schema json NOT NULL,
    topology     json NOT NULL,
    max_running  integer,
    offered_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (graph, version)
);
CREATE INDEX graphs_newest ON keyturn.graphs (graph, offered_at DESC);

CREATE TABLE keyturn.workers (
    worker_id  text PRIMARY KEY,
    host       text NOT NULL,
    pid        integer NOT NULL,
    capacity   integer NOT NULL,
    graphs     text[] NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    seen_at    timestamptz NOT NULL DEFAULT now()
);

-- `epoch` rises with every claim and every outside transition, so whoever held the row before is fenced out.
-- `attempts` counts claims without progress. `last_seq` and `last_hash` are the head of the event chain.
CREATE TABLE keyturn.workflows (
    workflow_id   text PRIMARY KEY,
    namespace     text NOT NULL,
    graph         text NOT NULL,
    graph_version text NOT NULL,
    title         text NOT NULL DEFAULT '',
    case_id       text,
    mode          keyturn.workflow_mode NOT NULL DEFAULT 'interactive',
    status        keyturn.workflow_status NOT NULL,
    reason        text,
    error         json,
    input         json NOT NULL,
    result        json,
    requester     text NOT NULL,
    on_behalf_of  text,
    launched_by   text,
    risk_level    text,
    node          text,
    checkpointed  boolean NOT NULL DEFAULT false,
    priority      smallint NOT NULL DEFAULT 0,
    created_at    timestamptz NOT NULL,
    updated_at    timestamptz NOT NULL,
    finished_at   timestamptz,
    run_at        timestamptz NOT NULL,
    deadline_at   timestamptz,
    owner         text,
    lease_until   timestamptz,
    epoch         bigint NOT NULL DEFAULT 0,
    attempts      integer NOT NULL DEFAULT 0,
    last_seq      bigint NOT NULL DEFAULT 0,
    last_hash     bytea NOT NULL DEFAULT ''
) WITH (fillfactor = 85);
CREATE INDEX workflows_ready ON keyturn.workflows (priority DESC, run_at) WHERE status = 'ready';
CREATE INDEX workflows_leased ON keyturn.workflows (lease_until) WHERE status = 'running';
CREATE INDEX workflows_deadline ON keyturn.workflows (deadline_at)
    WHERE deadline_at IS NOT NULL AND status IN ('ready', 'running', 'waiting');
CREATE INDEX workflows_page ON keyturn.workflows (namespace, created_at DESC, workflow_id DESC);
CREATE INDEX workflows_by_case ON keyturn.workflows (namespace, case_id, created_at DESC) WHERE case_id IS NOT NULL;

-- One row per request; a batched interrupt has several, told apart by `item`; a request that
-- lapsed is asked again in the next `round`. `payload` is kept as it came. `decision` is the canonical answer, written before anything resumes.
CREATE TABLE keyturn.approvals (
    approval_id      text PRIMARY KEY,
    namespace        text NOT NULL,
    workflow_id      text NOT NULL REFERENCES keyturn.workflows ON DELETE CASCADE,
    interrupt_id     text NOT NULL,
    item             integer NOT NULL DEFAULT 0,
    round            integer NOT NULL DEFAULT 0,
    node             text NOT NULL,
    kind             keyturn.approval_kind NOT NULL,
    dialect          keyturn.approval_dialect NOT NULL,
    payload          json NOT NULL,
    action           json,
    question         json,
    allowed          text[] NOT NULL,
    description      text NOT NULL DEFAULT '',
    on_reject        keyturn.rejection_outcome NOT NULL DEFAULT 'cancel',
    digest           text NOT NULL,
    volatile_fields  text[] NOT NULL DEFAULT '{}',
    revision         integer NOT NULL DEFAULT 1,
    requester        text NOT NULL,
    on_behalf_of     text,
    launched_by      text,
    last_editor      text,
    risk_level       text NOT NULL,
    reasons          json NOT NULL,
    route            keyturn.approval_route NOT NULL,
    confidence       double precision,
    urgent           boolean NOT NULL DEFAULT false,
    policy           text NOT NULL,
    policy_versions  text[] NOT NULL,
    requirement      json NOT NULL,
    roles            text[] NOT NULL,
    approval_ttl     interval NOT NULL,
    requested_at     timestamptz NOT NULL,
    due_at           timestamptz NOT NULL,
    expires_at       timestamptz NOT NULL,
    escalate_at      timestamptz,
    lapses_at        timestamptz,
    state            keyturn.approval_state NOT NULL,
    decision         json,
    resolved_by      text,
    resolved_at      timestamptz,
    delivered_at     timestamptz,
    executed_at      timestamptz,
    UNIQUE (workflow_id, interrupt_id, item, round)
) WITH (fillfactor = 85);
CREATE INDEX approvals_pending ON keyturn.approvals (namespace, urgent DESC, due_at, approval_id)
    WHERE state = 'pending';
CREATE INDEX approvals_expiry ON keyturn.approvals (expires_at) WHERE state = 'pending';

-- One counted verdict per principal and revision; `via` names a bridge that spoke for the voter.
CREATE TABLE keyturn.votes (
    vote_id       bigint GENERATED ALWAYS AS IDENTITY,
    namespace     text NOT NULL,
    approval_id   text NOT NULL REFERENCES keyturn.approvals ON DELETE CASCADE,
    revision      integer NOT NULL,
    voter         text NOT NULL,
    acting_for    text,
    via           text,
    verdict       keyturn.vote_verdict NOT NULL,
    roles         text[] NOT NULL,
    justification text NOT NULL DEFAULT '',
    at            timestamptz NOT NULL,
    void_reason   text,
    superseded    boolean NOT NULL DEFAULT false,
    PRIMARY KEY (approval_id, vote_id)
);
CREATE UNIQUE INDEX votes_one_each ON keyturn.votes (approval_id, revision, voter) WHERE NOT superseded;

-- Append-only: the audit trail, the timeline and the stream in one. `body` is the exact text that was hashed. No foreign
-- key: whoever appends holds the workflow's row already, and a trail does not go with what it tells of.
CREATE TABLE keyturn.events (
    workflow_id text NOT NULL,
    seq         bigint NOT NULL,
    namespace   text NOT NULL,
    at          timestamptz NOT NULL,
    type        text NOT NULL,
    actor       text NOT NULL,
    body        json NOT NULL,
    hash        bytea NOT NULL,
    PRIMARY KEY (workflow_id, seq)
);

CREATE TABLE keyturn.effects (
    key         text PRIMARY KEY,
    namespace   text NOT NULL,
    workflow_id text NOT NULL REFERENCES keyturn.workflows ON DELETE CASCADE,
    node        text NOT NULL,
    visit       text NOT NULL,
    name        text NOT NULL,
    state       keyturn.effect_state NOT NULL,
    result      json,
    error       text,
    approval_id text UNIQUE REFERENCES keyturn.approvals,
    token       text NOT NULL,
    attempts    integer NOT NULL DEFAULT 1,
    asked       integer NOT NULL DEFAULT 0,
    settled     integer NOT NULL DEFAULT 0,
    started_at  timestamptz NOT NULL,
    finished_at timestamptz
);
CREATE INDEX effects_by_workflow ON keyturn.effects (workflow_id);

-- The answer to a request that carried an Idempotency-Key, so that sending it again changes nothing.
CREATE TABLE keyturn.idempotency_keys (
    namespace    text NOT NULL,
    caller       text NOT NULL,
    key          text NOT NULL,
    request_hash bytea NOT NULL,
    subject      text NOT NULL,
    created_at   timestamptz NOT NULL,
    PRIMARY KEY (namespace, caller, key)
);
CREATE INDEX idempotency_keys_age ON keyturn.idempotency_keys (created_at);
