-- What was published of the approval policies: each text as it was, numbered in its namespace, never changed. `versions`
-- holds the number of each policy in it. The newest one's number is namespaces.policy_version, which rises only while
-- that row is locked; 0 says that none was published.

CREATE TABLE keyturn.policy_books (
    namespace    text NOT NULL,
    version      integer NOT NULL,
    text         text NOT NULL,
    file         text NOT NULL,
    versions     json NOT NULL,
    digest       text NOT NULL,
    published_by text NOT NULL,
    published_at timestamptz NOT NULL,
    PRIMARY KEY (namespace, version)
);
