//! Queues that came here by a restore or a copy of the database, or by pg_upgrade (upgrade.rs): numbers of functions mean others here, and in
//! another cluster those of roles too, where names decide. Nothing runs before somebody says so.

use std::sync::atomic::Ordering;

use crate::pg::{BuiltinOid, Oid};

use crate::errors::{quote_literal, Error, Result, SqlState};
use crate::installation;
use crate::pg::spi::{self, Plan};
use crate::pg::{database, home, identity, transaction};
use crate::queue::definition::{self, LockedQueue, QueueDefinition};
use crate::queue::eligibility::{self, role_gone, Ineligible};
use crate::queue::{
    alter, announce, cache, handler_name, park, pause, privilege, reference, register,
};
use crate::shared::{self, pending};
use crate::{params, row, sql_function, JOBS_OF_QUEUES, ON_QUEUES};

sql_function!(pushy_resume_after_restore_v1, |call| {
    transaction::require_writable(c"pushy.resume_after_restore()");
    let caller = identity::current_user();
    let resumes_all = identity::owns_extension(caller);
    let drops_rest = call.opt_bool(0).unwrap_or(false);
    if drops_rest && !resumes_all {
        return Err(Error::new(
            SqlState::INSUFFICIENT_PRIVILEGE,
            "only the owner of the extension drops the rest of a dump",
        )
        .hint("Call it without drop_rest: it resumes what is yours."));
    }
    let queues = identity::as_owner(definition::all)?;
    call.answer_rows(|rows| {
        let may = |queue: &QueueDefinition| resumes_all || privilege::is_owner(queue, caller);
        // Only these are locked: others have nothing to be resumed.
        for queue in queues.iter().filter(|queue| may(queue) && is_to_adopt(queue)) {
            match identity::as_owner(|| definition::find_if_free(queue.queue_id))? {
                LockedQueue::Locked(queue) => {
                    let name = queue.name.clone();
                    let is_asked_for = may(&queue);
                    let adopted = is_asked_for.then(|| adopt(*queue)).transpose()?.flatten();
                    if let Some(obstacle) = adopted {
                        rows.put(row!["queue", name, obstacle.is_none(), obstacle]);
                    }
                }
                LockedQueue::Held => {
                    let reason = "somebody changes it in a transaction that is open: run this again when that has ended";
                    rows.put(row!["queue", queue.name.clone(), false, reason]);
                }
                LockedQueue::Gone => {}
            }
        }
        for kind in &ON_QUEUES {
            for name in identity::as_owner(|| (kind.forget_lost)(drops_rest))? {
                let reason =
                    "dropped, because its table is not here, or has another owner than before";
                rows.put(row![kind.kind[0], name, false, reason]);
            }
            for (name, obstacle) in (kind.adopt_all)(resumes_all)? {
                rows.put(row![kind.kind[0], name, obstacle.is_none(), obstacle]);
            }
        }
        for (table, what) in installation::take_passed_over()? {
            rows.put(row!["rows", table, false, what]);
        }
        if resumes_all {
            if let Some(reason) = rest(drops_rest)? {
                rows.put(row!["jobs", "without their queue", false, reason]);
            }
            for kind in &ON_QUEUES {
                if let Some((name, reason)) = (kind.rest)(drops_rest)? {
                    rows.put(row![kind.kind[0], name, false, reason]);
                }
            }
        }
        ask_for_sweep();
        Ok(())
    })
});

/// What was loaded without its queue, in words; removes it, if asked to.
fn rest(is_dropped: bool) -> Result<Option<String>> {
    identity::as_owner(|| {
        let jobs = (JOBS_OF_QUEUES.count_rest)();
        if is_dropped {
            (JOBS_OF_QUEUES.drop_rest)();
        }
        Ok(match (jobs, is_dropped) {
            (0, _) => None,
            (jobs, true) => Some(format!("dropped, because they were loaded without their queue: unfinished jobs, {jobs}")),
            (jobs, false) => Some(format!(
                "they were loaded without their queue, whose row was not loaded, or met a queue of its name here, and never run: unfinished jobs, {jobs}. To drop them: SELECT * FROM pushy.resume_after_restore(drop_rest => true). To have them, rename or drop the queue that is here and load table pushy_internal.queue of the dump again; or restore the whole dump into an empty database"
            )),
        })
    })
}

/// What came here may be due, and may bring promises to cancel.
pub(in crate::queue) fn ask_for_sweep() {
    let database_slot = shared::get().and_then(|shared| shared.find_database(database::current()));
    if let Some(database_slot) = database_slot {
        database_slot
            .cancels_recalled
            .store(false, Ordering::SeqCst);
    }
    pending::sweep();
}

/// Whether `adopt` has anything to do.
fn is_to_adopt(queue: &QueueDefinition) -> bool {
    !queue.is_home() || eligibility::is_recreated(queue)
}

/// Makes this database the queue's home, and its handler the function of that name where a restore has made it anew; answers
/// why it does not run all the same. None: it was at home, and nothing of a restore was in its way.
pub(in crate::queue) fn adopt(mut queue: QueueDefinition) -> Result<Option<Option<String>>> {
    if !is_to_adopt(&queue) {
        return Ok(None);
    }
    if queue.is_home() {
        pause::take_new_names(&mut queue)?;
    } else if let Err(obstacle) = make_home(&mut queue) {
        return Ok(Some(Some(obstacle.message)));
    }
    let ineligible = if queue.is_outside() {
        eligibility::check_declared(&queue)
    } else {
        eligibility::check(&queue).and_then(|_| eligibility::check_entry(&queue))
    };
    queue.parked = ineligible.err().map(|ineligible| ineligible.reason());
    if queue.parked.is_none() {
        register::remember_handler_owner(&mut queue);
    }
    alter::write(&queue)?;
    if queue.parked.is_some() {
        park::count_and_publish(&queue)?;
    }
    let why_paused = || {
        format!(
            "the queue is paused; SELECT pushy.queue_resume({})",
            quote_literal(&queue.name)
        )
    };
    let why_placeless = || {
        format!(
            "{}, and this queue found none: raise it and restart the server, or drop queues",
            cache::all_taken()
        )
    };
    if queue.parked.is_some() || queue.paused {
        return Ok(Some(queue.parked.or_else(|| Some(why_paused()))));
    }
    let has_place = announce::takes_place(&queue);
    Ok(Some((!has_place).then(why_placeless)))
}

/// Finds roles, grantees and handler as a queue says them, and brings it home with them.
pub fn make_home(queue: &mut QueueDefinition) -> Result<()> {
    find_roles(queue).map_err(Ineligible::into_error)?;
    let existing = queue.clone();
    let system = existing.home_system;
    // What can fail comes first: the rows of its jobs are rewritten once.
    let function = handler_name::by_stored_signature(&queue.handler)?;
    queue.handler_oid = function.map_or(Oid::INVALID, |function| function.oid);
    queue.handler_owner =
        home::role(system, queue.handler_owner, &queue.handler_owner_name).unwrap_or(Oid::INVALID);
    come_home(&existing, queue)
}

/// The one way home of a queue that is elsewhere: with its jobs, which are to be found, none a second time, and its grants, of which
/// numbers and names are those of this place from here on. `queue` is written then, with its roles.
pub fn come_home(existing: &QueueDefinition, queue: &mut QueueDefinition) -> Result<()> {
    identity::as_owner(|| {
        if !home::has_our_roles(existing.home_system) {
            (JOBS_OF_QUEUES.find_enqueuers)(existing);
        }
        if existing.home_database == 0 {
            installation::come_home(existing.queue_id);
            (JOBS_OF_QUEUES.adopted)(existing.queue_id);
        }
        (JOBS_OF_QUEUES.announce_all)(existing);
        find_grantees(existing.queue_id, existing.home_system)
    })?;
    begin_here(queue);
    identity::as_owner(|| reference::take_up(queue))?;
    ask_for_sweep();
    Ok(())
}

/// Of a queue that is made here, or comes home.
pub fn begin_here(queue: &mut QueueDefinition) {
    queue.home_system = database::system_identifier();
    queue.home_database = database::current();
}

/// Owner and role as they are known here.
pub fn find_roles(queue: &mut QueueDefinition) -> std::result::Result<(), Ineligible> {
    find_owner(queue, queue.home_system)?;
    let role = home::role(queue.home_system, queue.run_as, &queue.run_as_name)
        .ok_or_else(|| role_gone::run_as(queue, queue))?;
    queue.run_as = role;
    queue.run_as_name = identity::role_name(role);
    Ok(())
}

/// The owner, as written in the cluster `system`.
pub fn find_owner(queue: &mut QueueDefinition, system: i64) -> std::result::Result<(), Ineligible> {
    let owner = home::role(system, queue.owner, &queue.owner_name)
        .ok_or_else(|| role_gone::owner(queue, queue))?;
    queue.owner = owner;
    queue.owner_name = identity::role_name(owner);
    Ok(())
}

static TAKE_GRANTS: Plan = Plan::new(
    "DELETE FROM pushy_internal.queue_acl a WHERE a.queue_id OPERATOR(pg_catalog.=) $1 \
     RETURNING a.grantee, a.grantee_name::pg_catalog.text, a.privilege",
    &[BuiltinOid::INT4OID],
);

// A role that was renamed, and another of its former name, are one by name.
static PUT_GRANT: Plan = Plan::new(
    "INSERT INTO pushy_internal.queue_acl (queue_id, grantee, grantee_name, privilege) \
     VALUES ($1, $2, $3::pg_catalog.name, $4) ON CONFLICT DO NOTHING",
    &[
        BuiltinOid::INT4OID,
        BuiltinOid::OIDOID,
        BuiltinOid::TEXTOID,
        BuiltinOid::TEXTOID,
    ],
);

/// Grantees, as written in the cluster `system`; grants to roles that are not here are dropped. As the extension's owner.
fn find_grantees(queue_id: i32, system: i64) -> Result<()> {
    let grants: Vec<(Oid, String, String)> = spi::connect(|spi| {
        let taken = spi.run(&TAKE_GRANTS, params![queue_id]);
        let read = |row: spi::Row<'_>| Ok((row.oid(1), row.text(2)?, row.text(3)?));
        taken.rows().map(read).collect::<Result<_>>()
    })?;
    for (grantee, name, privilege) in grants {
        let found = if grantee == Oid::INVALID {
            Some((grantee, name))
        } else {
            home::role(system, grantee, &name).map(|role| (role, identity::role_name(role)))
        };
        if let Some((grantee, name)) = found {
            spi::run(&PUT_GRANT, params![queue_id, grantee, name, privilege]);
        }
    }
    pending::privileges_changed(None);
    Ok(())
}
