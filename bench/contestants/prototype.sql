-- The least that can be done in SQL: no workers to wake, no attempts, no history, no statistics. A session drains
-- its half of a table by plpgsql, a subtransaction and a call per job, one DELETE and one COMMIT per `batch`.
-- What Pushy is compared with in the same run.

CREATE TABLE prototype_job (id bigint PRIMARY KEY, args jsonb NOT NULL);

CREATE PROCEDURE prototype_drain(handler regproc, batch int) LANGUAGE plpgsql AS $$
DECLARE
    job      prototype_job;
    done     bigint[];
    position bigint := 0;
BEGIN
    LOOP
        done := '{}';
        FOR job IN
            SELECT * FROM prototype_job WHERE id > position ORDER BY id LIMIT batch FOR UPDATE SKIP LOCKED
        LOOP
            BEGIN
                IF handler = 'noop'::regproc THEN
                    PERFORM noop(job.args);
                ELSE
                    PERFORM one_row(job.args);
                END IF;
            EXCEPTION WHEN OTHERS THEN
                RAISE;
            END;
            done := done || job.id;
        END LOOP;
        EXIT WHEN done = '{}';
        DELETE FROM prototype_job WHERE id = ANY (done);
        position := done[array_upper(done, 1)];
        COMMIT;
    END LOOP;
END
$$;
