-- What a namespace as a whole carries: the head of its own event chain, which version of the policies is published, and
-- a number that rises whenever its people or their roles change, so that whoever remembers them can tell.
--
-- Its chain tells what belongs to no workflow: people, keys, delegations, published policies. In `events` it stands
-- under the name '@' and the namespace, which no workflow has. Lock order: a namespace's row is the last to be locked.

CREATE TABLE keyturn.namespaces (
    namespace      text PRIMARY KEY,
    last_seq       bigint NOT NULL DEFAULT 0,
    last_hash      bytea NOT NULL DEFAULT '',
    policy_version integer NOT NULL DEFAULT 0,
    people_version bigint NOT NULL DEFAULT 0
);

-- Appends events to a namespace's own chain.
CREATE FUNCTION keyturn.append_ledger(p_namespace text, p_at timestamptz, p_types text[], p_actors text[],
                                      p_bodies text[]) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    n record;
BEGIN
    INSERT INTO keyturn.namespaces (namespace) VALUES (p_namespace) ON CONFLICT DO NOTHING;
    SELECT last_seq, last_hash INTO STRICT n FROM keyturn.namespaces WHERE namespace = p_namespace FOR UPDATE;
    n.last_hash := keyturn.chain_events('@' || p_namespace, p_namespace, n.last_seq, n.last_hash, p_at, p_types,
                                        p_actors, p_bodies);
    n.last_seq := n.last_seq + cardinality(p_types);
    UPDATE keyturn.namespaces SET last_seq = n.last_seq, last_hash = n.last_hash WHERE namespace = p_namespace;
    RETURN n.last_seq;
END $$;

CREATE FUNCTION keyturn.people_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO keyturn.namespaces AS n (namespace, people_version)
    VALUES (CASE WHEN TG_OP = 'DELETE' THEN OLD.namespace ELSE NEW.namespace END, 1)
    ON CONFLICT (namespace) DO UPDATE SET people_version = n.people_version + 1;
    RETURN NULL;
END $$;
CREATE TRIGGER people_changed AFTER INSERT OR DELETE ON keyturn.people
    FOR EACH ROW EXECUTE FUNCTION keyturn.people_changed();
CREATE TRIGGER roles_changed AFTER INSERT OR UPDATE OR DELETE ON keyturn.role_bindings
    FOR EACH ROW EXECUTE FUNCTION keyturn.people_changed();
